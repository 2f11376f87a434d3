"""The volumes as the role made them, seen by the kernel and by other people's tools."""

from __future__ import annotations

import json
import subprocess

import pytest
from scenario import argv
from volume_lab import DEVICES, ESCROW, PASSWORD, escrow, header, module, newest_backup, opens, passphrase

VOLUMES = ("models", "cache")


@pytest.mark.parametrize("name", VOLUMES)
def test_the_kernel_encrypts_what_is_mounted(machine, declared, name):
    volume = next(entry for entry in declared["luks_volumes"] if entry["name"] == name)
    mount = machine.mount_point(volume["mount"])
    assert mount.exists
    assert mount.device == f"/dev/mapper/{name}"
    assert mount.filesystem == volume.get("filesystem", "ext4")
    assert {"nodev", "nosuid"} <= set(mount.options)
    table = machine.check_output(f"sudo dmsetup table {name}").split()
    assert table[2:4] == ["crypt", "aes-xts-plain64"]
    assert {"no_read_workqueue", "no_write_workqueue", "sector_size:4096"} <= set(table)


@pytest.mark.parametrize("volume", VOLUMES)
def test_the_header_is_luks2_with_argon2id_for_the_passphrase_and_another_way(machine, volume):
    found = header(machine, volume)
    assert found["segments"]["0"]["encryption"] == "aes-xts-plain64"
    assert {slot["key_size"] for slot in found["keyslots"].values()} == {64}
    assert "argon2id" in {slot["kdf"]["type"] for slot in found["keyslots"].values()}
    by_token = {slot for token in found["tokens"].values() for slot in token["keyslots"]}
    assert len(found["keyslots"]) - len(by_token) == 1, "one passphrase"
    assert by_token


def test_the_header_holds_the_ways_that_are_declared(machine):
    kinds = {
        volume: sorted(token["type"] for token in header(machine, volume)["tokens"].values()) for volume in VOLUMES
    }
    assert kinds == {"models": ["clevis", "systemd-tpm2"], "cache": ["clevis"]}
    listed = machine.check_output(f"sudo clevis luks list -d {DEVICES['cache']}")
    assert "tpm2" in listed
    assert "tang" in listed


@pytest.mark.parametrize("volume", VOLUMES)
def test_the_escrow_opens_the_volume_and_a_wrong_passphrase_does_not(machine, volume):
    assert opens(machine, volume, passphrase(volume))
    assert not opens(machine, volume, passphrase(volume)[:-1] + "x")


@pytest.mark.parametrize("volume", VOLUMES)
def test_the_newest_backup_is_the_header_as_it_is(machine, volume):
    content = newest_backup(volume)
    now = machine.check_output(f"sudo head -c {len(content)} {DEVICES[volume]} | sha256sum | cut -d' ' -f1")
    assert escrow(volume)["backups"][-1]["sha256"] == now


def test_nobody_reads_the_escrow_without_its_password(tmp_path):
    other = tmp_path / "password"
    other.write_text("another password of sufficient length\n")
    for path in ESCROW.glob("*/*.vault"):
        command = argv("ansible-vault", "view", "--vault-password-file", str(other), str(path))
        assert subprocess.run(command, capture_output=True, check=False).returncode != 0
        assert path.stat().st_mode & 0o077 == 0
    assert ESCROW not in PASSWORD.parents


def test_no_passphrase_is_left_on_the_host_or_in_what_ansible_wrote(machine):
    secrets = [passphrase(volume) for volume in VOLUMES]
    pattern = "|".join(secrets)
    for where in ("/etc /var /root /home /tmp /opt /srv", "/run /dev/shm"):
        # On standard input, so that the search does not find itself.
        found = machine.run(
            f"printf %s '{pattern}' | tr '|' '\\n' | sudo grep --recursive --binary-files=text --files-with-matches"
            f" --fixed-strings --devices=skip --one-file-system --file=- {where}"
        )
        assert found.stdout == ""
    journal = machine.check_output("sudo journalctl --boot --no-pager")
    assert not any(secret in journal for secret in secrets)
    assert "luks_volume" in journal, "Ansible's modules are in the journal, without their secrets"


def test_swap_and_core_dumps_hold_no_prompts(machine):
    assert machine.check_output("cat /proc/sys/kernel/core_pattern") == "|/bin/false"
    assert len(machine.check_output("cat /proc/swaps").splitlines()) == 1


def test_nothing_is_written_on_the_bare_mount_point(machine, declared):
    for volume in declared["luks_volumes"]:
        # A look below what is mounted: the root file system by itself.
        said = machine.run(f"sudo unshare --mount sh -c 'mount --bind / /mnt && touch /mnt{volume['mount']}/stray'")
        assert said.rc != 0
        assert "Operation not permitted" in said.stderr


def test_a_disk_that_is_empty_is_told_as_an_inventory_names_it():
    facts = module("luks_volume_info")
    assert facts.returncode == 0, facts.stdout
    disks = {disk["serial"]: disk for disk in json.loads(facts.stdout.partition("=>")[2])["disks"]}
    assert disks["models0"]["holds"]
    assert disks["leg2"] == {
        "path": disks["leg2"]["path"],
        "names": ["/dev/disk/by-id/virtio-leg2"],
        "serial": "leg2",
        "size": 192 << 20,
        "model": "",
        "holds": [],
    }
