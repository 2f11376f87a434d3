"""The machines and the values of the scenario, from its inventory: a test names no address, disk or key of its own."""

from __future__ import annotations

from typing import Any

import pytest
import testinfra
from scenario import by_ssh
from volume_lab import LAB, STORE

from bedplate.describe import Host


@pytest.fixture(scope="session")
def declared() -> dict[str, Any]:
    """What the inventory says about the machine."""
    return LAB.declared(STORE)


@pytest.fixture(scope="session")
def accesses() -> dict[str, Host]:
    return LAB.access()


@pytest.fixture(scope="session")
def access(accesses: dict[str, Host]) -> Host:
    """How the operator reaches the machine with the volumes."""
    return accesses[STORE]


@pytest.fixture(scope="session")
def machine(access: Host) -> testinfra.host.Host:
    return by_ssh(access, keep=60)


@pytest.fixture(scope="session")
def tang(accesses: dict[str, Host]) -> list[testinfra.host.Host]:
    return [by_ssh(accesses[name], keep=60) for name in ("tang1", "tang2")]
