"""The machine and the values of the scenario, from its inventory: a test names no address, disk or key of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import testinfra
from scenario import Scenario, by_ssh

from bedplate.describe import Host

SCENARIO = Path(__file__).resolve().parent.parent
LAB = Scenario(SCENARIO)
NAME = "store1"


def play(playbook: str, variables: dict[str, object] | None = None, *options: str) -> subprocess.CompletedProcess[str]:
    return LAB.play(playbook, variables, *options)


@pytest.fixture(scope="session")
def declared() -> dict[str, Any]:
    """What the inventory says about the machine."""
    return LAB.declared(NAME)


@pytest.fixture(scope="session")
def access() -> Host:
    """How the operator reaches the machine."""
    return LAB.access()[NAME]


@pytest.fixture(scope="session")
def machine(access: Host) -> testinfra.host.Host:
    return by_ssh(access)
