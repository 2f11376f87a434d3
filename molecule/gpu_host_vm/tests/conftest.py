"""The machine and the values of the scenario, from its inventory: a test names no address or key of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testinfra
from ansible_collections.bedplate.llm.plugins.module_utils import gateway_jwt
from scenario import Scenario, by_ssh

from bedplate.describe import Host

SCENARIO = Path(__file__).resolve().parent.parent
LAB = Scenario(SCENARIO)
NAME = "gpu1"
CONTAINER = "bedplate-vllm"
SPEC = "/run/cdi/nvidia.yaml"


def play(playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return LAB.play(playbook, None, *arguments)


@pytest.fixture(scope="session")
def access() -> Host:
    """How the operator reaches the machine."""
    return LAB.access()[NAME]


@pytest.fixture(scope="session")
def machine(access: Host) -> testinfra.host.Host:
    """Over one connection that stays open: each new one takes a second on an emulated processor."""
    return by_ssh(access, keep=60)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the roles' defaults and the inventory come to, for who calls the service."""
    out = tmp_path_factory.mktemp("site") / "site.json"
    done = play(str(SCENARIO.parent / "default/playbooks/describe.yml"), "-e", f"describe_to={out}")
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    return found


@pytest.fixture(scope="session")
def ask(site: dict[str, Any]) -> Callable[[str], str]:
    """A question to the service from outside the machine, through the gateway, as a client with a token asks it."""
    claims = {name: site[name] for name in ("issuer", "audience")}
    token = gateway_jwt.mint(site["secrets"], **claims, subject="molecule", scopes=(), lifetime=3600)
    url = f"https://{site['address']}:{site['port']}/v1/chat/completions"
    argv = ["curl", "--silent", "--max-time", "60", "--cacert", f"{site['secrets']}/ca.crt", "--config", "-", url]

    def asked(prompt: str) -> str:
        body = {"model": site["model"], "messages": [{"role": "user", "content": prompt}], "max_tokens": 2}
        done = subprocess.run(
            [*argv, "-H", "Content-Type: application/json", "-d", json.dumps(body)],
            # Not on the command line, where every user could read it.
            input=f'header = "Authorization: Bearer {token}"',
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout

    return asked


def engine_pid(machine: testinfra.host.Host) -> str:
    """The engine's process, by podman and not by our own code."""
    return str(machine.check_output("sudo podman container inspect --format '{{.State.Pid}}' " + CONTAINER))
