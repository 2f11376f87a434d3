"""The machine and the mirror of the scenario, from its inventory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra

SCENARIO = Path(__file__).resolve().parent.parent
PROJECT = SCENARIO.parents[1]
INVENTORY = SCENARIO / "inventory"
NAME = "pkg1"
# Everything that decides what apt installs, and what of it is installed.
LOOK = (
    "sudo sh -c 'find /etc/apt -type f -exec sha256sum {} + | sort;"
    ' find /etc/apt /usr/local -printf "%p %l %m\\n" | sort;'
    " apt-mark showhold; dpkg --list | sha256sum'"
)


def run(playbook: str, variables: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    """A playbook as a user runs it; the output is what they would read."""
    program = Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [str(program), playbook, "-i", str(INVENTORY), "-e", json.dumps(variables), *arguments],
        cwd=PROJECT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass(frozen=True)
class Run:
    """What one run of a playbook said and did."""

    words: str
    changed: int


@pytest.fixture(scope="session")
def host() -> testinfra.host.Host:
    """Over one ssh connection that stays open; through Ansible each command would take a second."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(INVENTORY), "--host", NAME],
        capture_output=True,
        text=True,
        check=True,
    )
    declared, secrets = json.loads(done.stdout), INVENTORY / ".secrets"
    return testinfra.get_host(
        f"ssh://{declared['ansible_user']}@{declared['ansible_host']}",
        ssh_identity_file=str(secrets / "id_ed25519"),
        ssh_extra_args=f"-F /dev/null -o UserKnownHostsFile={secrets}/known_hosts -o StrictHostKeyChecking=yes",
        controlpersist=60,
    )


@pytest.fixture(scope="session")
def mirror() -> dict[str, Any]:
    """Where the mirror is and what signs it, as the inventory says."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible")),
            *[NAME, "-i", str(INVENTORY), "-m", "ansible.builtin.debug"],
            *["-a", "msg={{ {'dir': mirror_dir, 'url': mirror_url, 'keys': mirror_fingerprints} | to_json }}"],
        ],
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
        capture_output=True,
        text=True,
        check=True,
    )
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
        done = run(str(SCENARIO / "converge.yml"), {"package_source_sources": wanted, "toolkit": False, **variables})
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
        done = run(str(SCENARIO / playbook), {"toolkit": False, **variables})
        assert done.returncode != 0, done.stdout[-4000:]
        assert host.check_output(LOOK) == before
        return " ".join((done.stdout + done.stderr).split())

    return given
