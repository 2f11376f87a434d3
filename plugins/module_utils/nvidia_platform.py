# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a platform is called in NVIDIA's repositories, and what by the distribution: the one place for these names."""

from __future__ import annotations

import re
from typing import Dict, Mapping, Optional, Tuple

CUDA_REPOSITORIES = "https://developer.download.nvidia.com/compute/cuda/repos"

# kernel's name -> (NVIDIA's, Debian's).  NVIDIA calls a 64-bit Arm server "sbsa"; its "aarch64" is the Jetson boards.
_ARCHITECTURES: Mapping[str, Tuple[str, str]] = {
    "x86_64": ("x86_64", "amd64"),
    "amd64": ("x86_64", "amd64"),
    "aarch64": ("sbsa", "arm64"),
    "arm64": ("sbsa", "arm64"),
}

# By the names of Ansible's facts and of /etc/os-release, in lower case.
_REBUILDS_OF_RHEL = ("redhat", "rhel", "rocky", "almalinux", "centos", "oraclelinux", "ol")
_SUPPORTED: Mapping[str, Tuple[str, ...]] = {
    "debian": ("12", "13"),
    "ubuntu": ("22.04", "24.04"),
    "rhel": ("9", "10"),
}

# The primary keys that sign the repositories: what many independent users of each have pinned (November 2026), not
# confirmed with NVIDIA.  No user's pin is known here for RHEL 10; such a site states the fingerprint itself.
_KEY_2022 = "EB693B3035CD5710E231E123A4B469963BF863CC"
_KEY_2025 = "02182E60104FCDC26EAE1B8597A5D4CB8793F200"
KEYS: Mapping[str, str] = {
    "debian12": _KEY_2022,
    "debian13": _KEY_2025,
    "ubuntu2204": _KEY_2022,
    "ubuntu2404": _KEY_2022,
    "rhel9": _KEY_2022,
}


class PlatformError(ValueError):
    """The platform is not supported; the message is one sentence for the user."""


def _architecture(machine: str) -> Tuple[str, str]:
    try:
        return _ARCHITECTURES[machine.strip().lower()]
    except KeyError:
        raise PlatformError(
            f"The architecture {machine!r} is not supported: NVIDIA's data-centre packages are used here for x86_64 and"
            " aarch64; take such a host out of the group."
        ) from None


def nvidia_arch(machine: str) -> str:
    """The folder in NVIDIA's repositories for what `uname -m` says: x86_64 or sbsa."""
    return _architecture(machine)[0]


def deb_arch(machine: str) -> str:
    """Debian's name for what `uname -m` says: amd64 or arm64."""
    return _architecture(machine)[1]


def rpm_arch(machine: str) -> str:
    """RPM's name for what `uname -m` says: x86_64 or aarch64."""
    return {"amd64": "x86_64", "arm64": "aarch64"}[deb_arch(machine)]


def repo_distribution(distribution: str, version: str) -> str:
    """The folder in NVIDIA's repositories: debian12, ubuntu2404, rhel9 (also for RHEL's rebuilds)."""
    family = distribution.strip().lower()
    if family in _REBUILDS_OF_RHEL:
        family = "rhel"
    known = _SUPPORTED.get(family, ())
    match = re.match(r"\d+(?:\.\d+)?", version.strip())
    number = match.group() if match else ""
    # Of Ubuntu, 24.04 and 24.10 are two systems; of the others, the number before the point is the system.
    release = number if family == "ubuntu" else number.partition(".")[0]
    if release not in known:
        supported = "; ".join(f"{name} {' and '.join(versions)}" for name, versions in _SUPPORTED.items())
        raise PlatformError(
            f"The system {distribution} {version} is not supported: packages of NVIDIA are used here on {supported}"
            " (and on rebuilds of rhel); use one of these, or take the host out of the group."
        )
    return family + release.replace(".", "")


def cuda_repository(distribution: str, version: str, machine: str) -> str:
    """The address of NVIDIA's network repository with drivers and CUDA."""
    folder, architecture = repo_distribution(distribution, version), nvidia_arch(machine)
    if architecture == "sbsa" and folder.startswith("debian"):
        raise PlatformError(
            f"NVIDIA has no network repository for {folder} on sbsa (64-bit Arm): use Ubuntu or RHEL there, the"
            " distribution's packages, or a mirror of your own."
        )
    return f"{CUDA_REPOSITORIES}/{folder}/{architecture}/"


def key_fingerprint(distribution: str, version: str) -> Optional[str]:
    """The fingerprint of the key that signs NVIDIA's network repository for that system; None where it is not known."""
    return KEYS.get(repo_distribution(distribution, version))


def describe(distribution: str, version: str, machine: str) -> Dict[str, str]:
    """All names of a platform; the repository is empty where NVIDIA has none, the fingerprint where it is not known."""
    try:
        repository = cuda_repository(distribution, version, machine)
    except PlatformError:
        repository = ""
    return {
        "nvidia_arch": nvidia_arch(machine),
        "deb_arch": deb_arch(machine),
        "rpm_arch": rpm_arch(machine),
        "distribution": repo_distribution(distribution, version),
        "cuda_repository": repository,
        "cuda_key_fingerprint": key_fingerprint(distribution, version) or "",
    }
