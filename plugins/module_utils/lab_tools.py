# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which system tools the operator's machine needs for a lab, and whether it can carry one at all."""

from __future__ import annotations

from typing import Callable, Sequence

# Package by program, some with what it does not work without: a program that is there counts, whoever brought it.
_COMMON = {
    "apt-get": "apt",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "useradd": "passwd",
}
_CONTAINER = {"systemd-nspawn": "systemd-container"}
_VM = {"qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils", "mke2fs": "e2fsprogs"}
_TPM = {"swtpm": "swtpm"}
_GPUS = {"cc": "gcc libc6-dev"}


def missing_packages(kind: str, tpm: bool, find: Callable[[str], object], gpus: bool = False) -> list[str]:
    """`find` tells where a program is, or None."""
    wanted = {**_COMMON, **(_VM if kind == "vm" else _CONTAINER), **(_TPM if tpm else {}), **(_GPUS if gpus else {})}
    missing = [packages for program, packages in wanted.items() if find(program) is None]
    return sorted({package for packages in missing for package in packages.split()})


def unable(platform: str, user: int, missing: Sequence[str], has_apt: bool) -> str | None:
    """Why this machine cannot raise a lab, as one sentence, or None."""
    if not platform.startswith("linux"):
        return f"A lab needs Linux under it, and this machine runs '{platform}': use a Debian or Ubuntu machine."
    if not has_apt:
        return "A lab is made from this machine's own packages, and it has no apt-get: use a Debian or Ubuntu machine."
    if user != 0:
        also = f" Missing packages: {', '.join(missing)}." if missing else ""
        return f"Raising a lab makes network interfaces and mounts and so needs root: run it as root.{also}"
    return None
