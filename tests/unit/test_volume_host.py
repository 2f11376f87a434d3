"""The steps on the host: each looks again, and does nothing that it cannot prove to be right."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import volume_record
from ansible_collections.bedplate.llm.plugins.module_utils.block_device_host import BlockDeviceError
from ansible_collections.bedplate.llm.plugins.module_utils.cryptsetup import Cost
from ansible_collections.bedplate.llm.plugins.module_utils.volume_decision import FORMAT, MAKE_FILESYSTEM
from ansible_collections.bedplate.llm.plugins.module_utils.volume_host import VolumeError
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import (
    ERASED,
    FORMATTED,
    FORMATTING,
    MAKING_FILESYSTEM,
    READY,
)
from volume_lab import MAPPER, Lab, Power, host, play, remembered
from volume_samples import KEPT, OTHER, PREPARED, SERIAL, UUID, both_copies, metadata, record

PASSPHRASE = "the-recovery-passphrase"


@pytest.fixture
def lab(tmp_path, monkeypatch):
    made = Lab(tmp_path / "lab", Power())
    play(made, monkeypatch)
    return made


@pytest.fixture
def volume(lab):
    """A lab with a volume that is formatted, backed up and locked."""
    lab.write(both_copies(metadata()))
    lab.keys = {0: PASSPHRASE.encode()}
    remember(lab, FORMATTED)
    return lab


def remember(lab: Lab, state: str, **more: object) -> None:
    volume_record.write(replace(record(state), **more), lab.root / "var/lib/bedplate-volumes")


def state(lab: Lab) -> str:
    found = remembered(lab)
    return found.state if found else ""


def commands(lab: Lab) -> list[str]:
    return [" ".join(argv[:2]) for argv in lab.argvs]


def test_a_blank_disk_is_formatted_after_it_is_written_down(lab):
    host(lab, PREPARED).format(UUID, PASSPHRASE, Cost(), False)
    assert lab.power.changes[1] == "record formatting"
    assert lab.scan.header.uuid == UUID
    assert state(lab) == FORMATTING


@pytest.mark.parametrize("escrow", [None, replace(PREPARED, uuid=OTHER), replace(PREPARED, passphrases=())])
def test_nothing_is_formatted_that_the_escrow_does_not_know(escrow, lab):
    with pytest.raises(VolumeError, match="nothing is formatted without it"):
        host(lab, escrow).format(UUID, PASSPHRASE, Cost(), False)
    assert lab.power.changes == []


def test_a_disk_that_was_filled_since_the_controller_asked_is_refused(lab):
    assert host(lab, PREPARED).look().decision.action == FORMAT
    lab.write(b"somebody's bytes")
    with pytest.raises(VolumeError, match="is not empty"):
        host(lab, PREPARED).format(UUID, PASSPHRASE, Cost(), False)
    assert lab.power.changes == []


def test_a_volume_that_is_there_is_not_formatted_again(volume):
    with pytest.raises(VolumeError, match="models: it is at make-filesystem"):
        host(volume, KEPT).format(UUID, PASSPHRASE, Cost(), True)
    assert "cryptsetup luksFormat" not in commands(volume)


def test_a_cipher_that_the_kernel_does_not_have_is_refused_before_anything_is_written(lab, monkeypatch):
    from ansible_collections.bedplate.llm.plugins.module_utils import cipher_profiles

    monkeypatch.setattr(cipher_profiles, "probe", lambda _name, _ask: "this kernel has no sm4")
    with pytest.raises(VolumeError, match="models: this kernel has no sm4"):
        host(lab, PREPARED, cipher="guomi").format(UUID, PASSPHRASE, Cost(), False)
    assert lab.power.changes == []


def test_a_confirmation_is_remembered_for_the_formatting_it_was_for(lab):
    lab.write(b"somebody's bytes")
    host(lab, PREPARED).format(UUID, PASSPHRASE, Cost(), True)
    found = remembered(lab)
    assert found
    assert found.confirmed


def test_the_host_is_told_of_a_backup_only_when_there_is_one(volume):
    remember(volume, FORMATTING)
    with pytest.raises(VolumeError, match="the escrow has no backup of the header"):
        host(volume, PREPARED).backed_up()
    assert state(volume) == FORMATTING
    host(volume, KEPT).backed_up()
    assert state(volume) == FORMATTED


@pytest.mark.parametrize("later", [MAKING_FILESYSTEM, READY])
def test_a_later_backup_takes_no_volume_back(later, volume):
    remember(volume, later)
    host(volume, KEPT).backed_up()
    assert state(volume) == later


def test_what_the_escrow_knows_is_remembered_by_a_new_host(volume):
    (volume.root / f"var/lib/bedplate-volumes/{SERIAL}.json").unlink()
    host(volume, None).adopt()
    assert remembered(volume) is None
    host(volume, KEPT).adopt()
    assert state(volume) == READY
    host(volume, PREPARED).adopt()
    assert state(volume) == READY


def test_a_volume_is_opened_once(volume):
    it = host(volume, KEPT)
    assert it.open(PASSPHRASE, "no") is True
    assert it.look().is_open
    assert it.open(PASSPHRASE, "no") is False


@pytest.mark.parametrize(
    ("content", "words"),
    [(both_copies(metadata(), OTHER), "volume known here"), (bytes(1 << 16), "its header is damaged")],
)
def test_what_is_not_ours_is_not_opened(content, words, volume):
    volume.write(content)
    with pytest.raises(VolumeError, match=words):
        host(volume, KEPT).open(PASSPHRASE, "no")
    assert not volume.opened


@pytest.mark.parametrize(("queues", "bypassed"), [("yes", True), ("no", False), ("auto", False)])
def test_work_queues_are_gone_around_where_it_is_said(queues, bypassed, volume):
    host(volume, KEPT).open(PASSPHRASE, queues)
    assert bool(volume.scan.header.flags) is bypassed


def test_a_file_system_is_made_once(volume):
    it = host(volume, KEPT)
    it.open(PASSPHRASE, "no")
    assert it.look().decision.action == MAKE_FILESYSTEM
    volume.power.changes.clear()
    assert it.make_filesystem() is True
    changes = [change for change in volume.power.changes if not change.startswith("part")]
    assert changes == ["record making-filesystem", "half a file system", "a file system", "record ready"]
    assert it.make_filesystem() is False


@pytest.mark.parametrize(
    ("prepare", "escrow", "words"),
    [
        (lambda lab: None, KEPT, "is not open as /dev/mapper/models"),
        (lambda lab: lab._open(), PREPARED, "the header has no backup yet"),
        (lambda lab: (lab._open(), setattr(lab, "inside", "LVM2_member")), KEPT, "holds LVM2_member"),
        (lambda lab: (lab._open(), setattr(lab, "inside", "ext4")), KEPT, "holds ext4"),
        (lambda lab: (lab._open(), setattr(lab, "mounted", True)), KEPT, "is mounted at /var/lib/bedplate"),
    ],
)
def test_no_file_system_is_made_where_there_may_be_one(prepare, escrow, words, volume):
    prepare(volume)
    with pytest.raises(VolumeError, match=words):
        host(volume, escrow).make_filesystem()
    assert state(volume) == FORMATTED
    assert not any(command.startswith("mkfs") for command in commands(volume))


def test_half_a_file_system_of_ours_is_made_whole(volume):
    remember(volume, MAKING_FILESYSTEM)
    volume._open()
    volume.inside = "half ext4"
    assert host(volume, KEPT).make_filesystem() is True
    assert (volume.inside, state(volume)) == ("ext4", READY)


def test_a_file_system_that_cannot_be_made_leaves_the_volume_where_it_was(volume):
    volume._open()
    volume.broken.add("mkfs.ext4")
    with pytest.raises(VolumeError, match=r"`mkfs\.ext4 .* ended with 1: it is broken"):
        host(volume, KEPT).make_filesystem()
    assert state(volume) == MAKING_FILESYSTEM


def test_boot_files_are_written_once(volume):
    it = host(volume, KEPT)
    wanted = it.boot_files(it.look(), False)
    assert [path.name for path in wanted] == ["volume-models.conf", "crypttab", "fstab"]
    it.write_boot_files(wanted)
    assert it.boot_files(it.look(), False) == {}
    assert (volume.root / "etc/fstab").stat().st_mode & 0o777 == 0o644
    assert "systemctl daemon-reload" in commands(volume)
    assert [path.name for path in it.boot_files(it.look(), True)] == ["crypttab"]


def test_a_line_of_somebody_else_is_a_refusal_with_the_volumes_name(volume):
    (volume.root / "etc").mkdir()
    (volume.root / "etc/fstab").write_text("LABEL=x /var/lib/bedplate ext4 defaults 0 2\n")
    it = host(volume, KEPT)
    with pytest.raises(VolumeError, match="models: /etc/fstab, line 1, mounts LABEL=x"):
        it.boot_files(it.look(), False)


@pytest.mark.parametrize("known", [False, True])
def test_a_line_of_a_volume_that_this_host_had_is_replaced_and_no_other(known, volume):
    (volume.root / "etc").mkdir()
    (volume.root / "etc/crypttab").write_text(f"models UUID={OTHER} none luks\n")
    if known:
        remember(volume, READY, serial="died", uuid=OTHER)
    it = host(volume, KEPT)
    if known:
        assert UUID in it.boot_files(it.look(), False)[volume.root / "etc/crypttab"]
        assert it.boot_problems(it.look()) == []
    else:
        assert "names UUID" in it.boot_problems(it.look())[0]
        with pytest.raises(VolumeError, match=f"models: /etc/crypttab, line 1, names UUID={OTHER} as models"):
            it.boot_files(it.look(), False)


def ready(lab: Lab) -> None:
    remember(lab, READY)
    lab.inside = "ext4"
    lab.tpm = {0: b"x"}
    it = host(lab, KEPT)
    it.write_boot_files(it.boot_files(it.look(), False))


def test_a_volume_is_mounted_by_systemd_on_a_folder_that_takes_no_files(volume):
    ready(volume)
    it = host(volume, KEPT)
    assert it.mount() is True
    assert it.mounted() == (MAPPER, "ext4")
    assert [list(argv) for argv in volume.argvs if argv[0] == "chattr"] == [
        ["chattr", "+i", str(volume.root / "var/lib/bedplate")]
    ]
    assert it.mount() is False


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: (path.mkdir(parents=True), (path / "file").touch()), "holds file, which the volume would hide"),
        (lambda path: (path.parent.mkdir(parents=True, exist_ok=True), path.touch()), "is no folder"),
        (lambda path: (path.parent.mkdir(parents=True, exist_ok=True), path.symlink_to("/tmp")), "is no folder"),
    ],
)
def test_a_mount_point_that_holds_something_is_refused(make, words, volume):
    ready(volume)
    make(volume.root / "var/lib/bedplate")
    assert words in host(volume, KEPT).mount_point_problems()[0]
    with pytest.raises(VolumeError, match=words):
        host(volume, KEPT).mount()
    assert not volume.mounted


@pytest.mark.parametrize("output", ["", "/dev/sdb1 ext4\n"])
def test_something_else_at_the_mount_point_is_told(output, volume, monkeypatch):
    monkeypatch.setattr(Lab, "_findmnt", lambda *_arguments: (0, output))
    volume.mounted = True
    with pytest.raises(VolumeError, match=r"/var/lib/bedplate is (nothing|/dev/sdb1), not /dev/mapper/models"):
        host(volume, KEPT).mount()


def test_of_mounts_above_each_other_the_last_counts(volume, monkeypatch):
    monkeypatch.setattr(Lab, "_findmnt", lambda *_arguments: (0, "/dev/sdb1 xfs\n/dev/mapper/models ext4\n"))
    assert host(volume, KEPT).mounted() == (MAPPER, "ext4")


def test_one_step_at_a_time_works_on_a_device(lab):
    with host(lab).locked():
        with pytest.raises(VolumeError, match="models: another run works on /dev/disk/by-id/virtio-data0"):
            with host(lab).locked():
                pass
    with host(lab).locked():
        pass


def test_a_device_without_a_header_has_nothing_to_say_of_it(lab):
    with pytest.raises(VolumeError, match="has no header that can be read"):
        _header = host(lab).look().header


def test_a_confirmation_of_a_former_life_is_forgotten(lab):
    remember(lab, ERASED, confirmed=True)
    host(lab, PREPARED).format(UUID, PASSPHRASE, Cost(), False)
    found = remembered(lab)
    assert found
    assert not found.confirmed


def test_work_queues_are_written_into_the_header_once(volume):
    it = host(volume, KEPT)
    it.open(PASSPHRASE, "yes")
    sequence = volume.scan.header.sequence
    volume.reboot()
    it.open(PASSPHRASE, "yes")
    assert volume.scan.header.sequence == sequence


def test_a_disk_that_cannot_be_read_is_one_sentence(lab, monkeypatch):
    def broken(*_arguments: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(BlockDeviceError, match=r"disk cannot be read: .*Input/output error"):
        host(lab, PREPARED).look()


def test_a_tool_that_the_host_does_not_have_is_one_sentence(volume):
    volume._open()
    volume.missing.add("mkfs.ext4")
    with pytest.raises(VolumeError, match=r"mkfs\.ext4 is missing on this host"):
        host(volume, KEPT).make_filesystem()
