"""The machines of the scenario and what is seen of them from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import testinfra

from bedplate.describe import Host, describe
from bedplate.sites import Site

SCENARIO = Path(__file__).resolve().parent.parent
PROJECT = SCENARIO.parents[1]
INVENTORY = SCENARIO / "inventory"
ENVIRONMENT = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_ROLES_PATH": str(SCENARIO / "roles")}
UNIT = "bedplate-vllm.service"
ENDPOINTS = "/run/bedplate-endpoints/vllm.yaml"


def argv(program: str, *arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name(program)), *arguments]


def provision_argv(**variables: object) -> list[str]:
    return argv("ansible-playbook", "bedplate.llm.provision", "-i", str(INVENTORY), "-e", json.dumps(variables))


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def said(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).split())


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.3)


@dataclass(frozen=True)
class Seen:
    """One machine at one moment. `engine` is another one after every start of the engine."""

    version: str
    loaded: str
    engine: str
    serves: bool
    boot: str


class Machine:
    def __init__(self, access: Host) -> None:
        self._host = testinfra.get_host(
            f"ssh://{access.ssh_user}@{access.address}:{access.ssh_port}",
            ssh_identity_file=access.ssh_key,
            ssh_extra_args=f"-F /dev/null {access.ssh_arguments}",
            controlpersist=0,
        )

    def do(self, command: str) -> str:
        return str(self._host.check_output(command))

    def look(self) -> Seen:
        version, loaded, engine, state, endpoint, boot = self.do(
            "cat /etc/stand-in/version || echo none; cat /run/stand-in/version || echo none;"
            f" systemctl show --value --property InvocationID {UNIT}; systemctl is-active {UNIT};"
            f" grep --quiet api.sock {ENDPOINTS} && echo announced || echo out; cat /proc/sys/kernel/random/boot_id"
        ).splitlines()
        return Seen(version, loaded, engine, (state, endpoint) == ("active", "announced"), boot)

    def outages(self) -> list[tuple[float, float]]:
        """From when to when the engine was out, by the machine's journal; the machines have one clock."""
        found, stopped = [], 0.0
        for line in self.do(f"sudo journalctl --unit {UNIT} --output short-unix --no-pager").splitlines():
            if f"Stopping {UNIT}" in line:
                stopped = float(line.split()[0])
            elif "Started" in line and stopped:
                found.append((stopped, float(line.split()[0])))
                stopped = 0.0
        return found


@pytest.fixture(scope="session")
def machines() -> list[Machine]:
    """llm1, llm2 and llm3, in the order in which they are provisioned."""
    return [Machine(host) for _name, host in sorted(describe(Site("provision", INVENTORY)).items())]
