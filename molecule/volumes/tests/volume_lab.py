"""What the tests of this scenario do to its machines: volumes as the operator's side sees them, boots, power cuts."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import testinfra
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import STATE_ROOT
from scenario import PROJECT, Scenario, argv, boot_id, wait_for_next_boot, wait_until

from bedplate.describe import Host

SCENARIO = Path(__file__).resolve().parent.parent
LAB = Scenario(SCENARIO)
STORE = "store1"
CONVERGE = SCENARIO / "converge.yml"
MADE = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
PASSWORD = MADE / "escrow-password"
ESCROW = MADE / "escrow"
# By the names of volumes: what they lie on, and where the operator's side keeps what it knows of that.
DEVICES = {
    "models": "/dev/disk/by-id/virtio-models0",
    "cache": "/dev/disk/by-id/md-name-bedplate:scratch",
    "cut": "/dev/disk/by-id/virtio-cut0",
}
ESCROWS = {"models": ESCROW / "models0", "cache": ESCROW / "store1.md-scratch", "cut": ESCROW / "cut0"}

_RAISING = threading.Lock()


def by_vault(path: Path) -> bytes:
    """What ansible-vault itself gives out, as a recovery from paper would use it."""
    command = argv("ansible-vault", "decrypt", "--vault-password-file", str(PASSWORD), "--output", "-", str(path))
    return subprocess.run(command, capture_output=True, check=True).stdout


def bedplate(*words: str, host: str = STORE) -> subprocess.CompletedProcess[str]:
    """The command as the operator types it, for one host of the scenario's site."""
    site = ("--site", SCENARIO.joinpath("inventory").name, "--inventories", str(SCENARIO))
    return LAB.run(argv("bedplate", *words, *site, "--limit", host))


def module(name: str, host: str = STORE, **options: Any) -> subprocess.CompletedProcess[str]:
    """One module on a machine, its result as JSON behind `=>`."""
    command = argv("ansible", "-i", str(LAB.inventory), host, "-b", "-m", f"bedplate.llm.{name}")
    # An empty mapping would be taken for text.
    command += ["-a", json.dumps(options)] if options else []
    environment = {**LAB.environment, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)


def escrow(volume: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ESCROWS[volume] / "escrow.json").read_text())
    return found


def passphrase(volume: str) -> str:
    return by_vault(ESCROWS[volume] / escrow(volume)["passphrases"][-1]).decode()


def newest_backup(volume: str) -> bytes:
    return by_vault(ESCROWS[volume] / escrow(volume)["backups"][-1]["file"])


def header(machine: testinfra.host.Host, volume: str) -> dict[str, Any]:
    """The header as cryptsetup reads it."""
    text = machine.check_output(f"sudo cryptsetup luksDump --dump-json-metadata {DEVICES[volume]}")
    found: dict[str, Any] = json.loads(text)
    return found


def opens(machine: testinfra.host.Host, volume: str, key: str) -> bool:
    """Whether a passphrase opens a device.  Without the switch a TPM would make every passphrase a right one."""
    command = (
        f"printf %s '{key}' | sudo cryptsetup open --test-passphrase --disable-external-tokens --key-file -"
        f" {DEVICES[volume]}"
    )
    return bool(machine.run(command).rc == 0)


def machine_state(lab: str, name: str) -> Path:
    return STATE_ROOT / lab / "machines" / name


def cut_power(lab: str, name: str) -> None:
    """What the machine has not written to its disks by now is lost."""
    process = json.loads((machine_state(lab, name) / "process.json").read_text())
    found = subprocess.run(
        ["pgrep", "--parent", str(process["process"])], capture_output=True, text=True, check=False
    ).stdout.split()
    for pid in [str(process["process"]), *found]:
        os.kill(int(pid), signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{process['process']}").exists(), 20, 0.1)


def power_on(*names: str) -> None:
    # One playbook at a time raises a lab, and another one is refused.
    with _RAISING:
        done = LAB.play(PROJECT / "playbooks/lab_up.yml", None, "--limit", ",".join(names))
    assert done.returncode == 0, done.stdout[-3000:]


# Reads what an engine would read, for as long as it can.
PROBE = """[Unit]
Description=Stand-in for an engine
[Service]
ExecStart=/bin/sh -c "while cat /var/lib/bedplate/models/*/*/config.json; do sleep 2; done"
StandardOutput=null
[Install]
WantedBy=multi-user.target"""


def is_mounted(machine: testinfra.host.Host, mount: str) -> bool:
    return bool(machine.run(f"findmnt --mountpoint {mount}").rc == 0)


def checks(lab: Scenario, host: str = STORE) -> dict[str, dict[str, Any]]:
    """The role's checks by their names, whether they hold or not."""
    done = lab.run(argv("ansible-playbook", "-i", str(lab.inventory), str(SCENARIO / "look.yml"), "--limit", host))
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    found = json.loads((MADE / f"checks-{host}.json").read_text())
    return {check["id"]: check for check in found}


def switch_off(machine: testinfra.host.Host, name: str) -> None:
    """An orderly shutdown, until the machine is gone."""
    lab = str(LAB.declared(name)["lab_name"])
    process = json.loads((machine_state(lab, name) / "process.json").read_text())["process"]
    machine.check_output("sudo systemd-run --on-active=1 systemctl poweroff")
    wait_until(lambda: not Path(f"/proc/{process}").exists(), 120, 0.5)


def restart(machine: testinfra.host.Host, access: Host) -> None:
    before = boot_id(machine)
    machine.check_output("sudo systemd-run --on-active=1 systemctl reboot")
    wait_for_next_boot(machine, access, before, 420)


def send(name: str, content: bytes, path: str) -> None:
    """Bytes to a file on a machine, over standard input."""
    access = LAB.access()[name]
    command = ["ssh", "-F", "/dev/null", "-i", str(access.ssh_key), *shlex.split(access.ssh_arguments)]
    subprocess.run(
        [*command, f"{access.ssh_user}@{access.address}", f"cat > {shlex.quote(path)}"], input=content, check=True
    )


def passphrase_opens_backup(machine: testinfra.host.Host, backup: bytes, key: str) -> bool:
    """Whether a backup of a header is opened by a passphrase, which needs no disk."""
    path = "/dev/shm/backup"
    send(STORE, backup, path)
    command = "cryptsetup open --test-passphrase --disable-external-tokens --key-file -"
    opened = machine.run(f"printf %s '{key}' | sudo {command} {path}").rc == 0
    machine.check_output(f"rm {path}")
    return bool(opened)
