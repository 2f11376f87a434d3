"""The machines of the scenario and what is seen of them from outside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from scenario import Scenario, by_ssh

from bedplate.describe import Host

LAB = Scenario(Path(__file__).resolve().parent.parent)
UNIT = "bedplate-vllm.service"
ENDPOINTS = "/run/bedplate-endpoints/vllm.yaml"


def provision_argv(**variables: object) -> list[str]:
    return LAB.play_argv("bedplate.llm.provision", variables)


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
        self._host = by_ssh(access)

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
    return [Machine(host) for _name, host in sorted(LAB.access().items())]
