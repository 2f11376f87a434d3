# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads a host's driver: files below a root directory, and the host's own tools through `run`.

Nothing here changes anything, and a tool that the host does not have leaves its facts unknown.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, Optional, Set, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import driver_parse as parse
from ansible_collections.bedplate.llm.plugins.module_utils import gpu_holders, gpu_host
from ansible_collections.bedplate.llm.plugins.module_utils.dkms import (
    Run,
    boot_images,
    has_headers,
    headers_package,
    signing_key,
)
from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import (
    OPEN,
    PROPRIETARY,
    DriverFacts,
    Gpu,
    Initramfs,
    Kernel,
    Module,
    Package,
    Service,
    System,
)
from ansible_collections.bedplate.llm.plugins.module_utils.driver_packages import (
    is_drivers,
    is_kernels,
)
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import GpuFacts
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_generations import find
from ansible_collections.bedplate.llm.plugins.module_utils.preflight import parse_os_release
from ansible_collections.bedplate.llm.plugins.module_utils.processes import parse_show

_LOADER_FILES = ("grub/grub.cfg", "grub2/grub.cfg", "loader/entries/*.conf")
_MODPROBE = ("etc/modprobe.d", "usr/lib/modprobe.d", "lib/modprobe.d", "run/modprobe.d")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def system(root: Path, run: Run) -> System:
    release = parse_os_release(_text(root / "etc/os-release") or _text(root / "usr/lib/os-release"))
    manager = "apt" if run(["apt-get", "--version"]) else "dnf" if run(["dnf", "--version"]) else ""
    return System(
        distribution=release.get("ID", ""),
        version=release.get("VERSION_ID", ""),
        machine=platform.machine(),
        running_kernel=platform.release(),
        manager=manager,
        init=(root / "run/systemd/system").is_dir(),
    )


def codename(root: Path) -> str:
    name: str = parse_os_release(_text(root / "etc/os-release")).get("VERSION_CODENAME", "")
    return name


# --- kernels --------------------------------------------------------------------------------------------------------


def modprobe_files(root: Path) -> Mapping[str, Path]:
    """Files of modprobe's configuration by name; the administrator's hides the packages' of the same name."""
    found: Dict[str, Path] = {}
    for folder in _MODPROBE:
        for path in sorted((root / folder).glob("*.conf")):
            found.setdefault(path.name, path)
    return found


def module_of(release: str, name: str, run: Run) -> Optional[Module]:
    """The module that `modprobe nvidia` would load into that kernel."""
    for candidate in dict.fromkeys([name, *parse.MODULE_NAMES]):
        found = parse.parse_modinfo(run(["modinfo", "-k", release, candidate]) or "")
        if found:
            return found
    return None


def _redirected(run: Run) -> str:
    return str(parse.redirected(run(["modprobe", "--showconfig"]) or ""))


def _initramfs(root: Path, release: str, newest: float, blocking: Iterable[str], run: Run) -> Optional[Initramfs]:
    for name in (f"initrd.img-{release}", f"initramfs-{release}.img"):
        path = root / "boot" / name
        if path.is_file():
            listing = run(["lsinitramfs", str(path)]) or run(["lsinitrd", str(path)])
            nouveau, blocks = parse.initramfs_content(listing, blocking) if listing else (None, None)
            return Initramfs(str(path), nouveau, blocks, path.stat().st_mtime < newest)
    return None


def kernels(root: Path, here: System, run: Run) -> Tuple[Kernel, ...]:
    """Kernels with an image in /boot: each of them could be the next one, whatever the boot loader prefers today."""
    names = [path.name for path in (root / "boot").glob("vmlinu*")]
    listed: Set[str] = set()
    for pattern in _LOADER_FILES:
        for path in (root / "boot").glob(pattern):
            listed |= parse.loader_entries(_text(path))
    name = _redirected(run)
    files = modprobe_files(root)
    blocking = [file for file, path in files.items() if parse.blocks_nouveau(_text(path))]
    ours = [path for file, path in files.items() if file.startswith("bedplate-")]
    newest = max([path.stat().st_mtime for path in ours], default=0.0)
    return tuple(
        Kernel(
            release=release,
            running=release == here.running_kernel,
            listed=release in listed if listed else None,
            headers=has_headers(root, release),
            headers_package=headers_package(here, release),
            module=module_of(release, name, run),
            initramfs=_initramfs(root, release, newest, blocking, run),
        )
        for release in boot_images(names)
    )


