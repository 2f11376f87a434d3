# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which packages a driver is made of, by whose packages they are, distribution, branch and kind of module.

Compute only: no desktop.  Debian's names are tried by the Molecule scenario gpu_host; Ubuntu's, NVIDIA's and those of
the RHEL family follow their guides and have not yet run on hardware.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Iterable, List, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import OPEN, Kernel, Package, System, Wanted
from ansible_collections.bedplate.llm.plugins.module_utils.driver_kind import NVLINK5

DKMS, PREBUILT = "dkms", "prebuilt"

# From this branch on NVIDIA's Ubuntu packages have no branch in their names, and its fabric manager none from 580 on.
_NO_BRANCH_IN_NAME, _FABRIC_NO_BRANCH = 590, 580

# What belongs to a driver, and what merely sounds like it and is somebody else's to hold.
PATTERNS = (
    "*nvidia*",
    "libcuda1*",
    "libcudadebugger1*",
    "libnvcuvid1*",
    "libnvoptix1*",
    "libnvsdm*",
    "nvlsm",
    "cuda-drivers*",
    "cuda-compat*",
)
_OTHERS = (
    "nvidia-container*",
    "libnvidia-container*",
    "nvidia-docker*",
    "nvidia-cuda-*",
    "nvidia-fs*",
    "nvidia-detect",
    "nvidia-settings*",
    "*nvidia-nccl*",
    "python3-*",
    "cuda-compat*",
)
_KERNEL_PATTERNS = ("linux-image-*", "linux-headers-*", "linux-generic*", "linux-virtual*", "kernel", "kernel-*")
_NOT_KERNELS = ("*-dbg", "kernel-srpm*", "kernel-rpm*", "kernel-tools*")


@dataclass(frozen=True)
class PackageSet:
    """What to install.  `exact` carry the driver's version; `beside` have versions of their own."""

    kind: str
    build: str
    exact: Tuple[str, ...]
    beside: Tuple[str, ...] = ()
    module_stream: str = ""

    @property
    def names(self) -> Tuple[str, ...]:
        return (*self.exact, *self.beside)


def is_drivers(name: str) -> bool:
    """Whether a package is a part of the driver."""
    plain = name.partition(":")[0]
    return any(fnmatchcase(plain, pattern) for pattern in PATTERNS) and not any(
        fnmatchcase(plain, pattern) for pattern in _OTHERS
    )


def is_kernels(name: str) -> bool:
    plain = name.partition(":")[0]
    return any(fnmatchcase(plain, pattern) for pattern in _KERNEL_PATTERNS) and not any(
        fnmatchcase(plain, pattern) for pattern in _NOT_KERNELS
    )


def upstream(version: str) -> str:
    """535.261.03 of 535.261.03-1, of 3:580.95.05-1.el9 and of 580.95.05-0ubuntu0.24.04.1."""
    return re.split(r"[-+~]", version.partition(":")[2] or version, maxsplit=1)[0]


def choose(version: str, offered: Sequence[str]) -> Optional[str]:
    """The newest package version that is of that driver version; `offered` is newest first."""
    return next((candidate for candidate in offered if upstream(candidate) == version), None)


def flavour(release: str) -> str:
    """generic of 6.8.0-50-generic."""
    return re.sub(r"^\d[\d.]*-\d+-", "", release)


# --- the sets -------------------------------------------------------------------------------------------------------


def _debian(wanted: Wanted, kind: str, _kernels: Sequence[Kernel], fabric: str) -> PackageSet:
    # Debian has no fabric manager; the name below is in no list of its packages, so that the refusal names it.
    module = "nvidia-open-kernel-dkms" if kind == OPEN else "nvidia-kernel-dkms"
    libraries = ("libcuda1", "libnvidia-cfg1", "libnvidia-ml1", "libnvidia-nvvm4", "libnvidia-ptxjitcompiler1")
    exact = ["firmware-nvidia-gsp", *libraries, module, "nvidia-smi"]
    if fabric:
        exact.append("nvidia-fabricmanager")
    return PackageSet(kind, DKMS, tuple(exact), _persistence(wanted, "nvidia-persistenced"))


def _ubuntu(wanted: Wanted, kind: str, kernels: Sequence[Kernel], fabric: str) -> PackageSet:
    name, suffix = f"{wanted.branch}-server", "-open" if kind == OPEN else ""
    userspace = [f"libnvidia-compute-{name}", f"nvidia-compute-utils-{name}", f"nvidia-utils-{name}"]
    if fabric:
        userspace += [f"nvidia-fabricmanager-{wanted.branch}", f"libnvidia-nscq-{wanted.branch}"]
    if wanted.build == DKMS:
        return PackageSet(kind, DKMS, (f"nvidia-dkms-{name}{suffix}", *userspace))
    # Signed by Canonical, one package for each kernel; these have the kernel's version and demand the driver's.
    modules = tuple(f"linux-modules-nvidia-{name}{suffix}-{kernel.release}" for kernel in kernels)
    return PackageSet(kind, PREBUILT, (f"nvidia-kernel-common-{name}", *userspace), modules)


def _vendor_debian(wanted: Wanted, kind: str, _kernels: Sequence[Kernel], fabric: str) -> PackageSet:
    module = "nvidia-kernel-open-dkms" if kind == OPEN else "nvidia-kernel-dkms"
    exact = (module, "nvidia-driver-cuda", *_persistence(wanted, "nvidia-persistenced"), *_fabric(wanted, fabric))
    return PackageSet(kind, DKMS, exact, _subnet_manager(fabric))


