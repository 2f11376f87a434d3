"""A way of unlocking is made anew: the new one opens before the old one goes, and the old one is refused afterwards."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.bedplate.llm.plugins.module_utils.volume_methods import RECOVERY, ways
from test_luks_volume_action import refused, state_of
from volume_controller import Controller
from volume_lab import Lab, Power, PowerCutError
from volume_samples import SERIAL


@pytest.fixture
def controller(tmp_path, monkeypatch):
    made = Controller(Lab(tmp_path / "lab", Power()), monkeypatch)
    made.run()
    made.steps.clear()
    return made


def methods(controller: Controller) -> list[str]:
    return sorted(way.method for way in ways(controller.lab.scan.header))


def opening(controller: Controller, key: str) -> list[int]:
    """Key slots of the header that a passphrase opens."""
    slots = controller.lab.scan.header.keyslots
    return [slot for slot in slots if controller.lab.keys[slot] == key.encode()]


def prove_rotated(controller: Controller, former: str, case: object = "") -> None:
    escrow = controller.store.read(SERIAL)
    assert len(escrow.passphrases) == len(escrow.backups) == 1, case
    assert len(list((controller.escrow_dir / SERIAL).glob("*.vault"))) == 2, case
    new = controller.store.passphrase(escrow)
    assert new != former, case
    assert len(opening(controller, new)) == 1, case
    assert opening(controller, former) == [], case
    assert methods(controller) == [RECOVERY, "tang", "tpm2"], case
    assert escrow.backup.sequence == controller.lab.scan.header.sequence, case
    assert controller.run()["changed"] is False, case


def test_a_new_recovery_passphrase_takes_the_place_of_the_former_one(controller):
    former = controller.store.passphrase(controller.store.read(SERIAL))
    result = controller.run(state="rotated", method="recovery")
    assert result["actions"] == [
        "kept a new recovery passphrase in the escrow",
        "added it to the volume and proved it",
        "took out the former one (key slot 0)",
        "destroyed the former secrets and backups of the header in the escrow",
    ]
    prove_rotated(controller, former)
    assert former not in str(result)


@pytest.mark.parametrize(("method", "slot"), [("tpm2", 1), ("tang", 2)])
def test_a_new_way_takes_the_place_of_the_former_one(method, slot, controller):
    before = next(way for way in ways(controller.lab.scan.header) if way.method == method)
    assert before.keyslot == slot
    actions = controller.run(state="rotated", method=method)["actions"]
    assert actions == [
        f"added {method}",
        f"took out the former one (key slot {slot})",
        "destroyed the former secrets and backups of the header in the escrow",
    ]
    after = [way for way in ways(controller.lab.scan.header) if way.method == method]
    assert len(after) == 1
    assert after[0] != before
    assert methods(controller) == [RECOVERY, "tang", "tpm2"]
    escrow = controller.store.read(SERIAL)
    assert [backup.sequence for backup in escrow.backups] == [controller.lab.scan.header.sequence]
    assert controller.run()["changed"] is False


def test_the_new_one_is_backed_up_before_the_former_one_goes(controller):
    controller.lab.power.events.clear()
    controller.run(state="rotated", method="recovery")
    order = [
        "passphrase",
        "escrow with 2 passphrases, 3 backups",
        "step add_passphrase",
        "a key slot",
        "escrow with 2 passphrases, 4 backups",
        "step drop_passphrases",
        "a key slot less",
        "escrow with 2 passphrases, 5 backups",
        "escrow with 1 passphrases, 1 backups",
    ]
    told = iter(controller.lab.power.events)
    assert [event for event in order if event in told] == order


@pytest.mark.parametrize("method", ["", "tpm2+tang", "passphrase"])
def test_only_a_way_that_the_volume_is_declared_with_is_made_anew(method, controller):
    refused(
        controller,
        f"method is one of recovery, tpm2, tang, .* found '{method}'".replace("+", r"\+"),
        state="rotated",
        method=method,
    )


def test_check_mode_changes_nothing(controller):
    before = state_of(controller)
    actions = controller.run(state="rotated", method="recovery", check_mode=True)["actions"]
    assert actions == ["would make recovery anew and take the former one out"]
    assert state_of(controller) == before


def test_a_new_way_that_does_not_open_leaves_the_former_one(controller):
    controller.lab.broken.add("clevis decrypt")
    with pytest.raises(AnsibleActionFail, match="tang does not open the volume, and was taken out"):
        controller.run(state="rotated", method="tang")
    controller.lab.broken.clear()
    assert methods(controller) == [RECOVERY, "tang", "tpm2"]


def test_a_tpm_that_refuses_leaves_the_former_way(controller):
    controller.lab.broken.add("systemd-cryptenroll")
    with pytest.raises(AnsibleActionFail, match=r"`systemd-cryptenroll .* ended with 1"):
        controller.run(state="rotated", method="tpm2")
    controller.lab.broken.clear()
    assert methods(controller) == [RECOVERY, "tang", "tpm2"]
    assert controller.run()["actions"] == ["backed up the header"]


def test_a_key_slot_that_nobody_knows_is_left_and_named(controller):
    lab = controller.lab
    lab._add_slot(lab.keys[0], b"somebody's own", "argon2id")
    actions = controller.run(state="rotated", method="recovery")["actions"]
    assert "left key slot 3, which no passphrase of the escrow opens" in actions
    assert 3 in lab.scan.header.keyslots


def test_a_passphrase_that_is_half_changed_is_completed_before_anything_else(controller):
    controller.store.add_passphrase(controller.store.read(SERIAL))
    refused(
        controller, "its recovery passphrase is being changed.* complete that first", state="rotated", method="tpm2"
    )


def test_with_a_half_changed_passphrase_the_volume_is_unlocked_all_the_same(controller):
    controller.store.add_passphrase(controller.store.read(SERIAL))
    controller.lab.reboot()
    controller.run(state="unlocked")
    assert controller.lab.mounted


def test_an_escrow_none_of_whose_passphrases_opens_is_told(controller):
    controller.store.add_passphrase(controller.store.read(SERIAL))
    controller.lab.keys = dict.fromkeys(controller.lab.keys, b"another one")
    with pytest.raises(AnsibleActionFail, match="none of the escrow's passphrases opens it, so that none can be added"):
        controller.run(state="rotated", method="recovery")
    controller.lab.reboot()
    with pytest.raises(AnsibleActionFail, match="None of the 2 passphrases in the escrow of data0 opens the volume"):
        controller.run(state="unlocked")


@pytest.mark.parametrize("method", ["recovery", "tpm2", "tang"])
def test_a_rotation_that_was_cut_off_anywhere_is_completed_by_the_next(method, tmp_path):
    cut = 0
    while True:
        cut += 1
        with pytest.MonkeyPatch.context() as patch:
            controller = Controller(Lab(tmp_path / f"{cut}", Power()), patch)
            controller.run()
            former = controller.store.passphrase(controller.store.read(SERIAL))
            controller.lab.power = Power(cut)
            try:
                controller.run(state="rotated", method=method)
            except PowerCutError as error:
                case = f"after {error} ({cut})"
                controller.lab.power = Power()
                # Whatever the state, somebody can get in.
                controller.lab.reboot()
                controller.run(state="unlocked")
                assert controller.lab.mounted, case
                controller.run(state="rotated", method=method)
            else:
                break
            if method == "recovery":
                prove_rotated(controller, former, case)
            else:
                assert [way.method for way in ways(controller.lab.scan.header)].count(method) == 1, case
                assert len(controller.store.read(SERIAL).backups) == 1, case
                assert opening(controller, former), case
    assert cut > 5
