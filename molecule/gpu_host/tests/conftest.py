"""The machines, their hardware, and playbooks as a user runs them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import testinfra
from scenario import Scenario

SCENARIO = Path(__file__).resolve().parent.parent
LAB = Scenario(SCENARIO)
GPU = "/srv/hardware/pci/0000:17:00.0/device"
H100, V100 = "0x2330", "0x1db5"

# What the role owns or could touch; asking what is offered may not even fill apt's caches.
FOLDERS = "/etc /boot /lib/modules/*/updates /var/lib/dkms /usr/src /run/bedplate /var/lib/apt /var/cache/apt"
LOOK = (
    f'sudo sh -c \'find {FOLDERS} -type f -printf "%p %s %T@\\n" 2>/dev/null | sort; dpkg-query --show;'
    " dpkg --get-selections'"
)


@pytest.fixture(scope="session")
def host() -> testinfra.host.Host:
    return LAB.by_ansible("gpu1")


@pytest.fixture(scope="session")
def virgin() -> testinfra.host.Host:
    return LAB.by_ansible("spare1")


def driver(name: str, variables: dict[str, Any] | None = None, *options: str, entry: str = "main"):
    """The role on one machine."""
    return LAB.play(SCENARIO / "playbooks" / "role.yml", {"on": name, "entry": entry, **(variables or {})}, *options)


def sm4(name: str, *options: str, entry: str = "main"):
    """The role sm4_module on one machine."""
    return LAB.play(SCENARIO / "playbooks" / "sm4_module.yml", {"on": name, "entry": entry}, *options)


def info(host: testinfra.host.Host, **options: Any) -> dict[str, Any]:
    """What the module says about a machine."""
    arguments = " ".join(f"{key}={value}" for key, value in options.items())
    found: dict[str, Any] = host.ansible("bedplate.llm.nvidia_driver_info", arguments, become=True, check=False)
    return found


def failing(found: dict[str, Any]) -> set[str]:
    return {check["id"].partition(".")[2] for check in found["checks"] if not check["ok"]}


def installed(host) -> dict[str, str]:
    """Packages by dpkg, without those of which only settings are left."""
    lines = host.check_output(
        "dpkg-query --show --showformat='${db:Status-Status} ${Package} ${Version}\\n'"
    ).splitlines()
    return {name: version for status, name, version in map(str.split, lines) if status == "installed"}


@contextlib.contextmanager
def fitted(host: testinfra.host.Host, device: str) -> Iterator[None]:
    """Another GPU in the slot."""
    before = host.check_output(f"cat {GPU}")
    host.check_output(f"echo {device} | sudo tee {GPU}")
    try:
        yield
    finally:
        host.check_output(f"echo {before} | sudo tee {GPU}")
