"""The end of a volume: no key opens it, the escrow has none either, and a signed record says what was done."""

from __future__ import annotations

import json
import subprocess

from scenario import said
from volume_lab import DEVICES, ESCROWS, LAB, bedplate, is_mounted, newest_backup, passphrase, passphrase_opens_backup

DISK = DEVICES["cache"]
CACHE = "/var/cache/bedplate-kv"
# An array has none of its own; it is told by its name.
SERIAL = "md-scratch"


def test_another_serial_number_erases_nothing(machine):
    done = bedplate("volume", "erase", "--volume", "cache", "--serial", "models0")
    assert done.returncode != 0
    assert "Nothing was changed" in said(done)
    assert is_mounted(machine, CACHE)


def test_after_it_nothing_opens_and_nothing_of_it_is_left_on_the_host(machine):
    former = passphrase("cache")
    backup = newest_backup("cache")
    assert passphrase_opens_backup(machine, backup, former)
    done = bedplate("volume", "erase", "--volume", "cache", "--serial", SERIAL)
    assert done.returncode == 0, said(done)
    assert not is_mounted(machine, CACHE)
    assert machine.run(f"sudo cryptsetup isLuks {DISK}").rc != 0
    assert machine.check_output(f"sudo wipefs --no-act {DISK}") == ""
    assert "cache" not in machine.check_output("cat /etc/crypttab")
    assert CACHE not in machine.check_output("cat /etc/fstab")
    assert list(ESCROWS["cache"].glob("*.vault")) == []


def test_the_record_is_signed_by_the_operators_key(declared):
    (record,) = ESCROWS["cache"].glob("erasure-*.json")
    told = json.loads(record.read_text())
    assert told["serial"] == SERIAL
    key = declared["ansible_ssh_private_key_file"]
    command = ["ssh-keygen", "-Y", "check-novalidate", "-n", "bedplate-erase", "-s", f"{record}.sig"]
    assert subprocess.run(command, input=record.read_bytes(), check=False).returncode == 0
    assert subprocess.run(command, input=record.read_bytes() + b" ", check=False).returncode != 0
    assert key


def test_a_second_time_changes_nothing():
    done = bedplate("volume", "erase", "--volume", "cache", "--serial", SERIAL)
    assert done.returncode == 0, said(done)


def test_status_tells_the_disk_as_empty():
    done = bedplate("volume", "status")
    assert "cache erased" in said(done)
    assert LAB.folder.name == "volumes"
