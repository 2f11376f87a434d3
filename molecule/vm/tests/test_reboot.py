"""After a restart the machine is the same one, holds what was written, and is closed before it has a network."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from dataclasses import dataclass

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.lab_keys import host_key
from ansible_collections.bedplate.llm.plugins.module_utils.nft_state import UNIT
from reboot_contract import ENGINE, REASON, REASON_FILE, WITHDRAWN, have_it_wait, reboot, said
from scenario import boot_id

WORDS = "what the machine must not forget"
KEY = "correct-horse-battery-staple"
VOLUME = "bedplate-test"
MAPPED = f"/dev/mapper/{VOLUME}"


def cryptsetup(machine, action: str, key: str = KEY):
    """With the key on standard input: an argument would be readable by every user of the machine."""
    return machine.run(f"printf %s {key} | sudo cryptsetup --batch-mode --key-file=- {action}")


@pytest.fixture(scope="module")
def disk(declared) -> str:
    return f"/dev/disk/by-id/virtio-{declared['lab_disks'][0]['serial']}"


@dataclass(frozen=True)
class Restarted:
    first: str  # the boot before
    said: str  # what the operator read
    seconds: float


@pytest.fixture(scope="module")
def before(machine, disk) -> Restarted:
    """Write to an encrypted disk and to the system's own, and have the role restart the machine."""
    first = boot_id(machine)
    # Few iterations: an emulated processor needs minutes for what protects a real key.
    made = cryptsetup(machine, f"luksFormat --pbkdf pbkdf2 --pbkdf-force-iterations 1000 {disk}")
    assert made.rc == 0, made.stderr
    assert cryptsetup(machine, f"open {disk} {VOLUME}").rc == 0
    machine.check_output(f"sudo mkfs.ext4 -q {MAPPED} && sudo mount {MAPPED} /mnt")
    machine.check_output(f"echo '{WORDS}' | sudo tee /mnt/words /var/lib/words")
    machine.check_output(f"sudo umount /mnt && sudo cryptsetup close {VOLUME}")
    have_it_wait(machine)
    started = time.monotonic()
    done = reboot(bedplate_reboot_allowed=True, reboot_timeout=600)
    assert done.returncode == 0, said(done)
    return Restarted(first, said(done), time.monotonic() - started)


def test_it_is_another_boot_of_the_same_machine(before, machine, access):
    assert boot_id(machine) != before.first
    pinned = host_key(access.secrets_dir, access.name).with_suffix(".pub").read_text().split()[:2]
    scan = subprocess.run(
        ["ssh-keyscan", "-t", "ed25519", "-p", str(access.ssh_port), access.address],
        capture_output=True,
        text=True,
        check=True,
    )
    assert scan.stdout.split()[1:] == pinned


def test_the_operator_reads_how_long_the_machine_was_away(before):
    away = re.search(r"The host was restarted and is back after (\d+) s", before.said)
    assert away, before.said
    assert 0 < int(away[1]) < before.seconds


def test_the_service_was_drained_in_the_boot_before_and_is_back(before, machine):
    assert machine.check_output(f"cat {WITHDRAWN}") == before.first
    assert machine.service(ENGINE).is_running


def test_nothing_waits_any_more_and_the_machine_remembers_why_it_was_restarted(before, machine):
    assert not machine.file(REASON_FILE).exists
    journal = machine.check_output("sudo journalctl --boot=-1 --output cat --grep 'bedplate restarts this host'")
    assert REASON in journal


def test_the_root_file_system_holds_what_was_written(before, machine):
    assert machine.file("/var/lib/words").content_string.strip() == WORDS


def test_the_encrypted_disk_opens_with_its_key_alone_and_holds_what_was_written(before, machine, disk):
    machine.check_output(f"sudo cryptsetup isLuks --type luks2 {disk}")
    assert cryptsetup(machine, f"open {disk} {VOLUME}", "another-key").rc == 2
    assert cryptsetup(machine, f"open {disk} {VOLUME}").rc == 0
    try:
        assert "crypt" in machine.check_output(f"sudo dmsetup table {VOLUME}")
        assert machine.check_output(f"sudo mount {MAPPED} /mnt && cat /mnt/words") == WORDS
        assert machine.run(f"sudo grep --quiet --text '{WORDS}' {MAPPED}").rc == 0
        assert machine.run(f"sudo grep --quiet --text '{WORDS}' {disk}").rc == 1  # beside it, as it is stored
    finally:
        machine.run(f"sudo umount /mnt; sudo cryptsetup close {VOLUME}")


def test_the_firewall_drops_by_default_before_the_network_is_configured(before, machine):
    table = json.loads(machine.check_output("sudo nft --json list table inet bedplate"))["nftables"]
    policies = {
        entry["chain"]["hook"]: entry["chain"]["policy"] for entry in table if entry.get("chain", {}).get("hook")
    }
    assert policies == {"input": "drop", "output": "drop"}
    loaded = monotonic(machine, UNIT, "ActiveEnterTimestampMonotonic")
    network = monotonic(machine, "systemd-networkd.service", "InactiveExitTimestampMonotonic")
    assert 0 < loaded < network


def monotonic(machine, unit: str, when: str) -> int:
    return int(machine.check_output(f"systemctl show --value --property {when} {unit}"))


def test_an_undeclared_port_is_closed_to_the_operator(before, machine, access):
    port = 8099
    serve = f"sudo systemd-run --quiet --collect --unit bedplate-test-listener python3 -m http.server {port}"
    machine.check_output(serve)
    try:
        machine.check_output(
            f"curl --silent --retry 20 --retry-connrefused --retry-delay 1 -o /dev/null http://127.0.0.1:{port}/"
        )
        with pytest.raises(TimeoutError), socket.create_connection((access.address, port), timeout=3):
            pass
    finally:
        machine.run("sudo systemctl stop bedplate-test-listener")
