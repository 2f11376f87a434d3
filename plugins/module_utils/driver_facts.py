# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is known of a host's NVIDIA driver: kernels and their modules, packages, what is loaded, who uses it.

None is what could not be found out; it is never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import List, Mapping, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.gpu_holders import Holder

OPEN, PROPRIETARY = "open", "proprietary"


@dataclass(frozen=True)
class Module:
    """NVIDIA's module as it lies on disk for one kernel: the one that `modprobe nvidia` would load there."""

    version: str
    kind: str
    signer: str = ""
    name: str = "nvidia"


@dataclass(frozen=True)
class Initramfs:
    """What the kernel has before the root file system; stale when a module setting is newer than it."""

    path: str
    nouveau: Optional[bool] = None
    blocks_nouveau: Optional[bool] = None
    stale: bool = False


@dataclass(frozen=True)
class Kernel:
    """A kernel that could boot next."""

    release: str
    running: bool = False
    listed: Optional[bool] = None
    headers: bool = False
    headers_package: str = ""
    module: Optional[Module] = None
    initramfs: Optional[Initramfs] = None


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    held: bool = False
    complete: bool = True


@dataclass(frozen=True)
class Gpu:
    """What of a GPU decides about its driver; product is None when our table does not know it."""

    name: str
    product: Optional[str] = None
    architecture: Optional[str] = None
    open_module: Optional[str] = None
    link: Optional[str] = None


@dataclass(frozen=True)
class Service:
    """A unit; None where there is no systemd to ask."""

    installed: Optional[bool] = None
    enabled: Optional[bool] = None
    active: Optional[bool] = None
    version: str = ""


@dataclass(frozen=True)
class System:
    """ID and VERSION_ID of os-release, what `uname` says, and which package manager there is: apt, dnf or none."""

    distribution: str
    version: str
    machine: str
    running_kernel: str
    manager: str = ""
    init: bool = True

    @property
    def label(self) -> str:
        return f"{self.distribution} {self.version} on {self.machine}"

    @property
    def family(self) -> str:
        return "debian" if self.distribution in ("debian", "ubuntu") else "rhel"

    @property
    def major(self) -> str:
        return self.version.partition(".")[0]


@dataclass(frozen=True)
class DriverFacts:
    """Everything that the decisions look at."""

    system: System
    kernels: Tuple[Kernel, ...] = ()
    gpus: Tuple[Gpu, ...] = ()
    nvswitches: int = 0
    # What the kernel has loaded now.
    loaded_version: Optional[str] = None
    loaded_kind: Optional[str] = None
    running_module: Optional[Module] = None
    nouveau_loaded: bool = False
    nouveau_blocked: bool = False
    # What is installed.
    library_version: Optional[str] = None
    packages: Tuple[Package, ...] = ()
    kernel_packages: Tuple[Package, ...] = ()
    dkms: Tuple[str, ...] = ()
    unattended_away: Optional[bool] = None
    # Secure Boot, and whether the key that DKMS signs with is enrolled.
    secure_boot: Optional[bool] = None
    signing_key: str = ""
    signing_key_enrolled: Optional[bool] = None
    holders: Tuple[Holder, ...] = ()
    fabric_manager: Service = field(default_factory=Service)
    persistence: Service = field(default_factory=Service)

    def installed(self, name: str) -> Optional[Package]:
        return next((package for package in self.packages if package.name == name), None)


@dataclass(frozen=True)
class Offers:
    """What the package sources have: versions by package, newest first, and what the transaction would do.

    removes are packages that would go; error is the resolver's own word when it cannot be done.
    """

    versions: Mapping[str, Tuple[str, ...]] = field(default_factory=dict)
    removes: Tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Wanted:
    """What the site says."""

    source: str = "distribution"
    version: str = ""
    kernel_module: str = "auto"
    build: str = "auto"
    mirror_of: str = "vendor"
    hold_kernel: bool = False
    fabric_manager: str = "auto"
    persistence: bool = True

    @property
    def branch(self) -> int:
        """580 of 580.95.05; 0 while no version is given."""
        head = self.version.partition(".")[0]
        return int(head) if head.isdigit() else 0

    @property
    def packaging(self) -> str:
        """Whose packages: a mirror has the distribution's or the vendor's."""
        return self.mirror_of if self.source == "mirror" else self.source


@dataclass(frozen=True)
class Problem:
    """Why nothing may be changed: one sentence with what to do.  The id says what it is about."""

    id: str
    sentence: str


def sentences(problems: List[Problem]) -> List[str]:
    return [problem.sentence for problem in problems]
