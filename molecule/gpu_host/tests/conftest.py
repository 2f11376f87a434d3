"""The machines, their hardware, and playbooks as a user runs them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra

SCENARIO = Path(__file__).resolve().parent.parent
PROJECT = SCENARIO.parents[1]
INVENTORY = SCENARIO / "inventory"
GPU = "/srv/hardware/pci/0000:17:00.0/device"
H100, V100 = "0x2330", "0x1db5"

# What the role owns or could touch; asking what is offered may not even fill apt's caches.
FOLDERS = "/etc /boot /lib/modules/*/updates /var/lib/dkms /usr/src /run/bedplate /var/lib/apt /var/cache/apt"
LOOK = (
    f'sudo sh -c \'find {FOLDERS} -type f -printf "%p %s %T@\\n" 2>/dev/null | sort; dpkg-query --show;'
    " dpkg --get-selections'"
)


def machine(name: str) -> testinfra.host.Host:
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={INVENTORY}&force_ansible=True")


@pytest.fixture(scope="session")
def host() -> testinfra.host.Host:
    return machine("gpu1")


@pytest.fixture(scope="session")
def virgin() -> testinfra.host.Host:
    return machine("spare1")


def play(playbook: Path | str, variables: dict[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
    """As a user runs it; the output is what they would read."""
    program = Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [str(program), str(playbook), "-i", str(INVENTORY), "-e", json.dumps(variables), *options],
        cwd=PROJECT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def driver(name: str, variables: dict[str, Any] | None = None, *options: str, entry: str = "main"):
    """The role on one machine."""
    return play(SCENARIO / "playbooks" / "role.yml", {"on": name, "entry": entry, **(variables or {})}, *options)


def said(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).split())


def changed(done: subprocess.CompletedProcess[str]) -> int:
    """How many tasks of a run that went well changed something."""
    assert done.returncode == 0, said(done)[-4000:]
    return int(done.stdout.rpartition("PLAY RECAP")[2].partition("changed=")[2].split()[0])


def info(host: testinfra.host.Host, **options: Any) -> dict[str, Any]:
    """What the module says about a machine."""
    arguments = " ".join(f"{key}={value}" for key, value in options.items())
    found: dict[str, Any] = host.ansible("bedplate.llm.nvidia_driver_info", arguments, become=True, check=False)
    return found


def failing(found: dict[str, Any]) -> set[str]:
    return {check["id"].partition(".")[2] for check in found["checks"] if not check["ok"]}


@contextlib.contextmanager
def fitted(host: testinfra.host.Host, device: str) -> Iterator[None]:
    """Another GPU in the slot."""
    before = host.check_output(f"cat {GPU}")
    host.check_output(f"echo {device} | sudo tee {GPU}")
    try:
        yield
    finally:
        host.check_output(f"echo {before} | sudo tee {GPU}")
