"""Host keys: fetched with nothing but ssh's key exchange, compared with those that are pinned, and pinned.

A pinned key is never replaced here: that a host shows another key is what pinning is there to find.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import paramiko

_TIMEOUT = 10.0
# Of what a host offers the first of these is pinned; OpenSSH then asks the host for that one.
_PREFERRED = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512")


@dataclass(frozen=True)
class Target:
    host: str
    address: str
    port: int

    @property
    def name(self) -> str:
        """As ssh writes it in known_hosts."""
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"


@dataclass(frozen=True)
class HostKey:
    kind: str
    base64: str

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(base64.b64decode(self.base64)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


@dataclass(frozen=True)
class Finding:
    """What one host showed, beside what is pinned for it."""

    target: Target
    state: Literal["new", "pinned", "different", "unreachable"]
    key: HostKey | None = None
    pinned: tuple[HostKey, ...] = ()
    problem: str = ""

    @property
    def sentence(self) -> str:
        target = self.target
        if self.state == "unreachable":
            return f"{target.host} ({target.name}): no host key could be fetched: {self.problem}."
        key = self.key
        shown = f"{key.kind} {key.fingerprint}" if key else "no key of a pinned kind"
        if self.state == "different":
            pinned = ", ".join(f"{pin.kind} {pin.fingerprint}" for pin in self.pinned)
            return (
                f"{target.host} ({target.name}) shows {shown}, but {pinned} is pinned: somebody may be in between. "
                "Nothing was pinned. If the host was installed afresh, remove its line there and run this again."
            )
        return f"{target.host} ({target.name}): {shown}" + (" (already pinned)" if self.state == "pinned" else "")


def read_pinned(file: Path) -> dict[str, list[HostKey]]:
    """The keys of a known_hosts file by name; lines that ssh itself would skip are skipped."""
    pinned: dict[str, list[HostKey]] = {}
    if not file.is_file():
        return pinned
    for line in file.read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if len(fields) >= 3 and not fields[0].startswith(("#", "@", "|")):
            for name in fields[0].split(","):
                pinned.setdefault(name, []).append(HostKey(fields[1], fields[2]))
    return pinned


def examine(targets: Sequence[Target], pinned: dict[str, list[HostKey]]) -> list[Finding]:
    """Ask all hosts at once; the findings are in the targets' order."""
    if not targets:
        return []
    with ThreadPoolExecutor(max_workers=min(32, len(targets))) as pool:
        return list(pool.map(lambda target: _examine(target, tuple(pinned.get(target.name, ()))), targets))


def pin(file: Path, findings: Iterable[Finding]) -> int:
    """Add the new keys to the file, all or none; how many these were."""
    lines = [f"{finding.target.name} {finding.key.kind} {finding.key.base64}" for finding in findings if finding.key]
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    if before and not before.endswith("\n"):
        before += "\n"
    number, staged = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(number, "w", encoding="utf-8") as handle:
            handle.write(before + "".join(f"{line}\n" for line in lines))
        Path(staged).chmod(0o644)
        Path(staged).replace(file)
    except BaseException:
        Path(staged).unlink(missing_ok=True)
        raise
    return len(lines)


def fetch(target: Target, kinds: Sequence[str] = ()) -> HostKey:
    """The host's key, by the key exchange alone: no user name and no secret is sent."""
    with socket.create_connection((target.address, target.port), timeout=_TIMEOUT) as connection:
        transport = paramiko.Transport(connection)
        try:
            options = transport.get_security_options()
            wanted = [kind for kind in (kinds or _PREFERRED) if kind in options.key_types]
            if wanted:
                options.key_types = wanted
            transport.start_client(timeout=_TIMEOUT)
            key = transport.get_remote_server_key()
        finally:
            transport.close()
    return HostKey(key.get_name(), key.get_base64())


def _examine(target: Target, pinned: tuple[HostKey, ...]) -> Finding:
    # A host has keys of several kinds: ask for the kinds that are pinned, or nothing could be compared.
    kinds = [kind for key in pinned for kind in (("rsa-sha2-512", "ssh-rsa") if key.kind == "ssh-rsa" else (key.kind,))]
    try:
        key = fetch(target, kinds)
    except paramiko.SSHException as error:
        if pinned and "incompatible" in str(error).lower():
            return Finding(target, "different", None, pinned)
        return Finding(target, "unreachable", problem=str(error) or type(error).__name__)
    except (OSError, EOFError) as error:
        return Finding(target, "unreachable", problem=str(error) or "the connection was closed")
    if not pinned:
        return Finding(target, "new", key)
    return Finding(target, "pinned" if key in pinned else "different", key, pinned)
