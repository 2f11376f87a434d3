# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every kernel module shares that is built on its host: the kernels that could boot next, their headers, the key
that signs it where the firmware asks for one, and what DKMS says when it fails."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable, Iterable, List, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import System

# Standard output of a command; None when it is missing or fails.
Run = Callable[[Sequence[str]], Optional[str]]

_SIGNING_KEYS = ("var/lib/shim-signed/mok/MOK.der", "var/lib/dkms/mok.pub")


# --- kernels --------------------------------------------------------------------------------------------------------


def release_key(release: str) -> List[Tuple[int, str]]:
    """Sorts 6.1.0-9 before 6.1.0-10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.findall(r"\d+|[a-z]+", release)]


def boot_images(names: Iterable[str]) -> List[str]:
    """Releases by the files of /boot; a rescue image is none of them, since nothing is installed for it."""
    found = [match[1] for match in (re.fullmatch(r"(?:vmlinuz|vmlinux)-(\d.*)", name) for name in names) if match]
    return sorted((release for release in found if not release.startswith("0-rescue")), key=release_key)


def has_headers(root: Path, release: str) -> bool:
    return (root / "lib/modules" / release / "build" / "Makefile").is_file()


def headers_package(system: System, release: str) -> str:
    return f"linux-headers-{release}" if system.family == "debian" else f"kernel-devel-{release}"


def no_headers(kernels: Sequence[str], names: Iterable[str]) -> str:
    return (
        f"Kernel {', '.join(kernels)} could boot next, has no headers, and the package sources have no"
        f" {', '.join(sorted(names))}: no module can be built for it; provide that package, or install a newer"
        " kernel, boot it, and remove this one."
    )


def failed_builds(text: str) -> Tuple[str, ...]:
    """Kernels for which DKMS could not build the module."""
    found = re.findall(r"Bad return status for module build on kernel: (\S+)", text)
    return tuple(dict.fromkeys(found))


# --- Secure Boot ----------------------------------------------------------------------------------------------------


def parse_test_key(text: str) -> Optional[bool]:
    """`mokutil --test-key`: its exit status differs between versions, its words do not."""
    if "already enrolled" in text:
        return True
    return False if "not enrolled" in text else None


def signing_key(root: Path, run: Run) -> Tuple[str, Optional[bool]]:
    """The certificate that DKMS signs with, and whether the firmware's list has it."""
    for name in _SIGNING_KEYS:
        if (root / name).is_file():
            path = f"/{name}"
            return path, parse_test_key(run(["mokutil", "--test-key", path]) or "")
    return "", None


def not_enrolled(key: str) -> str:
    """A module that is built here is signed by a key that the firmware has to be told of first."""
    if key:
        step = (
            f'run `mokutil --import {key}` there, restart it, choose "Enroll MOK" at its console with the'
            " password that you gave, and run this again"
        )
    else:
        step = (
            "install dkms and mokutil there, run `dkms generate_mok` and `mokutil --import /var/lib/dkms/mok.pub`,"
            ' restart it, choose "Enroll MOK" at its console with the password that you gave, and run this again'
        )
    return (
        "Secure Boot is on, and it would refuse a module that is built on this host, since the key that signs it is"
        f" not enrolled: {step}; or switch Secure Boot off."
    )
