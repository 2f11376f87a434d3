# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The keys of a lab: the operator's own, one host key for each machine, and the file that pins them.

Host keys are made here, on the operator's side, so that the first connection to a machine is checked already.  They
outlive the machines: a machine made afresh under the same name has the same key."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Mapping

from ansible_collections.bedplate.llm.plugins.module_utils.lab_host import run, write
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import USER, Lab

CLIENT_KEY = "id_ed25519"
KNOWN_HOSTS = "known_hosts"


def host_key(secrets: Path, machine: str) -> Path:
    return secrets / "host_keys" / machine


def pinned_names(lab: Lab, peers: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """{machine: every name that somebody may connect to it by}."""
    return {name: (name, address, str(lab.address6(ipaddress.IPv4Address(address)))) for name, address in peers.items()}


def known_hosts(existing: str, keys: Mapping[str, tuple[tuple[str, ...], str]]) -> str:
    """Merge pinned keys into a known_hosts file; `keys` is {machine: (its names and addresses, its public key)}.

    Lines for other names stay as they are.  A line is replaced when it pins one of our names or addresses.
    """
    ours = {name for names, _key in keys.values() for name in names}
    kept = [
        line
        for line in existing.splitlines()
        if line.startswith("#") or not line.strip() or not ours & set(line.split()[0].split(","))
    ]
    pinned = [f"{','.join(keys[machine][0])} {' '.join(keys[machine][1].split()[:2])}" for machine in sorted(keys)]
    return "\n".join(kept + pinned) + "\n"


def missing_keys(secrets: Path, machines: Mapping[str, tuple[str, ...]]) -> list[Path]:
    wanted = [secrets / CLIENT_KEY, *(host_key(secrets, machine) for machine in sorted(machines))]
    return [path for path in wanted if not path.exists() or not path.with_name(path.name + ".pub").exists()]


def pinned_now(secrets: Path, machines: Mapping[str, tuple[str, ...]]) -> tuple[str, str]:
    """The text of known_hosts as it is and as it should be; every host key must exist."""
    path = secrets / KNOWN_HOSTS
    existing = path.read_text() if path.exists() else ""
    keys = {
        machine: (names, host_key(secrets, machine).with_name(machine + ".pub").read_text())
        for machine, names in machines.items()
    }
    return existing, known_hosts(existing, keys)


def make_keys(secrets: Path, machines: Mapping[str, tuple[str, ...]]) -> bool:
    """Make what is missing and pin it; `machines` is {machine: its names and addresses}."""
    changed = False
    for folder in (secrets, secrets / "host_keys"):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    ignore = secrets / ".gitignore"
    if not ignore.exists():
        write(ignore, "*\n")  # whatever a site's repository says, its keys stay out of it
    for path in missing_keys(secrets, machines):
        comment = f"{USER} of the lab" if path.name == CLIENT_KEY else path.name
        path.unlink(missing_ok=True)  # an interrupted ssh-keygen may have left half of the pair
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path)
        changed = True
    existing, wanted = pinned_now(secrets, machines)
    if existing != wanted:
        write(secrets / KNOWN_HOSTS, wanted, 0o644)
        changed = True
    return changed
