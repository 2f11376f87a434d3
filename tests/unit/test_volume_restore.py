"""A header comes back from the escrow: over nothing but its own volume, and what lay there is kept."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.bedplate.llm.plugins.module_utils.block_device import Device, Mapping
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import ERASED, ERASING, READY
from ansible_collections.bedplate.llm.plugins.module_utils.volume_restore import problems, whole
from test_luks_volume_action import refused, state_of
from volume_controller import Controller
from volume_lab import Lab, Power, PowerCutError, remembered
from volume_samples import (
    COPY,
    DAMAGED,
    ERASED_ESCROW,
    EXT4,
    FOREIGN,
    KEPT,
    LUKS1,
    OTHER,
    OURS,
    OURS_KEYLESS,
    PREPARED,
    SERIAL,
    UUID,
    VOLUME,
    both_copies,
    device,
    metadata,
    record,
    scanned,
)

OPEN = (Mapping("models", f"CRYPT-LUKS2-{UUID.replace('-', '')}-models", "/dev/mapper/models", (VOLUME.mount,)),)
THEIRS = (Mapping("vg0-lv0", "LVM-7I51AF", "/dev/mapper/vg0-lv0"),)
IN_USE = {"holders": ("dm-0",), "children": ("models",), "exclusive": False}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        # What is left of the volume itself.
        (device(), ""),
        (device(blank=False), ""),
        (device(OURS), ""),
        (device(OURS_KEYLESS), ""),
        (device(DAMAGED), ""),
        # It is still open, so that its data are still there, and it needs its header before the next boot.
        (device(mappings=OPEN, **IN_USE), ""),
        # Somebody else's.
        (device(FOREIGN), f"holds volume {OTHER} \\(label models\\), not {UUID}"),
        (device(LUKS1), "holds a LUKS1 volume"),
        (device(signatures=EXT4), "holds ext4 at byte 1080; where that was written over the volume by mistake"),
        (device(array_member=True), "is a member of a RAID array"),
        (device(mappings=THEIRS, **IN_USE), "carries models"),
        (device(mappings=OPEN, **{**IN_USE, "holders": ("dm-0", "dm-1")}), "carries models"),
        (device(exclusive=False), "in use by something"),
        (device(mounts=("/mnt",)), "in use at /mnt"),
        (device(read_only=True), "is read-only"),
        (device(mappings=OPEN, **IN_USE, read_only=True), "is read-only"),
        # Another disk.
        (Device(VOLUME.device), "no such device"),
        (device(serial="data1"), "declared is data0"),
        (device(size=1), "declared are"),
    ],
)
def test_a_header_is_written_over_what_is_left_of_its_volume_and_nothing_else(found, words):
    said = "; ".join(problems(VOLUME, found, record(READY), KEPT))
    assert bool(said) == bool(words)
    assert re.search(words, said)


@pytest.mark.parametrize(
    ("remembered_as", "escrow", "words"),
    [
        (None, KEPT, ""),
        (record(ERASED, OTHER), KEPT, ""),
        (record(READY), PREPARED, "the escrow has no backup of a header"),
        (record(READY), None, "the escrow has no backup of a header"),
        (record(READY), ERASED_ESCROW, "the escrow has no backup of a header"),
        (record(READY, OTHER), KEPT, f"remembers /dev/vdb as volume {OTHER}, the backup is of {UUID}"),
        (record(ERASING), KEPT, "is being erased"),
    ],
)
def test_both_sides_have_to_know_the_same_volume(remembered_as, escrow, words):
    said = "; ".join(problems(VOLUME, device(), remembered_as, escrow))
    assert words in said
    assert bool(said) == bool(words)


@pytest.mark.parametrize(
    ("scan", "expected"),
    [
        (OURS, True),
        (OURS_KEYLESS, False),
        (DAMAGED, False),
        (replace(OURS, primary=None, damaged=(0,)), False),
        (replace(OURS, secondary=None, damaged=(COPY,)), False),
        (scanned(metadata((1, 2))), True),
    ],
)
def test_a_header_is_whole_with_both_copies_and_a_key(scan, expected):
    assert whole(scan) is expected


# --- with both sides ---


@pytest.fixture
def controller(tmp_path, monkeypatch):
    """A volume that is there, and locked."""
    made = Controller(Lab(tmp_path / "lab", Power()), monkeypatch)
    made.run()
    made.lab.reboot()
    made.steps.clear()
    return made


def header_of(controller: Controller) -> bytes:
    return controller.lab.disk.open("rb").read(2 * COPY)


DESTROYED = {
    "zeros": bytes(1 << 20),
    "the first copy": bytes(4096),
    "half of both": b"\xff" * (COPY + 2000),
    "no key slot": both_copies(metadata(()), sequence=40),
}


@pytest.mark.parametrize("damage", DESTROYED)
def test_a_destroyed_header_comes_back_and_the_volume_is_mounted(damage, controller):
    before, uuid = header_of(controller), controller.store.read(SERIAL).uuid
    content = DESTROYED[damage] if damage != "no key slot" else both_copies(metadata(()), uuid, 40)
    controller.lab.write(content)
    lay_there = header_of(controller)
    actions = controller.run(state="restored")["actions"]
    newest = controller.store.read(SERIAL).backup.file
    assert actions[1:] == [
        f"restored the header of {controller.lab.disk} from {newest}",
        "opened /dev/mapper/models with the escrow's passphrase",
        "mounted /var/lib/bedplate",
    ]
    assert header_of(controller) == before
    (aside,) = (controller.escrow_dir / SERIAL).glob("before-restore-*")
    assert actions[0] == f"kept what lay there as {aside.name}"
    assert controller.store._open(SERIAL, aside.name) == lay_there
    assert remembered(controller.lab).state == READY
    assert controller.run()["changed"] is False


def test_a_header_that_is_destroyed_under_an_open_volume_comes_back_without_a_stop(controller):
    controller.run(state="unlocked")
    before = header_of(controller)
    controller.lab.write(bytes(1 << 20))
    controller.run(state="restored")
    assert header_of(controller) == before
    assert controller.lab.mounted


def test_a_header_that_is_whole_is_left_and_the_volume_unlocked(controller):
    before = header_of(controller)
    actions = controller.run(state="restored")["actions"]
    assert header_of(controller) == before
    assert "restored" not in str(actions)
    assert "mounted /var/lib/bedplate" in actions
    assert controller.run(state="restored")["changed"] is False


def test_an_earlier_header_comes_back_when_it_is_named(controller):
    first, *_others, newest = controller.store.read(SERIAL).backups
    assert first.sequence < newest.sequence
    path = controller.escrow_dir / SERIAL / first.file
    actions = controller.run(state="restored", backup=str(path))["actions"]
    assert f"restored the header of {controller.lab.disk} from {first.file}" in actions
    assert controller.lab.scan.header.sequence == first.sequence
    # It is the newest backup, too, from here on.
    assert controller.store.read(SERIAL).backup.sequence == first.sequence
    assert [action for action in controller.run()["actions"] if "added" in action] == ["added tpm2", "added tang"]


def test_a_backup_that_is_not_there_is_refused_with_those_that_are(controller):
    refused(controller, r"no backup header-99 \(there is: header-", state="restored", backup="header-99")


def test_check_mode_says_which_backup_would_come_back(controller):
    controller.lab.write(bytes(1 << 20))
    before = state_of(controller)
    newest = controller.store.read(SERIAL).backup.file
    assert controller.run(state="restored", check_mode=True)["actions"] == [
        f"would restore the header of {controller.lab.disk} from {newest}"
    ]
    assert state_of(controller) == before


def test_a_backup_that_the_passphrase_does_not_open_is_not_written(controller):
    controller.lab.write(bytes(1 << 20))
    controller.lab.keys = dict.fromkeys(controller.lab.keys, b"another one")
    before = controller.lab.disk.stat().st_mtime_ns
    with pytest.raises(
        AnsibleActionFail, match=r"the escrow's passphrase does not open the backup .* nothing was changed"
    ):
        controller.run(state="restored")
    assert controller.lab.disk.stat().st_mtime_ns == before


def test_a_disk_that_is_written_to_meanwhile_is_left(controller, monkeypatch):
    controller.lab.write(bytes(1 << 20))
    keep = controller.store.__class__.keep_aside

    def kept(store, escrow, content):
        controller.lab.write(b"somebody else's")
        return keep(store, escrow, content)

    monkeypatch.setattr(controller.store.__class__, "keep_aside", kept)
    with pytest.raises(AnsibleActionFail, match="was written to since its header was kept; nothing was changed"):
        controller.run(state="restored")
    assert controller.lab.disk.open("rb").read(8) == b"somebody"


def test_another_volume_is_not_overwritten(controller):
    controller.lab.write(both_copies(metadata(), OTHER))
    refused(controller, f"holds volume {OTHER}", state="restored")


def test_a_host_with_a_disk_of_the_same_serial_number_does_not_get_anothers_header(controller):
    controller.host = "gpu2"
    controller.lab.write(bytes(1 << 20))
    (controller.lab.root / f"var/lib/bedplate-volumes/{SERIAL}.json").unlink()
    refused(controller, "is that of gpu1, and the device on gpu2", state="restored")


def test_a_restore_that_was_cut_off_anywhere_is_completed_by_the_next(tmp_path):
    cut = 0
    while True:
        cut += 1
        with pytest.MonkeyPatch.context() as patch:
            controller = Controller(Lab(tmp_path / f"{cut}", Power()), patch)
            controller.run()
            controller.lab.reboot()
            before = header_of(controller)
            controller.lab.write(bytes(1 << 20))
            controller.lab.power = Power(cut)
            try:
                controller.run(state="restored")
            except PowerCutError:
                controller.lab.reboot()
                controller.lab.power = Power()
                controller.run(state="restored")
            else:
                break
            assert header_of(controller) == before, cut
            assert controller.lab.mounted, cut
            assert controller.run()["changed"] is False, cut
    assert cut > 5
