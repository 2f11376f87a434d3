"""Every reason not to write on a disk."""

from __future__ import annotations

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.block_device import (
    Device,
    Signature,
    content_problems,
    identity_problems,
    use_problems,
)
from volume_samples import CRYPTO, DAMAGED, EXT4, FOREIGN, LUKS1, SERIAL, SIZE, VOLUME, device


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (device(), []),
        (Device(VOLUME.device), ["is not there: no such device"]),
        (device(serial="data1"), ["/dev/vdb with the serial number data1, declared is data0"]),
        (device(serial=""), ["the serial number (none)"]),
        (device(size=SIZE + 512), [f"has {SIZE + 512} bytes, declared are {SIZE}"]),
        (device(serial="data1", size=1), ["data1", "has 1 bytes"]),
    ],
)
def test_the_declared_device_has_its_name_its_serial_number_and_its_size(found, words):
    problems = identity_problems(found, SERIAL, SIZE)
    assert len(problems) == len(words)
    assert all(word in problem for word, problem in zip(words, problems, strict=True))


def test_an_array_may_have_any_size():
    assert identity_problems(device(size=1), SERIAL, 0) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, ""),
        ({"read_only": True}, "/dev/vdb is read-only"),
        ({"mounts": ("/mnt",), "exclusive": False}, "/dev/vdb is in use at /mnt"),
        ({"mounts": ("[SWAP]",), "exclusive": False}, "in use at [SWAP]"),
        ({"children": ("vdb1",)}, "/dev/vdb carries vdb1"),
        ({"children": ("md0",), "holders": ("md0",), "exclusive": False}, "/dev/vdb carries md0"),
        ({"holders": ("dm-0",), "exclusive": False}, "/dev/vdb is held by dm-0"),
        ({"exclusive": False}, "in use by something that the kernel does not name"),
    ],
)
def test_a_device_in_use_is_told_from_one_at_rest(changed, words):
    problems = use_problems(device(**changed))
    assert len(problems) == (1 if words else 0)
    assert words in " ".join(problems)


# Content, what is said of it, whether a confirmation lets it go.
@pytest.mark.parametrize(
    ("found", "words", "goes"),
    [
        (device(), "", True),
        (device(blank=False), "/dev/vdb is not empty: its first or last 64 MiB", True),
        (device(blank=None), "/dev/vdb is not empty", True),
        (device(FOREIGN), "holds a LUKS2 volume (UUID 6ba7b811-9dad-41d1-80b4-00c04fd430c8, label models)", False),
        # wipefs sees a header where our own reader sees nothing.
        (device(signatures=CRYPTO), "holds crypto_LUKS at byte 0", False),
        (device(LUKS1), "holds a LUKS1 volume", False),
        (device(DAMAGED), "holds a damaged LUKS header (byte 0, 16384)", False),
        (device(signatures=EXT4, blank=None), "holds ext4 at byte 1080", False),
        (device(signatures=(Signature("gpt", 512), Signature("PMBR")), blank=None), "gpt at byte 512, PMBR", False),
        (device(signatures=(Signature("linux_raid_member", 4096),), array_member=True), "linux_raid_member", False),
        (device(array_member=True), "is a member of a RAID array (`mdadm --examine /dev/vdb`)", False),
    ],
)
def test_only_bytes_that_nothing_recognises_go_by_a_confirmation(found, words, goes):
    problems = content_problems(found, confirmed=False)
    assert len(problems) == (1 if words else 0)
    assert words in " ".join(problems)
    assert content_problems(found, confirmed=True) == ([] if goes else problems)


def test_luks_is_said_once_and_what_lies_beside_it_too():
    assert len(content_problems(device(FOREIGN, signatures=CRYPTO), confirmed=False)) == 1
    assert len(content_problems(device(FOREIGN, signatures=CRYPTO + EXT4), confirmed=False)) == 2
