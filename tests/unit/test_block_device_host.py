"""What the host's own tools say about a disk, as recorded on a real kernel (tests/unit/volume_outputs)."""

from __future__ import annotations

import errno
import functools
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import block_device_host
from ansible_collections.bedplate.llm.plugins.module_utils.block_device import Device
from ansible_collections.bedplate.llm.plugins.module_utils.block_device_host import (
    BlockDeviceError,
    asking,
    disks,
    ends_are_zero,
    exclusive,
    look,
    mapped_uuids,
    signatures,
    stable_names,
)
from ansible_collections.bedplate.llm.plugins.module_utils.cryptsetup import DATA_OFFSET
from ansible_collections.bedplate.llm.plugins.module_utils.volume_decision import FORMAT, REFUSE, decide
from volume_lab import block_device
from volume_samples import OTHER, SIZE, VOLUME, both_copies, metadata, reads

FOLDER = Path(__file__).parent / "volume_outputs"
CASES = sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "absent")
MIB = 1 << 20


class Recorded:
    """Answers as the tools did, for a disk of the same content as far as we read it ourselves."""

    def __init__(self, case: str) -> None:
        self.said: dict[str, Any] = json.loads((FOLDER / f"{case}.json").read_text())

    def __call__(self, argv: Sequence[str]) -> tuple[int, str]:
        if argv[0] == "mdadm":
            # Recorded without --brief; with it, mdadm 4.2 has a line ARRAY for a member and nothing for the rest.
            member = any("Array UUID" in line for line in self.said["mdadm_examine"]["stdout"])
            return (0, "ARRAY /dev/md/0  metadata=1.2 UUID=1637a6b9:5620a597:59e527cf:6945f593") if member else (1, "")
        answer = self.said[argv[0]]
        return answer["rc"], "\n".join(answer["stdout"])


# What of each case we read ourselves: offset -> bytes.
CONTENT: dict[str, dict[int, bytes]] = {
    "luks2": {0: both_copies(metadata(), OTHER)},
    "luks2_open": {0: both_copies(metadata(), OTHER)},
    "luks2_erased": {0: both_copies(metadata(()), OTHER)},
    "luks2_first_4k_zeroed": {0: bytes(4096) + both_copies(metadata(), OTHER)[4096:]},
    "luks2_header_zeroed": {16 * MIB + 4096: b"data"},
    "luks1": {0: b"LUKS\xba\xbe\0\1"},
    "random": {0: b"random", SIZE - 6: b"random"},
    "ext4_superblock_zeroed": {8192: b"groups"},
}


@functools.cache
def looked(case: str) -> Device:
    recorded = Recorded(case)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        with (folder / "disk").open("wb") as file:
            file.truncate(SIZE)
            for offset, content in CONTENT.get(case, {}).items():
                file.seek(offset)
                file.write(content)
        block_device(folder / "disk", patch)
        # Enough to see what CONTENT has behind the place of a header.
        patch.setattr(block_device_host, "BLANK_ENDS", 17 * MIB)
        patch.setattr(block_device_host, "exclusive", lambda _path: recorded.said["open_exclusive"] == "ok")
        for holder in recorded.said["holders"]:
            (folder / f"sys/class/block/vdb/holders/{holder}").mkdir(parents=True)
            if holder.startswith("dm-"):
                mapping = folder / f"sys/class/block/{holder}/dm"
                mapping.mkdir(parents=True)
                (mapping / "name").write_text("models\n")
                (mapping / "uuid").write_text(f"CRYPT-LUKS2-{OTHER.replace('-', '')}-models\n")
        return look(VOLUME.device, recorded, folder / "sys")


@pytest.fixture
def found(request):
    """The device of a recorded case."""
    return request.param, looked(request.param)


@pytest.mark.parametrize("found", CASES, indirect=True)
def test_of_all_recorded_disks_only_the_blank_one_is_formatted(found):
    case, device = found
    decision = decide(VOLUME, device, None, None)
    assert decision.action == (FORMAT if case == "blank" else REFUSE), decision.sentence
    assert case == "blank" or device.path in decision.sentence


