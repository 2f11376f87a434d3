"""The machines and the values of the scenario, from its inventory: a test names no address, disk or key of its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import power_cuts
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


@pytest.fixture(scope="session")
def other_machine(accesses: dict[str, Host]) -> testinfra.host.Host:
    return by_ssh(accesses[power_cuts.NAME])


@pytest.fixture(scope="session", autouse=True)
def _campaign(
    request: pytest.FixtureRequest, accesses: dict[str, Host]
) -> Iterator[Future[power_cuts.Campaign] | None]:
    """Power is cut on another machine while the tests work on this one: most of its time is waiting for boots."""
    if not any("test_8_power_cut" in item.nodeid for item in request.session.items):
        yield None
        return
    with ThreadPoolExecutor(1) as executor:
        yield executor.submit(power_cuts.run, by_ssh(accesses[power_cuts.NAME]))


@pytest.fixture(scope="session")
def campaign(_campaign: Future[power_cuts.Campaign]) -> power_cuts.Campaign:
    return _campaign.result(timeout=1800)
