# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The identity of one lab machine as an archive: its name, addresses, keys and resolver.

A container unpacks the archive into the upper layer of its root; a virtual machine gets it appended to its initramfs,
which unpacks it before systemd starts.  So both kinds are told who they are in the same way, with no extra disk."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from typing import Mapping

from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import USER, USER_ID, Lab, Machine

SEED_NAME = "bedplate-seed.tar"


@dataclass(frozen=True)
class Identity:
    """What makes a machine this one and no other."""

    machine: Machine
    machine_id: str
    host_key: str
    host_key_public: str
    authorized_key: str
    resolv_conf: str
    peers: Mapping[str, str]


@dataclass(frozen=True)
class SeedFile:
    """A file, or a directory when there is no content."""

    path: str
    content: str | bytes | None
    mode: int = 0o644
    owner: int = 0


def network_unit(lab: Lab, machine: Machine) -> str:
    """Static addresses: nothing has to answer before the machine is reachable, and no address is ever tentative."""
    return f"""\
[Match]
Name=host0 en* eth*

[Network]
IPv6AcceptRA=no
LinkLocalAddressing=ipv6

[Address]
Address={machine.address}/{lab.network.prefixlen}

[Address]
Address={machine.address6}/{lab.network6.prefixlen}
DuplicateAddressDetection=none

[Route]
Gateway={lab.gateway}
"""


def hosts_file(identity: Identity) -> str:
    """The machine itself and its peers by name; 127.0.1.1 is Debian's place for a host's own name."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", f"127.0.1.1 {identity.machine.name}"]
    others = sorted((address, name) for name, address in identity.peers.items() if name != identity.machine.name)
    return "\n".join(lines + [f"{address} {name}" for address, name in others]) + "\n"


def resolv_conf(text: str) -> str:
    """Copy the operator's resolvers, without those that only the operator's machine itself can reach."""
    kept = [line for line in text.splitlines() if not line.startswith(("nameserver 127.", "nameserver ::1"))]
    return "\n".join(kept) + "\n"


def seed_files(lab: Lab, identity: Identity) -> list[SeedFile]:
    home = f"home/{USER}"
    return [
        SeedFile("etc/hostname", identity.machine.name + "\n"),
        SeedFile("etc/hosts", hosts_file(identity)),
        SeedFile("etc/machine-id", identity.machine_id + "\n", 0o444),
        SeedFile("etc/resolv.conf", identity.resolv_conf),
        SeedFile("etc/ssh/ssh_host_ed25519_key", identity.host_key, 0o600),
        SeedFile("etc/ssh/ssh_host_ed25519_key.pub", identity.host_key_public),
        SeedFile("etc/systemd/network/10-lab.network", network_unit(lab, identity.machine)),
        SeedFile(home, None, 0o755, USER_ID),
        SeedFile(f"{home}/.ssh", None, 0o700, USER_ID),
        SeedFile(f"{home}/.ssh/authorized_keys", identity.authorized_key, 0o600, USER_ID),
    ]


def seed_archive(files: list[SeedFile]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for file in files:
            entry = tarfile.TarInfo(file.path)
            entry.mode, entry.uid, entry.gid = file.mode, file.owner, file.owner
            if file.content is None:
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            else:
                content = file.content if isinstance(file.content, bytes) else file.content.encode()
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _cpio_entry(name: str, content: bytes, mode: int) -> bytes:
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def initramfs_addition(content: bytes, name: str = SEED_NAME, mode: int = 0o600) -> bytes:
    """A file as a second cpio that the kernel unpacks over the first: it must begin at a multiple of four."""
    return _cpio_entry(name, content, 0o100000 | mode) + _cpio_entry("TRAILER!!!", b"", 0)


def initramfs(base: bytes, content: bytes, name: str = SEED_NAME, mode: int = 0o600) -> bytes:
    """The initramfs with one more file at its root."""
    return _padded(base) + initramfs_addition(content, name, mode)