# --- packages -------------------------------------------------------------------------------------------------------


def installed(here: System, run: Run) -> List[Package]:
    """Everything that is installed."""
    if here.manager == "apt":
        return list(parse.parse_dpkg(run(["dpkg-query", "--show", f"--showformat={parse.DPKG_FORMAT}"]) or ""))
    if here.manager == "dnf":
        listing = run(["rpm", "--query", "--all", "--queryformat", parse.RPM_FORMAT]) or ""
        return list(parse.parse_rpm(listing, run(["dnf", "--quiet", "versionlock", "list"]) or ""))
    return []


def sort_out(found: Iterable[Package]) -> Tuple[Tuple[Package, ...], Tuple[Package, ...]]:
    """The driver's packages, and the kernels'."""
    found = list(found)
    return (
        tuple(package for package in found if is_drivers(package.name)),
        tuple(package for package in found if is_kernels(package.name)),
    )


def unattended_away(here: System, run: Run) -> Optional[bool]:
    """Whether unattended-upgrades is told to leave the driver alone; None where there is no apt."""
    if here.manager != "apt":
        return None
    text = run(["apt-config", "dump", "--no-empty", "Unattended-Upgrade::Package-Blacklist"]) or ""
    return all(f'"{name}";' in text for name in ("nvidia", "libnvidia"))


# --- services -------------------------------------------------------------------------------------------------------


def service(here: System, unit: str, run: Run) -> Service:
    if not here.init:
        return Service()
    shown = parse_show(run(["systemctl", "show", unit, "-p", "LoadState,ActiveState,UnitFileState"]) or "")
    if not shown:
        return Service()
    installed = shown.get("LoadState") == "loaded"
    return Service(installed, shown.get("UnitFileState") == "enabled", shown.get("ActiveState") == "active")


# --- all of it ------------------------------------------------------------------------------------------------------


def gpus(facts: GpuFacts) -> Tuple[Gpu, ...]:
    """As gpu_info knows them, with what the table of products says of their modules."""
    found = []
    for gpu in facts.gpus:
        product = find(gpu.name) if gpu.name else None
        found.append(
            Gpu(
                name=re.sub(r"^NVIDIA ", "", gpu.name or gpu.label),
                product=product.name if product else None,
                architecture=product.architecture if product else gpu.architecture,
                open_module=product.open_kernel_module if product else None,
                link=product.link if product else None,
            )
        )
    return tuple(found)


def look(root: Path, run: Run, hardware: GpuFacts) -> DriverFacts:
    here = system(root, run)
    loaded = gpu_host.read_module(root)
    drivers, kernel_packages = sort_out(installed(here, run))
    bootable = kernels(root, here, run)
    running = next((kernel for kernel in bootable if kernel.running), None)
    key, enrolled = signing_key(root, run)
    manager = hardware.fabric_manager
    fabric = service(here, "nvidia-fabricmanager.service", run)
    if manager is not None and manager.installed:
        fabric = Service(True, fabric.enabled, fabric.active, manager.version or "")
    files = modprobe_files(root)
    return DriverFacts(
        system=here,
        kernels=bootable,
        gpus=gpus(hardware),
        nvswitches=hardware.nvswitches,
        loaded_version=loaded.module_version,
        loaded_kind=None if loaded.module_open is None else (OPEN if loaded.module_open else PROPRIETARY),
        running_module=running.module if running else module_of(here.running_kernel, _redirected(run), run),
        nouveau_loaded=hardware.host.nouveau_loaded,
        nouveau_blocked=any(parse.blocks_nouveau(_text(path)) for path in files.values()),
        library_version=gpu_host.library_version(root),
        packages=drivers,
        kernel_packages=kernel_packages,
        dkms=tuple(line for line in (run(["dkms", "status"]) or "").splitlines() if "nvidia" in line),
        unattended_away=unattended_away(here, run),
        secure_boot=hardware.host.secure_boot,
        signing_key=key,
        signing_key_enrolled=enrolled,
        holders=tuple(gpu_holders.holders(root)),
        fabric_manager=fabric,
        persistence=service(here, "nvidia-persistenced.service", run),
    )
