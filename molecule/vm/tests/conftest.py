"""The machine and the values of the scenario, from its inventory: a test names no address, disk or key of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testinfra

from bedplate.describe import Host, describe
from bedplate.sites import Site

SCENARIO = Path(__file__).resolve().parent.parent
PROJECT = SCENARIO.parents[1]
INVENTORY = SCENARIO / "inventory"
NAME = "store1"
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def argv(program: str, *arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name(program)), *arguments]


def play_argv(playbook: str, variables: dict[str, object] | None = None, *options: str) -> list[str]:
    return argv("ansible-playbook", playbook, "-i", str(INVENTORY), "-e", json.dumps(variables or {}), *options)


def play(playbook: str, variables: dict[str, object] | None = None, *options: str) -> subprocess.CompletedProcess[str]:
    """A playbook as a user runs it; the output is what they would read."""
    return subprocess.run(
        play_argv(playbook, variables, *options), cwd=PROJECT, capture_output=True, text=True, check=False
    )


def changed(done: subprocess.CompletedProcess[str]) -> int:
    """How many tasks of a run that went well changed something."""
    assert done.returncode == 0, done.stdout + done.stderr
    recap = done.stdout.rpartition("PLAY RECAP")[2]
    assert NAME in recap, done.stdout
    return int(recap.partition("changed=")[2].split()[0])


def wait_until(condition: Callable[[], bool], seconds: float, pause: float = 1.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(pause)


@pytest.fixture(scope="session")
def declared() -> dict[str, Any]:
    """What the inventory says about the machine."""
    done = subprocess.run(
        argv("ansible-inventory", "-i", str(INVENTORY), "--host", NAME), capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="session")
def access() -> Host:
    """How the operator reaches the machine, as `bedplate` itself finds it out."""
    return describe(Site("vm", INVENTORY))[NAME]


@pytest.fixture(scope="session")
def machine(access: Host) -> testinfra.host.Host:
    """Over ssh without Ansible, which needs seconds for each command on an emulated processor."""
    return testinfra.get_host(
        f"ssh://{access.ssh_user}@{access.address}:{access.ssh_port}",
        ssh_identity_file=access.ssh_key,
        ssh_extra_args=f"-F /dev/null {access.ssh_arguments}",
        controlpersist=0,
    )


def boot_id(machine: testinfra.host.Host) -> str:
    """Which boot the machine is in; empty while it lets nobody in."""
    try:
        return str(machine.check_output(f"cat {BOOT_ID}"))
    except RuntimeError:  # ssh itself failed
        return ""
