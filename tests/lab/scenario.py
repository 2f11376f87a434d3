"""What the tests of every Molecule scenario share: its machines, playbooks as a user runs them, and waiting.

The conftest.py of a scenario makes one `Scenario` of its folder and names the machines; pytest finds this file by
`pythonpath` in pyproject.toml.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import testinfra
from ansible_collections.bedplate.llm.plugins.module_utils.lab_machines import answers

from bedplate.describe import Host, describe
from bedplate.sites import Site

PROJECT = Path(__file__).resolve().parents[2]
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def argv(program: str, *arguments: str) -> list[str]:
    """A program of the project's environment."""
    return [str(Path(sys.executable).with_name(program)), *arguments]


@dataclass(frozen=True)
class Scenario:
    """folder: that of molecule.yml, with the inventory below it."""

    folder: Path

    @property
    def inventory(self) -> Path:
        return self.folder / "inventory"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_ROLES_PATH": str(self.folder / "roles"),
            "MOLECULE_PROJECT_DIRECTORY": str(PROJECT),
        }

    def play_argv(
        self, playbook: Path | str, variables: Mapping[str, object] | None = None, *options: str
    ) -> list[str]:
        given = ["-e", json.dumps(variables)] if variables else []
        return argv("ansible-playbook", str(playbook), "-i", str(self.inventory), *given, *options)

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=PROJECT, env=self.environment, capture_output=True, text=True, check=False)

    def play(
        self, playbook: Path | str, variables: Mapping[str, object] | None = None, *options: str
    ) -> subprocess.CompletedProcess[str]:
        """A playbook as a user runs it; the output is what they would read."""
        return self.run(self.play_argv(playbook, variables, *options))

    def declared(self, name: str) -> dict[str, object]:
        """What the inventory says about a machine."""
        command = argv("ansible-inventory", "-i", str(self.inventory), "--host", name)
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True)
        found: dict[str, object] = json.loads(done.stdout)
        return found

    def access(self) -> dict[str, Host]:
        """How the operator reaches the machines, as `bedplate` itself finds it out."""
        return describe(Site(self.folder.name, self.inventory))

    def by_ansible(self, name: str) -> testinfra.host.Host:
        return testinfra.get_host(f"ansible://{name}?ansible_inventory={self.inventory}&force_ansible=True")


def by_ssh(access: Host, keep: int = 0) -> testinfra.host.Host:
    """Without Ansible, which needs a second or more for each command; keep: how long the connection stays open, s."""
    return testinfra.get_host(
        f"ssh://{access.ssh_user}@{access.address}:{access.ssh_port}",
        ssh_identity_file=access.ssh_key,
        ssh_extra_args=f"-F /dev/null {access.ssh_arguments}",
        controlpersist=keep,
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    """All that was written, with single spaces, since Ansible breaks lines where it likes."""
    return " ".join((done.stdout + done.stderr).split())


def changed(done: subprocess.CompletedProcess[str]) -> int:
    """How many tasks of a run on one machine that went well changed something."""
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    recap = done.stdout.rpartition("PLAY RECAP")[2]
    assert recap.count("changed=") == 1, done.stdout[-6000:]
    return int(recap.partition("changed=")[2].split()[0])


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 1.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(pause)


def boot_id(machine: testinfra.host.Host) -> str:
    """Which boot the machine is in; empty while it lets nobody in."""
    try:
        return str(machine.check_output(f"cat {BOOT_ID}"))
    except RuntimeError:  # ssh itself failed
        return ""


def wait_for_next_boot(machine: testinfra.host.Host, access: Host, before: str, seconds: float = 300) -> None:
    """Wait until another boot lets the operator in: with the pinned host key, or the connection is refused."""
    wait_until(lambda: answers(access.address) and boot_id(machine) not in ("", before), seconds)
