"""The modules on a host: what they do, in which order, and what is left when a run is cut off anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_host import create_argv
from ansible_collections.bedplate.llm.plugins.modules import md_array, md_array_info
from md_lab import DATA, Lab, declared, play
from md_samples import ARRAY, STRIPED, UUID, WITHOUT_0, WITHOUT_1, leg
from module_runner import ModuleFailedError, run
from volume_lab import Power, PowerCutError

CHANGES = ["weights.json creating", "superblock 0", "superblock 1", "running", "weights.json ready", "mdadm.conf"]
CONFIGURATION = "etc/mdadm/mdadm.conf"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = Lab(tmp_path / "lab", Power())
    play(made, monkeypatch)
    return made


def rolled_out(*serials: str, **options: Any) -> list[str]:
    result = run(md_array, arrays=declared(*(serials or ("leg0", "leg1"))), **options)
    assert result["changed"] == bool(result["actions"])
    actions: list[str] = result["actions"]
    return actions


def told(*serials: str) -> dict[str, Any]:
    result: dict[str, Any] = run(
        md_array_info, arrays=declared(*(serials or ("leg0", "leg1"))), units=["mdmonitor-bedplate.service"]
    )
    return result


def failing(result: dict[str, Any]) -> list[str]:
    return [check["id"].removeprefix("md_array.") for check in result["checks"] if not check["ok"]]


def remembered(lab: Lab) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((lab.root / "var/lib/bedplate-volumes/arrays/weights.json").read_text())
    return record


def test_empty_disks_become_an_array_and_a_second_run_changes_nothing(lab: Lab):
    assert rolled_out() == [
        f"made weights of {lab.path('leg0')}, {lab.path('leg1')}",
        f"wrote weights into /{CONFIGURATION}",
    ]
    assert lab.power.changes == CHANGES
    assert lab.members() == ["leg0", "leg1"]
    assert f"UUID={remembered(lab)['uuid']}" in (lab.root / CONFIGURATION).read_text()
    assert rolled_out() == []
    assert lab.power.changes == CHANGES


def test_the_uuid_is_on_the_hosts_disk_before_mdadm_is_given_it(lab: Lab):
    rolled_out()
    superblock = lab.superblock("leg0")
    assert superblock
    assert superblock.uuid == remembered(lab)["uuid"]
    assert lab.power.changes.index("weights.json creating") < lab.power.changes.index("superblock 0")


def test_check_mode_says_it_and_does_nothing(lab: Lab):
    assert rolled_out(_ansible_check_mode=True) == [
        f"would make weights of {lab.path('leg0')}, {lab.path('leg1')}",
        f"would write weights into /{CONFIGURATION}",
    ]
    assert lab.power.changes == []
    assert {argv[0] for argv in lab.argvs} == {"lsblk", "wipefs", "blkid", "mdadm"}
    assert {argv[1] for argv in lab.argvs if argv[0] == "mdadm"} == {"--examine"}


@pytest.mark.parametrize("reboot", [True, False])
@pytest.mark.parametrize("second", [0, 1, 2])
@pytest.mark.parametrize("cut", range(1, len(CHANGES) + 1))
def test_a_run_that_was_cut_off_anywhere_is_completed(lab: Lab, cut: int, second: int, reboot: bool):
    """Also when the next one is cut off as well.  The array has one UUID from beginning to end."""
    uuids = set()
    for power in [Power(cut), *([Power(second)] if second else [])]:
        lab.power = power
        try:
            rolled_out()
        except PowerCutError:
            uuids.add(remembered(lab)["uuid"])
            if reboot:
                lab.reboot()
    lab.power = Power()
    rolled_out()
    assert lab.members() == ["leg0", "leg1"]
    assert uuids == {remembered(lab)["uuid"]}
    assert remembered(lab)["state"] == "ready"
    assert failing(told()) == ["weights-found-by-name"]  # udev is not played
    assert rolled_out() == []


def test_half_an_array_that_udev_put_together_is_stopped_and_made_whole(lab: Lab):
    lab.power = Power(CHANGES.index("superblock 0") + 1)
    with pytest.raises(PowerCutError):
        rolled_out()
    lab.reboot()
    assert lab.members() == ["leg0"]
    lab.power = Power()
    rolled_out()
    assert ["mdadm", "--stop", "/dev/md127"] in lab.argvs


def test_what_came_onto_a_disk_meanwhile_is_not_overwritten(lab: Lab):
    lab.power = Power(CHANGES.index("superblock 0") + 1)
    with pytest.raises(PowerCutError):
        rolled_out()
    lab.reboot()
    lab.power = Power()
    lab.write("leg1", DATA, b"somebody")
    with pytest.raises(ModuleFailedError, match="holds bytes behind the place of its superblock, after making"):
        rolled_out()
    assert lab.data("leg1") == b"somebody"
    assert lab.power.changes == []


def test_an_array_whose_superblocks_are_gone_is_never_made_again(lab: Lab):
    rolled_out()
    lab.stop()
    lab.empty("leg0")
    lab.empty("leg1")
    with pytest.raises(ModuleFailedError, match="It is not made again"):
        rolled_out()
    assert [argv for argv in lab.argvs if argv[:2] == ["mdadm", "--create"]] == [
        create_argv(ARRAY, remembered(lab)["uuid"])
    ]


def test_a_failed_disk_is_exchanged(lab: Lab):
    rolled_out()
    (lab.folder / "dev-vdc/state").write_text("faulty\n")
    assert failing(told()) == ["weights-whole", "weights-found-by-name"]
    assert rolled_out("leg0", "leg2") == [
        "removed the failed vdc from weights",
        "added /dev/disk/by-id/virtio-leg2 to weights",
    ]
    assert lab.members() == ["leg0", "leg2"]


def test_an_exchange_that_was_cut_off_is_completed(lab: Lab):
    rolled_out()
    (lab.folder / "dev-vdc/state").write_text("faulty\n")
    lab.power = Power(1)
    with pytest.raises(PowerCutError):
        rolled_out("leg0", "leg2")
    assert lab.members() == ["leg0"]
    lab.power = Power()
    assert rolled_out("leg0", "leg2") == ["added /dev/disk/by-id/virtio-leg2 to weights"]


def test_a_disk_that_went_without_the_kernel_noticing_is_failed_first(lab: Lab):
    rolled_out()
    lab.path("leg1").unlink()
    rolled_out("leg0", "leg2")
    assert ["mdadm", "--manage", "/dev/md127", "--fail", "vdc", "--remove", "vdc"] in lab.argvs


def test_a_disk_that_was_away_is_taken_back(lab: Lab):
    rolled_out()
    lab.leave("vdc")
    assert rolled_out() == ["took /dev/disk/by-id/virtio-leg1 back into weights"]


def test_a_disk_that_cannot_be_taken_back_is_told_with_the_way(lab: Lab):
    rolled_out()
    lab.leave("vdc")
    lab.broken = {"mdadm --manage"}
    with pytest.raises(ModuleFailedError, match=r"cannot be taken back as one \(it is broken\); .*--zero-superblock"):
        rolled_out()


def test_a_disk_that_was_written_apart_is_not_taken_back(lab: Lab):
    rolled_out()
    lab.stop()
    uuid = remembered(lab)["uuid"]
    for number, (serial, roles) in enumerate([("leg0", WITHOUT_1), ("leg1", WITHOUT_0)]):
        lab._mark(serial, number=number, uuid=uuid, roles=roles)
    with pytest.raises(ModuleFailedError, match="were written one without the other"):
        rolled_out()
    assert lab.members() == []


def test_a_host_that_was_installed_anew_takes_up_what_is_on_its_disks(lab: Lab):
    rolled_out()
    before = remembered(lab)
    (lab.root / "var/lib/bedplate-volumes/arrays/weights.json").unlink()
    lab.stop()
    assert rolled_out() == ["started weights"]
    assert remembered(lab) == before


def test_a_disk_with_a_volume_on_it_is_refused(lab: Lab):
    folder = lab.root / "var/lib/bedplate-volumes"
    folder.mkdir(parents=True)
    record = {"serial": "leg1", "name": "models", "uuid": "1234", "state": "ready", "confirmed": False}
    (folder / "leg1.json").write_text(json.dumps(record))
    with pytest.raises(ModuleFailedError, match="remembers encrypted volume 1234 on"):
        rolled_out()
    (folder / "leg1.json").write_text(json.dumps({**record, "state": "erased"}))
    assert rolled_out()[0].startswith("made weights")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no record of an array"),
        ('{"name": "weights"}', "is no record of an array ('uuid')"),
        ("", "no record"),
    ],
)
def test_a_record_that_is_damaged_is_never_taken_for_none(lab: Lab, text: str, said: str):
    folder = lab.root / "var/lib/bedplate-volumes/arrays"
    folder.mkdir(parents=True)
    (folder / "weights.json").write_text(text)
    with pytest.raises(ModuleFailedError) as failed:
        rolled_out()
    assert said in str(failed.value)
    with pytest.raises(ModuleFailedError):
        told()
    assert lab.power.changes == []


def test_a_state_that_nobody_knows_is_told(lab: Lab):
    rolled_out()
    file = lab.root / "var/lib/bedplate-volumes/arrays/weights.json"
    file.write_text(file.read_text().replace("ready", "fine"))
    with pytest.raises(ModuleFailedError, match="state is one of creating, ready, found 'fine'"):
        rolled_out()


def test_what_mdadm_says_is_told_with_what_was_done(lab: Lab):
    lab.broken = {"mdadm --create"}
    with pytest.raises(ModuleFailedError, match=r"weights: `mdadm --create .* ended with 1: it is broken"):
        rolled_out()
    assert remembered(lab)["state"] == "creating"
    lab.broken = set()
    assert rolled_out()[0].startswith("made weights")


def test_what_cannot_be_declared_is_refused_before_anything(lab: Lab):
    with pytest.raises(ModuleFailedError, match="devices: give two disks or more"):
        rolled_out("leg0")
    assert lab.argvs == []


def test_what_is_told_of_an_array(lab: Lab):
    assert failing(told()) == ["weights-there"]
    rolled_out()
    lab.path("leg1").rename(lab.path("leg1").with_name("elsewhere"))
    (array,) = told()["arrays"]
    assert array["decision"] == "keep"
    assert [(member["serial"], member["states"]) for member in array["members"]] == [
        ("leg0", ["in_sync"]),
        ("", ["in_sync"]),
    ]


def test_the_command_that_makes_it():
    assert create_argv(ARRAY, UUID) == [
        *("mdadm", "--create", "/dev/md/bedplate-weights", "--run", "--metadata=1.2", "--homehost=bedplate"),
        *("--name=weights", f"--uuid={UUID}", "--level=1", "--raid-devices=2", "--bitmap=internal"),
        *(leg(0).device, leg(1).device),
    ]
    striped = create_argv(STRIPED, UUID)
    assert "--level=0" in striped
    assert not [word for word in striped if word.startswith(("--bitmap", "--chunk", "--assume-clean"))]
