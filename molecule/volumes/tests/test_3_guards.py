"""The role is shown disks that hold something, and leaves them as they are to the last byte."""

from __future__ import annotations

import hashlib
import shlex

import pytest
from scenario import said
from volume_lab import ESCROW, LAB, PASSWORD, STORE, machine_state, module

DISK = "/dev/disk/by-id/virtio-other0"
VOLUME = {"name": "other", "device": DISK, "serial": "other0", "size": "192M", "mount": "/srv/bedplate-other"}
BLANK = f"blkdiscard --force --zeroout {DISK}"
# udev may have put it together again; the machine's own arrays stay.
STOP_ARRAY = (
    f"for array in $(ls /sys/class/block/$(basename $(readlink -f {DISK}))/holders); do mdadm --stop /dev/$array; done"
)

# What is put on the empty disk, what the refusal says, and how the disk is let go of again.
CONTENTS = {
    "ext4": (f"mkfs.ext4 -q {DISK}", "holds ext4", ""),
    "swap": (f"mkswap {DISK}", "holds swap", ""),
    "lvm": (f"pvcreate -q {DISK}", "holds LVM2_member", ""),
    "gpt": (f"echo 'type=linux' | sfdisk -q --label gpt {DISK}", "carries vd", ""),
    "empty partition table": (f"echo 'label: gpt' | sfdisk -q {DISK}", "holds gpt", ""),
    "raid member": (
        f"mdadm --create /dev/md/other --run --quiet --level=1 --raid-devices=2 --metadata=1.2 {DISK} missing"
        " && mdadm --stop /dev/md/other",
        "linux_raid_member",
        STOP_ARRAY,
    ),
    "somebody else's volume": (
        f"printf other | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file - {DISK}",
        "holds a LUKS2 volume",
        "",
    ),
    "an older volume": (
        f"printf other | cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 --key-file - {DISK}",
        "holds a LUKS1 volume",
        "",
    ),
    "a volume whose first header is gone": (
        f"printf other | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file - {DISK}"
        f" && dd if=/dev/zero of={DISK} bs=4k count=1 conv=notrunc status=none",
        "holds a LUKS2 volume",
        "",
    ),
    "a volume whose headers are damaged": (
        f"printf other | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file - {DISK}"
        f" && for at in 5000 21000; do printf x | dd of={DISK} bs=1 seek=$at conv=notrunc status=none; done",
        "damaged LUKS header",
        "",
    ),
    "random bytes": (f"dd if=/dev/urandom of={DISK} bs=1M count=8 status=none", "is not empty", ""),
    "a byte at the end": (f"printf x | dd of={DISK} bs=1 seek=$((192 * 1048576 - 1)) status=none", "is not empty", ""),
}


def make(confirm: str = "", **changed):
    """One volume, as the role asks for it."""
    escrow = {"escrow_dir": str(ESCROW), "escrow_password_file": str(PASSWORD)}
    return module("luks_volume", volume={**VOLUME, **changed}, confirm_wipe=confirm, **escrow)


def digest(machine) -> str:
    """Of the whole disk, from outside: an emulated processor takes half a minute for it."""
    machine.check_output(f"sudo sync && sudo blockdev --flushbufs {DISK}")
    with (machine_state(str(LAB.declared(STORE)["lab_name"]), STORE) / "disk-other0.raw").open("rb") as disk:
        return hashlib.file_digest(disk, "sha256").hexdigest()


@pytest.mark.parametrize("content", CONTENTS)
def test_a_disk_that_holds_something_is_refused_and_not_changed(machine, content):
    put, words, release = CONTENTS[content]
    machine.check_output(f"sudo sh -ec {shlex.quote(f'{BLANK} && {put} && udevadm settle')} > /dev/null")
    if release:
        machine.check_output(f"sudo sh -ec {shlex.quote(release)}")
    before = digest(machine)
    done = make()
    assert done.returncode != 0
    assert words in said(done)
    assert "Nothing was changed" in said(done)
    assert digest(machine) == before
    assert not (ESCROW / "other0/escrow.json").exists()


@pytest.fixture
def blank(machine):
    machine.check_output(f"sudo sh -ec {shlex.quote(STOP_ARRAY)}")
    machine.check_output(f"sudo {BLANK}")


@pytest.mark.usefixtures("blank")
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"device": "/dev/vdd"}, "give a name below /dev/disk/by-id/"),
        ({"device": "/dev/disk/by-id/virtio-leg0"}, "declared is other0"),
        ({"serial": "other9"}, "with the serial number other0, declared is other9"),
        ({"size": "193M"}, "has 201326592 bytes, declared are 202375168"),
        ({"device": "/dev/disk/by-id/virtio-nothing"}, "is not there"),
        ({"mount": "/etc/models"}, "the host itself needs"),
        ({"mount": "/var/lib"}, "mount"),
        ({"cipher": "guomi"}, "cannot encrypt with xts(sm4)"),
    ],
)
def test_a_declaration_that_does_not_fit_changes_nothing(machine, changed, words):
    before = digest(machine)
    done = make(**changed)
    assert done.returncode != 0
    assert words in said(done)
    assert digest(machine) == before


@pytest.mark.usefixtures("blank")
def test_a_disk_that_is_in_use_is_refused(machine):
    machine.check_output(f"sudo sh -c 'mkswap {DISK} > /dev/null && swapon {DISK}'")
    try:
        done = make()
        assert done.returncode != 0
        assert "in use at [SWAP]" in said(done)
    finally:
        machine.check_output(f"sudo swapoff {DISK}")


def test_a_confirmation_that_was_not_given_for_this_run_confirms_nothing():
    done = make(confirm="other0")
    assert done.returncode != 0
    assert "is for one run" in said(done)
