"""A run that is cut off after any of its durable changes is completed by the next one, and nothing is ever lost.

The disk itself objects (`volume_lab`): to a format over a key slot, and to a format or a file system over data.
"""

from __future__ import annotations

import random

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.bedplate.llm.plugins.module_utils.volume_methods import RECOVERY, ways
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import READY
from volume_controller import Controller
from volume_lab import Lab, Power, PowerCutError, remembered

# What is on a disk after each step, in order; the numbers of the files and what is half there are left out.
ORDER = [
    "escrow with 1 passphrases, 0 backups",
    "record formatting",
    "a header without a key",
    "a header",
    "escrow with 1 passphrases, 1 backups",
    "record formatted",
    "escrow with 1 passphrases, 2 backups",
    "escrow with 1 passphrases, 3 backups",
    "record making-filesystem",
    "half a file system",
    "a file system",
    "record ready",
    "crypttab",
    "fstab",
    "mounted",
]


@pytest.fixture(scope="module")
def changes(tmp_path_factory):
    """Every durable change of a run that nobody cuts off."""
    with pytest.MonkeyPatch.context() as patch:
        controller = Controller(Lab(tmp_path_factory.mktemp("whole") / "lab", Power()), patch)
        controller.run()
        return controller.lab.power.changes


def cut_off(controller: Controller, cut: int, reboot: bool = True) -> bool:
    """Whether the run was cut off before it was over; without a reboot only the run itself ended."""
    controller.lab.power = Power(cut)
    try:
        controller.run()
    except PowerCutError:
        if reboot:
            controller.lab.reboot()
        return True
    return False


def prove_whole(controller: Controller, case: object) -> None:
    """The volume is there, can be opened, can be brought back, and a further run has nothing to do."""
    lab = controller.lab
    lab.power = Power()
    escrow, record, header = controller.store.read(lab.serial), remembered(lab), lab.scan.header
    assert escrow and record and header, case
    assert {escrow.uuid, record.uuid} == {header.uuid}, case
    assert record.state == READY, case
    assert escrow.backup and escrow.backup.sequence == header.sequence, case
    assert controller.store.passphrase(escrow).encode() == lab.keys[0], case
    methods = [way.method for way in ways(header)]
    assert sorted(set(methods)) == sorted([RECOVERY, "tang", "tpm2"]), case
    assert lab.mounted and lab.inside == "ext4", case
    before = lab.disk.stat().st_mtime_ns
    assert controller.run()["changed"] is False, case
    assert lab.disk.stat().st_mtime_ns == before, case


def test_what_undoes_a_step_is_on_a_disk_before_the_step(changes):
    told = iter(changes)
    assert [event for event in ORDER if event in told] == ORDER


def test_a_run_that_was_cut_off_anywhere_is_completed_by_the_next(changes, tmp_path):
    for cut in range(1, len(changes) + 1):
        with pytest.MonkeyPatch.context() as patch:
            controller = Controller(Lab(tmp_path / f"{cut}", Power()), patch)
            assert cut_off(controller, cut)
            controller.lab.power = Power()
            try:
                controller.run()
            except AnsibleActionFail as error:
                pytest.fail(f"after {changes[cut - 1]} ({cut}): {error}")
            prove_whole(controller, f"after {changes[cut - 1]} ({cut})")


def test_a_run_that_was_cut_off_again_and_again_is_completed_too(changes, tmp_path):
    dice = random.Random(5)
    for number in range(15):
        with pytest.MonkeyPatch.context() as patch:
            controller = Controller(Lab(tmp_path / f"{number}", Power()), patch)
            cuts = [dice.randint(1, len(changes) // 3) for _cut in range(5)]
            try:
                for cut in cuts:
                    cut_off(controller, cut, reboot=dice.random() < 0.5)
                controller.lab.power = Power()
                controller.run()
            except AnsibleActionFail as error:
                pytest.fail(f"after {cuts}: {error}")
            prove_whole(controller, cuts)
