"""How a volume comes up at boot, and that nobody else's line is touched."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import volume_inside
from ansible_collections.bedplate.llm.plugins.module_utils.block_device import Signature
from ansible_collections.bedplate.llm.plugins.module_utils.volume_boot import (
    BootLineError,
    crypttab_line,
    drop_in,
    drop_in_paths,
    fstab_line,
    mount_unit,
    set_crypttab,
    set_fstab,
    unit_name,
    without,
)
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import BOTH, TANG, TPM2
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import (
    ERASED,
    FORMATTED,
    FORMATTING,
    MAKING_FILESYSTEM,
    READY,
)
from volume_samples import EXT4, OTHER, UUID, VOLUME

CRYPTTAB = crypttab_line(VOLUME, UUID)
FSTAB = fstab_line(VOLUME)
COMMON = f"models UUID={UUID} none luks,nofail,x-systemd.device-timeout=60s,timeout=180s"


@pytest.mark.parametrize(
    ("unlock", "discard", "line"),
    [
        ((TPM2,), False, f"{COMMON},tpm2-device=auto"),
        ((TANG,), False, f"{COMMON}"),
        ((TPM2, TANG), False, f"{COMMON},tpm2-device=auto"),
        ((BOTH,), False, f"{COMMON}"),
        ((TPM2,), True, f"{COMMON},tpm2-device=auto,discard"),
    ],
)
def test_crypttab_names_the_volume_and_the_ways_of_unlocking_it(unlock, discard, line):
    assert crypttab_line(replace(VOLUME, unlock=unlock), UUID, discard) == line


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {},
            "/dev/mapper/models /var/lib/bedplate ext4"
            " nofail,nodev,nosuid,x-systemd.requires=systemd-cryptsetup@models.service,x-systemd.device-timeout=240s"
            " 0 2",
        ),
        (
            {"name": "kv-1", "filesystem": "xfs", "unlock": (TANG,), "options": ("ro", "nodev", "noexec")},
            "/dev/mapper/kv-1 /var/lib/bedplate xfs"
            " nofail,nodev,nosuid,x-systemd.requires=systemd-cryptsetup@kv\\x2d1.service,x-systemd.device-timeout=240s"
            ",ro,noexec 0 0",
        ),
    ],
)
def test_fstab_never_holds_a_boot_up(changed, line):
    assert fstab_line(replace(VOLUME, **changed)) == line


@pytest.mark.parametrize(
    ("mount", "unit"),
    [
        ("/var/lib/bedplate", "var-lib-bedplate.mount"),
        ("/srv/my-models/v1.2", "srv-my\\x2dmodels-v1.2.mount"),
        ("/data", "data.mount"),
    ],
)
def test_a_mount_point_is_named_as_systemd_names_it(mount, unit):
    assert mount_unit(mount) == unit
    assert unit_name("a-b") == "a\\x2db"


def test_services_do_not_run_on_the_bare_mount_point():
    volume = replace(VOLUME, services=("bedplate-.service", "rsyslog.service"))
    assert drop_in_paths(volume) == [
        "/etc/systemd/system/bedplate-.service.d/volume-models.conf",
        "/etc/systemd/system/rsyslog.service.d/volume-models.conf",
    ]
    lines = drop_in(volume).splitlines()
    assert lines[-3:] == [
        "[Unit]",
        "RequiresMountsFor=/var/lib/bedplate",
        "ConditionPathIsMountPoint=/var/lib/bedplate",
    ]


THEIRS = f"# by hand\n\nroot UUID={OTHER} none luks\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"{CRYPTTAB}\n"),
        (THEIRS, f"{THEIRS}{CRYPTTAB}\n"),
        (THEIRS.rstrip("\n"), f"{THEIRS}{CRYPTTAB}\n"),
        (f"{CRYPTTAB}\n{THEIRS}", f"{CRYPTTAB}\n{THEIRS}"),
        (f"models UUID={UUID} none luks\n{THEIRS}", f"{CRYPTTAB}\n{THEIRS}"),
        (f"{CRYPTTAB}\n{THEIRS}{CRYPTTAB}\n", f"{CRYPTTAB}\n{THEIRS}"),
        (f"#{CRYPTTAB}\n", f"#{CRYPTTAB}\n{CRYPTTAB}\n"),
    ],
)
def test_our_line_stands_once_in_crypttab_and_theirs_as_they_were(before, after):
    assert set_crypttab(before, VOLUME, CRYPTTAB) == after
    assert set_crypttab(after, VOLUME, CRYPTTAB) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"{FSTAB}\n"),
        ("UUID=1 / ext4 defaults 0 1\n", f"UUID=1 / ext4 defaults 0 1\n{FSTAB}\n"),
        ("/dev/mapper/models /srv/old ext4 nofail 0 2\n", f"{FSTAB}\n"),
        (f"{FSTAB}\n", f"{FSTAB}\n"),
        ("lonely\n", f"lonely\n{FSTAB}\n"),
    ],
)
def test_our_line_stands_once_in_fstab_and_theirs_as_they_were(before, after):
    assert set_fstab(before, VOLUME, FSTAB) == after


def test_a_line_of_somebody_else_that_ours_would_clash_with_is_a_refusal():
    with pytest.raises(BootLineError, match=f"/etc/crypttab, line 2, names UUID={UUID} as theirs"):
        set_crypttab(f"# x\ntheirs UUID={UUID} none luks\n", VOLUME, CRYPTTAB)
    with pytest.raises(BootLineError, match="/etc/fstab, line 1, mounts LABEL=x at /var/lib/bedplate"):
        set_fstab("LABEL=x /var/lib/bedplate ext4 defaults 0 2\n", VOLUME, FSTAB)


def test_a_line_of_our_name_is_ours_only_for_a_volume_that_this_host_knows():
    line = f"models UUID={OTHER} none luks\n"
    with pytest.raises(BootLineError, match=f"/etc/crypttab, line 1, names UUID={OTHER} as models"):
        set_crypttab(line, VOLUME, CRYPTTAB)
    # As after a disk that died was replaced.
    assert set_crypttab(line, VOLUME, CRYPTTAB, former=[OTHER]) == f"{CRYPTTAB}\n"


def test_a_line_can_be_taken_out_again():
    assert without(f"{THEIRS}{CRYPTTAB}\n", "models") == THEIRS
    assert without(f"{CRYPTTAB}\n", "models") == ""
    assert without(THEIRS, "models") == THEIRS


# --- the file system inside ---


@pytest.mark.parametrize(
    ("filesystem", "argv"),
    [
        ("ext4", ["mkfs.ext4", "-q", "-F", "-L", "abcdefghijklmnop", "/dev/mapper/x"]),
        ("xfs", ["mkfs.xfs", "-q", "-f", "-L", "abcdefghijkl", "/dev/mapper/x"]),
    ],
)
def test_a_label_is_as_long_as_the_file_system_takes_it(filesystem, argv):
    assert volume_inside.make_argv(filesystem, "/dev/mapper/x", "abcdefghijklmnopqrst") == argv


LVM = (Signature("LVM2_member", 536),)


# State of the record, what is inside -> why no file system may be made.
@pytest.mark.parametrize(
    ("state", "found", "words"),
    [
        (FORMATTED, (), ""),
        (FORMATTED, EXT4, "/dev/mapper/models holds ext4 at byte 1080"),
        (FORMATTED, LVM, "holds LVM2_member"),
        (MAKING_FILESYSTEM, (), ""),
        (MAKING_FILESYSTEM, EXT4, ""),
        (MAKING_FILESYSTEM, LVM, "holds LVM2_member"),
        (MAKING_FILESYSTEM, (Signature("xfs", 0),), "holds xfs"),
        (READY, (), "had a file system (its record says ready); another one is never made over it"),
        (READY, EXT4, "another one is never made over it"),
        (FORMATTING, (), "its record says formatting"),
        (ERASED, (), "its record says erased"),
    ],
)
def test_a_file_system_is_made_on_the_empty_inside_only(state, found, words):
    problems = volume_inside.problems(state, found, "ext4", VOLUME.mapper)
    assert len(problems) == (1 if words else 0)
    assert words in " ".join(problems)
