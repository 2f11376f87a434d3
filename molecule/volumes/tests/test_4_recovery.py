"""What is lost comes back from the escrow, with bedplate and without it: docs/volumes.md, "Recovery"."""

from __future__ import annotations

import pytest
from scenario import said, wait_until
from volume_lab import (
    DEVICES,
    ESCROWS,
    LAB,
    bedplate,
    checks,
    escrow,
    header,
    is_mounted,
    newest_backup,
    opens,
    passphrase,
    send,
)

MODELS = "/var/lib/bedplate"
DISK = DEVICES["models"]
DESTROY = f"dd if=/dev/zero of={DISK} bs=1M count=16 conv=notrunc oflag=direct status=none"


@pytest.fixture(scope="module")
def words(machine) -> str:
    machine.check_output(f"echo 'written before the loss' | sudo tee {MODELS}/words && sudo sync")
    return "written before the loss"


def close(machine) -> None:
    machine.run("sudo systemctl stop bedplate-probe.service")
    machine.check_output("sudo systemctl stop var-lib-bedplate.mount systemd-cryptsetup@models.service")


@pytest.fixture(scope="module")
def destroyed(machine, words):
    """Both copies of the header and every key slot are gone; what is behind them is not."""
    close(machine)
    machine.check_output(f"sudo {DESTROY}")
    assert machine.run(f"sudo cryptsetup isLuks {DISK}").rc != 0


@pytest.mark.usefixtures("destroyed")
class TestBothHeadersAreGone:
    def test_a_rollout_refuses_and_says_what_to_do(self):
        done = LAB.play("playbooks/volume.yml", {"luks_volume_state": "present"}, "--limit", "store1")
        assert done.returncode != 0
        assert "bedplate volume restore" in said(done)
        assert "Nothing was changed" in said(done)

    def test_status_says_so_too(self):
        done = bedplate("volume", "status")
        assert done.returncode == 1
        assert "has no header that can be read" in said(done)

    def test_the_escrow_brings_it_back_and_the_data_with_it(self, machine, words):
        done = bedplate("volume", "restore", "--volume", "models")
        assert done.returncode == 0, said(done)
        assert machine.check_output(f"cat {MODELS}/words") == words
        assert len(list(ESCROWS["models"].glob("before-restore-*.vault"))) == 1, "what lay there was kept"
        assert all(check["ok"] for check in checks(LAB).values())


def test_without_bedplate_ansible_vault_and_cryptsetup_are_enough(machine, words):
    """The guide that works from paper, step by step."""
    close(machine)
    machine.check_output(f"sudo {DESTROY}")
    kept, paper = escrow("models"), passphrase("models")
    assert len(paper) == 64
    # As it is typed at the console: a line with its end.
    typed = f"printf '%s\\n' '{paper}' | sudo cryptsetup open"
    file = "/dev/shm/header.bin"
    send("store1", newest_backup("models"), file)
    assert machine.check_output(f"sudo cryptsetup luksUUID {file}") == kept["uuid"]
    machine.check_output(f"{typed} --test-passphrase --disable-external-tokens {file}")
    machine.check_output(f"sudo dd if={DISK} of=/root/before-restore bs=1M count=16 status=none")
    # Without --batch-mode it asks for a YES, and only at a terminal.
    machine.check_output(f"sudo cryptsetup luksHeaderRestore --batch-mode {DISK} --header-backup-file {file}")
    machine.check_output(f"sudo rm {file} /root/before-restore")
    machine.check_output(f"{typed} {DISK} models")
    machine.check_output(f'sudo systemctl start "$(systemd-escape --path --suffix=mount {MODELS})"')
    assert machine.check_output(f"cat {MODELS}/words") == words
    machine.check_output("sudo systemctl start bedplate-probe.service")
    wait_until(lambda: is_mounted(machine, MODELS), 10)
    assert opens(machine, "models", passphrase("models"))
    assert header(machine, "models")["keyslots"]
