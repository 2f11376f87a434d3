"""The machine and the mirror of the scenario, from its inventory."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
from scenario import Scenario, argv, by_ssh, said

SCENARIO = Path(__file__).resolve().parent.parent
LAB = Scenario(SCENARIO)
NAME = "pkg1"
# Everything that decides what apt installs, and what of it is installed.
LOOK = (
    "sudo sh -c 'find /etc/apt -type f -exec sha256sum {} + | sort;"
    ' find /etc/apt /usr/local -printf "%p %l %m\\n" | sort;'
    " apt-mark showhold; dpkg --list | sha256sum'"
)


@dataclass(frozen=True)
class Run:
    """What one run of a playbook said and did."""

    words: str
    changed: int


@pytest.fixture(scope="session")
def host() -> testinfra.host.Host:
    """Over one connection that stays open; through Ansible each command would take a second."""
    return by_ssh(LAB.access()[NAME], keep=60)


@pytest.fixture(scope="session")
def mirror() -> dict[str, Any]:
    """Where the mirror is and what signs it, as the inventory says."""
    wanted = "{{ {'dir': mirror_dir, 'url': mirror_url, 'keys': mirror_fingerprints} | to_json }}"
    command = argv("ansible", NAME, "-i", str(LAB.inventory), "-m", "ansible.builtin.debug", "-a", f"msg={wanted}")
    environment = {**LAB.environment, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.partition("=>")[2])["msg"]
    return dict(json.loads(found) if isinstance(found, str) else found)


@pytest.fixture(scope="session")
def source(mirror):
    """A source on the mirror, as a site declares it."""

    def made(repository: str = "tools", signer: str = "vendor", **changes: Any) -> dict[str, Any]:
        return {
            "name": "tools",
            "url": f"{mirror['url']}/{repository}/",
            "key": f"{mirror['dir']}/keys/{signer}.asc",
            "fingerprint": mirror["keys"][signer],
            **changes,
        }

    return made


class Sources:
    """Gives the machine exactly these sources; a run that fails is an error of the test."""

    def __init__(self) -> None:
        self.last: list[dict[str, Any]] | None = None

    def __call__(self, *wanted: dict[str, Any], **variables: Any) -> Run:
        self.last = None
        done = LAB.play(
            str(SCENARIO / "converge.yml"), {"package_source_sources": wanted, "toolkit": False, **variables}
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr
        self.last = list(wanted)
        return Run(done.stdout, int(done.stdout.rpartition("changed=")[2].split()[0]))


@pytest.fixture(scope="session")
def sources():
    return Sources()


@pytest.fixture
def converged(sources, source):
    """The machine as the scenario made it."""
    if sources.last != [source()]:
        sources(source())


@pytest.fixture(scope="session")
def refused(host):
    """What a run says that must fail and change nothing."""

    def given(variables: dict[str, Any], playbook: str = "converge.yml") -> str:
        before = host.check_output(LOOK)
        done = LAB.play(str(SCENARIO / playbook), {"toolkit": False, **variables})
        assert done.returncode != 0, done.stdout[-4000:]
        assert host.check_output(LOOK) == before
        return said(done)

    return given