@pytest.mark.parametrize("found", CASES, indirect=True)
def test_a_confirmation_lets_go_what_no_tool_recognises_and_no_more(found):
    case, device = found
    unrecognised = ("blank", "random", "ext4_superblock_zeroed", "luks2_header_zeroed")
    assert decide(VOLUME, device, None, None, confirmed=True).action == (FORMAT if case in unrecognised else REFUSE)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("ext4", ["holds ext4 at byte 1080"]),
        ("ext4_mounted", ["in use at /mnt", "holds ext4"]),
        ("ext4_superblock_zeroed", ["is not empty"]),
        ("gpt", ["carries vdb1", "gpt at byte 512, gpt at byte 268434944, PMBR at byte 510"]),
        ("gpt_backup_only", ["holds gpt at byte 268434944"]),
        ("gpt_empty", ["holds gpt"]),
        ("luks1", ["holds a LUKS1 volume"]),
        ("luks2", [f"holds a LUKS2 volume (UUID {OTHER}, label models)"]),
        ("luks2_erased", [f"holds a LUKS2 volume (UUID {OTHER}"]),
        ("luks2_first_4k_zeroed", [f"holds a LUKS2 volume (UUID {OTHER}"]),
        ("luks2_header_zeroed", ["is not empty"]),
        ("lvm_in_use", ["carries vg0-lv0", "LVM2_member"]),
        ("lvm_pv", ["LVM2_member at byte 536"]),
        ("mbr", ["carries vdb1", "dos at byte 510"]),
        ("md_member", ["linux_raid_member at byte 4096"]),
        ("md_member_1_0", ["linux_raid_member at byte 268427264"]),
        ("md_member_active", ["carries md0", "linux_raid_member"]),
        ("random", ["is not empty"]),
        ("swap", ["holds swap"]),
        ("swap_in_use", ["in use at [SWAP]", "holds swap"]),
        ("xfs", ["holds xfs at byte 0"]),
    ],
    indirect=["found"],
)
def test_a_refusal_says_what_is_there(found, words):
    sentence = decide(VOLUME, found[1], None, None).sentence
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize("found", ["luks2_open"], indirect=True)
def test_an_open_volume_is_known_by_the_kernels_uuid(found):
    (mapping,) = found[1].mappings
    assert (mapping.name, mapping.path) == ("models", "/dev/mapper/models")
    assert OTHER.replace("-", "") in mapping.uuid
    assert not found[1].exclusive


def test_a_name_that_leads_nowhere_is_a_device_without_a_path():
    assert look("/dev/disk/by-id/virtio-data9", Recorded("absent")).path == ""


def test_what_is_proved_blank_behind_a_header_begins_where_the_data_do():
    assert block_device_host._HEADER_END == DATA_OFFSET


