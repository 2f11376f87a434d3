"""Machines and values of the scenario, taken from its inventory: a test names no address, port or user of its own."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import testinfra
from ansible_collections.bedplate.llm.plugins.module_utils import gateway_jwt
from scenario import Scenario

SCENARIO = Path(__file__).resolve().parent.parent
LAB = Scenario(SCENARIO)


def machine(name: str) -> testinfra.host.Host:
    return LAB.by_ansible(name)


@pytest.fixture(scope="session")
def server() -> testinfra.host.Host:
    return machine("llm1")


@pytest.fixture(scope="session")
def client() -> testinfra.host.Host:
    return machine("client1")


def run(playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return LAB.play(playbook, None, *arguments)


@dataclass(frozen=True)
class Site:
    """What the roles' defaults and the inventory come to."""

    address: str
    network: str
    network6: str
    port: int
    secrets: Path
    issuer: str
    audience: str
    model: str

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.port}"

    @property
    def address6(self) -> str:
        """The lab gives a machine the same place in both networks."""
        place = int(ipaddress.ip_address(self.address)) - int(ipaddress.ip_network(self.network)[0])
        return str(ipaddress.ip_network(self.network6)[place])

    @property
    def ca(self) -> Path:
        return self.secrets / "ca.crt"

    def token(self, **claims: object) -> str:
        """A token as `bedplate token` gives it, or one that is wrong in the named way."""
        given: dict[str, object] = {
            "issuer": self.issuer,
            "audience": self.audience,
            "subject": "molecule",
            "scopes": (),
            "lifetime": 300,
        }
        return gateway_jwt.mint(str(self.secrets), **{**given, **claims})


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    out = tmp_path_factory.mktemp("site") / "site.json"
    done = run(str(SCENARIO / "playbooks" / "describe.yml"), "-e", f"describe_to={out}")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    return Site(**{**found, "port": int(found["port"]), "secrets": Path(found["secrets"])})


@pytest.fixture(scope="session")
def engine_python(client: testinfra.host.Host) -> str:
    """The engine's environment on the client (see prepare.yml): there are the OpenAI client and `vllm bench`."""
    return client.check_output("ls -d /var/lib/bedplate/engines/*/bin/python")


@pytest.fixture(scope="session")
def client_ca(client: testinfra.host.Host, site: Site) -> str:
    """The site's CA, as an administrator would hand it to whoever calls the service."""
    path = "/tmp/site-ca.crt"
    client.run_expect([0], f"tee {path} <<'PEM'\n{site.ca.read_text()}\nPEM")
    return path