def _vendor_ubuntu(wanted: Wanted, kind: str, _kernels: Sequence[Kernel], fabric: str) -> PackageSet:
    branch = "" if wanted.branch >= _NO_BRANCH_IN_NAME else f"-{wanted.branch}"
    module = f"nvidia-dkms{branch}" + ("-open" if kind == OPEN else "")
    userspace = (f"libnvidia-compute{branch}", f"nvidia-compute-utils{branch}", f"nvidia-utils{branch}")
    return PackageSet(kind, DKMS, (module, *userspace, *_fabric(wanted, fabric)), _subnet_manager(fabric))


def _vendor_rhel(wanted: Wanted, kind: str, major: str, fabric: str) -> PackageSet:
    """RHEL 9 chooses a branch by a module stream, RHEL 10 has none and is locked by version alone."""
    module = "kmod-nvidia-open-dkms" if kind == OPEN else "kmod-nvidia-latest-dkms"
    stream = f"nvidia-driver:{wanted.branch}-{'open' if kind == OPEN else 'dkms'}" if int(major) < 10 else ""
    exact = (module, "nvidia-driver-cuda", *_persistence(wanted, "nvidia-persistenced"), *_fabric(wanted, fabric))
    return PackageSet(kind, DKMS, exact, _subnet_manager(fabric), stream)


def _persistence(wanted: Wanted, name: str) -> Tuple[str, ...]:
    return (name,) if wanted.persistence else ()


def _fabric(wanted: Wanted, fabric: str) -> Tuple[str, ...]:
    """NVIDIA's names; fabric manager and switch libraries have exactly the driver's version."""
    if not fabric:
        return ()
    branch = "" if wanted.branch >= _FABRIC_NO_BRANCH else f"-{wanted.branch}"
    return (f"nvidia-fabricmanager{branch}", f"libnvidia-nscq{branch}")


def _subnet_manager(fabric: str) -> Tuple[str, ...]:
    return ("nvlsm",) if fabric == NVLINK5 else ()


def package_set(
    system: System, wanted: Wanted, kind: str, kernels: Sequence[Kernel], fabric: str = ""
) -> Optional[PackageSet]:
    """None where nobody offers such packages: a RHEL brings no driver of NVIDIA's."""
    if system.family == "rhel":
        return _vendor_rhel(wanted, kind, system.major, fabric) if wanted.packaging == "vendor" else None
    make = {
        ("debian", "distribution"): _debian,
        ("ubuntu", "distribution"): _ubuntu,
        ("debian", "vendor"): _vendor_debian,
        ("ubuntu", "vendor"): _vendor_ubuntu,
    }[system.distribution, wanted.packaging]
    return make(wanted, kind, kernels, fabric)


def is_other_kind(name: str, kind: str) -> bool:
    """Whether a package carries the module that is not wanted: beside the other one, nobody knows which is loaded."""
    carries = re.search(r"kernel-(?:open-)?(?:dkms|support|source)|dkms|^kmod-|^linux-modules-|^linux-objects-", name)
    return bool(carries) and is_drivers(name) and ("open" in name) != (kind == OPEN)


def missing_headers(packages: PackageSet, kernels: Sequence[Kernel]) -> Tuple[str, ...]:
    """Packages with the headers of kernels that have none, where a module is to be built."""
    if packages.build != DKMS:
        return ()
    return tuple(kernel.headers_package for kernel in kernels if not kernel.headers)


# --- files of apt ---------------------------------------------------------------------------------------------------


def pin(version: str) -> str:
    """Preferences that keep apt at one version: also what the named packages depend on, and where nothing is held."""
    names = " ".join(pattern for pattern in PATTERNS if pattern not in _OTHERS)
    return f"Package: {names}\nPin: version {version}-*\nPin-Priority: 1001\n" if version else ""


def components(system: System) -> Tuple[str, ...]:
    """Where the distribution keeps drivers, beside its main part."""
    if system.distribution == "ubuntu":
        return ("restricted", "multiverse")
    return ("contrib", "non-free", "non-free-firmware")


@dataclass(frozen=True)
class Repository:
    """One package list of apt's configuration (`apt-get indextargets`)."""

    uri: str
    suite: str
    component: str
    file: str
    signed_by: str = ""


def sources(system: System, codename: str, repositories: Iterable[Repository], ours: str) -> str:
    """A deb822 file for the parts of the distribution that are not switched on yet, from the host's own mirrors.

    `ours` is the file's own path: what it says itself does not count, or the next run would empty it.
    """
    suites = {codename, f"{codename}-updates", f"{codename}-security"}
    found = [repository for repository in repositories if repository.suite in suites and repository.file != ours]
    stanzas: List[str] = []
    for base in found:
        if base.component != "main":
            continue
        there = {item.component for item in found if (item.uri, item.suite) == (base.uri, base.suite)}
        absent = [component for component in components(system) if component not in there]
        if absent:
            lines = ["Types: deb", f"URIs: {base.uri}", f"Suites: {base.suite}", f"Components: {' '.join(absent)}"]
            stanzas.append("\n".join([*lines, *([f"Signed-By: {base.signed_by}"] if base.signed_by else [])]) + "\n")
    return "\n".join(dict.fromkeys(stanzas))


def to_hold(packages: Iterable[Package], kernels: Iterable[Package], hold_kernel: bool) -> Tuple[str, ...]:
    """Installed packages that are not held and should be."""
    wanted = [*packages, *(kernels if hold_kernel else ())]
    return tuple(sorted(package.name for package in wanted if not package.held))