# Answers of wipefs and blkid -> what was found, or the words of the refusal.
@pytest.mark.parametrize(
    ("wipefs", "blkid", "expected"),
    [
        ((0, ""), (2, ""), []),
        ((0, '{"signatures": []}'), (0, "TYPE=zfs_member"), ["zfs_member"]),
        ((0, '{"signatures": [{"type": "ext4", "offset": "0x438"}]}'), (0, "TYPE=ext4"), ["ext4 at byte 1080"]),
        ((0, '{"signatures": [{"type": "ext4", "offset": "0x438"}]}'), (8, ""), ["ext4 at byte 1080"]),
        ((0, ""), (8, ""), ["several file systems at once"]),
        ((0, "wipefs: what?"), (2, ""), "wipefs answered what is not its JSON: 'wipefs: what"),
        ((0, '{"signatures": [{"type": "ext4"}]}'), (2, ""), "wipefs answered what is not its JSON"),
        ((1, ""), (2, ""), "`wipefs --no-act --json /dev/vdb` ended with 1"),
        ((-1, ""), (2, ""), "wipefs is missing"),
        ((0, ""), (4, ""), "`blkid --probe /dev/vdb` ended with 4"),
        ((0, ""), (-1, ""), "`blkid --probe /dev/vdb` ended with -1"),
    ],
)
def test_two_tools_have_to_agree_that_nothing_is_there(wipefs, blkid, expected):
    def run(argv: Sequence[str]) -> tuple[int, str]:
        return wipefs if argv[0] == "wipefs" else blkid

    if isinstance(expected, str):
        with pytest.raises(BlockDeviceError, match=expected.replace("(", r"\(")):
            signatures("/dev/vdb", run)
    else:
        assert [str(signature) for signature in signatures("/dev/vdb", run)] == expected


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((32, ""), "ended with 32"),
        ((-1, ""), "lsblk is missing"),
        ((0, "vdb"), "what is not its JSON: 'vdb'"),
        ((0, "{}"), "what is not its JSON"),
        ((0, '{"blockdevices": []}'), "tells of 0 devices"),
    ],
)
def test_a_tool_that_gives_no_answer_is_a_refusal(answer, words, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.write_bytes(b"")
    block_device(disk, monkeypatch)
    with pytest.raises(BlockDeviceError, match=words):
        look(VOLUME.device, lambda _argv: answer)


# Size, where something lies, start -> whether both ends are zeros (ends of 8 bytes here).
@pytest.mark.parametrize(
    ("size", "at", "start", "blank"),
    [
        (64, None, 0, True),
        (64, 0, 0, False),
        (64, 7, 0, False),
        (64, 8, 0, True),  # the middle is not read
        (64, 55, 0, True),
        (64, 56, 0, False),
        (64, 63, 0, False),
        (64, 0, 16, True),  # a header is not looked at
        (64, 16, 16, False),
        (64, 23, 16, False),
        (12, 11, 0, False),  # both ends overlap
        (12, None, 0, True),
    ],
)
def test_both_ends_of_a_blank_disk_are_zeros(size, at, start, blank, monkeypatch):
    monkeypatch.setattr(block_device_host, "BLANK_ENDS", 8)
    content = bytearray(size)
    if at is not None:
        content[at] = 1
    assert ends_are_zero(reads(bytes(content)), size, start) is blank


def test_a_disk_that_ends_early_is_not_blank():
    assert not ends_are_zero(reads(bytes(10)), 20)


def test_disks_are_told_as_an_inventory_names_them(monkeypatch):
    tree = json.loads("\n".join(json.loads((FOLDER / "gpt.json").read_text())["lsblk"]["stdout"]))
    tree["blockdevices"] += [{"type": "rom", "size": 1, "path": "/dev/sr0"}, {"type": "disk", "size": 0}]
    monkeypatch.setattr(block_device_host, "stable_names", lambda: {"/dev/vdb": ["/dev/disk/by-id/virtio-data0"]})
    assert disks(lambda _argv: (0, json.dumps(tree))) == [
        {
            "path": "/dev/vdb",
            "names": ["/dev/disk/by-id/virtio-data0"],
            "serial": "data0",
            "size": SIZE,
            "model": "",
            "holds": ["gpt", "vdb1"],
        }
    ]


def test_names_of_serial_numbers_come_first(tmp_path):
    (tmp_path / "disk").touch()
    for name in ("wwn-0x5", "nvme-eui.01", "nvme-SAMSUNG_S64H", "dm-name-x"):
        (tmp_path / name).symlink_to(tmp_path / "disk")
    names = [Path(name).name for name in stable_names(tmp_path)[str(tmp_path / "disk")]]
    assert names[:2] == ["disk", "nvme-SAMSUNG_S64H"]
    assert stable_names(tmp_path / "nowhere") == {}


def test_mappings_are_known_by_both_of_their_names(tmp_path):
    folder = tmp_path / "class/block/dm-3/dm"
    folder.mkdir(parents=True)
    (folder / "name").write_text("models\n")
    (folder / "uuid").write_text("CRYPT-LUKS2-6ba7-models\n")
    found = mapped_uuids(tmp_path)
    assert found == dict.fromkeys(("/dev/dm-3", "/dev/mapper/models"), "CRYPT-LUKS2-6ba7-models")


@pytest.mark.parametrize(
    ("given", "tree", "serial"),
    [
        ("/dev/disk/by-id/virtio-data0", {"serial": "data0", "type": "disk"}, "data0"),
        ("/dev/disk/by-id/x", {"serial": None, "type": "disk"}, ""),
        ("/dev/disk/by-id/md-name-bedplate:models", {"serial": None, "type": "raid1"}, "md-models"),
        ("/dev/disk/by-id/md-uuid-1:2:3", {"serial": None, "type": "raid1"}, ""),
    ],
)
def test_an_array_is_known_by_its_name_and_a_disk_by_its_serial_number(given, tree, serial, tmp_path):
    assert block_device_host._serial(given, "/dev/vdb", tree, Recorded("blank"), tmp_path) == serial


def test_a_busy_device_is_not_exclusive_and_a_dead_one_is_an_error(monkeypatch, tmp_path):
    def refuse(number: int) -> None:
        def opening(*_arguments: object) -> int:
            raise OSError(number, "no")

        monkeypatch.setattr(os, "open", opening)

    file = tmp_path / "disk"
    file.touch()
    assert exclusive(str(file))
    refuse(errno.EBUSY)
    assert not exclusive("/dev/vdb")
    refuse(errno.EIO)
    with pytest.raises(OSError, match="no"):
        exclusive("/dev/vdb")


def test_a_command_that_is_missing_is_told_from_one_that_fails():
    def missing(*_arguments: object) -> tuple[int, str, str]:
        raise FileNotFoundError

    assert asking(missing)(["mdadm"]) == (-1, "")
    assert asking(lambda argv, secret, fds: (3, "out", "err"))(["lsblk"]) == (3, "out")
