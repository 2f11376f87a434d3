# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What of a host matters to its GPUs: the driver's module, the processor, memory, disks and fast networks.

Reads /proc and /sys below a root directory, so that a test can bring its own; what is missing there is unknown.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Set, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import (
    Cpu,
    Driver,
    FabricManager,
    Host,
    Infiniband,
    NumaNode,
    Nvme,
)
from ansible_collections.bedplate.llm.plugins.module_utils.processes import parse_show

MODULE_VERSION = "proc/driver/nvidia/version"
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_LIBRARY_FOLDERS = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib")
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)*")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _line(path: Path) -> str:
    return _text(path).strip()


def _children(folder: Path) -> List[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _number(text: str) -> Optional[int]:
    return int(text) if re.fullmatch(r"\d+", text) else None


# --- the driver -----------------------------------------------------------------------------------------------------


def parse_module_version(text: str) -> Tuple[Optional[str], Optional[bool]]:
    """Version and openness: 'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build …'."""
    line = next((line for line in text.splitlines() if line.startswith("NVRM")), "")
    match = _VERSION.search(re.sub(r"x86_64|aarch64", "", line))
    return (match[0], "Open Kernel Module" in line) if match else (None, None)


def read_module(root: Path) -> Driver:
    """The module that is loaded."""
    version, openness = parse_module_version(_text(root / MODULE_VERSION))
    return Driver(module_version=version, module_open=openness)


def library_version(root: Path, name: str = "libnvidia-ml.so.1") -> Optional[str]:
    """The installed library's version by the name of the file that it leads to, for when nobody can ask it."""
    for folder in _LIBRARY_FOLDERS:
        link = root / folder / name
        if link.exists():
            match = re.search(r"\.so\.(\d+\.\d+(?:\.\d+)*)$", str(link.resolve()))
            if match:
                return match[1]
    return None


def parse_fabric_manager(show: str, version: str) -> FabricManager:
    """From `systemctl show` (LoadState, ActiveState) and `nv-fabricmanager --version`."""
    properties = parse_show(show)
    match = _VERSION.search(version)
    installed = properties.get("LoadState") == "loaded" or bool(match)
    return FabricManager(installed, match[0] if match else None, properties.get("ActiveState") if installed else None)


def secure_boot(variable: bytes) -> Optional[bool]:
    """The firmware's variable: four bytes of attributes, then the value."""
    return variable[4] == 1 if len(variable) == 5 else None


def read_secure_boot(root: Path) -> Optional[bool]:
    """None where there is no such firmware."""
    try:
        return secure_boot((root / _SECURE_BOOT).read_bytes())
    except OSError:
        return None


# --- the processor --------------------------------------------------------------------------------------------------


def parse_cpu(text: str, architecture: str) -> Cpu:
    """/proc/cpuinfo; the flags are those of the first processor."""
    blocks = [_block(block) for block in text.split("\n\n") if block.strip()]
    processors = [block for block in blocks if "processor" in block]
    if not processors:
        return Cpu(architecture=architecture)
    first = processors[0]
    flags = set((first.get("flags") or first.get("Features") or "").split())
    sockets = {block.get("physical id", "0") for block in processors}
    cores = {(block.get("physical id", "0"), block.get("core id", block["processor"])) for block in processors}
    return Cpu(
        model=first.get("model name"),
        architecture=architecture,
        sockets=len(sockets),
        cores=len(cores),
        threads=len(processors),
        amx="amx_tile" in flags,
        avx512=tuple(sorted(flag for flag in flags if flag.startswith("avx512"))),
        vnni=bool(flags & {"avx512_vnni", "avx_vnni"}),
        sgx="sgx" in flags,
        tdx=bool(flags & {"tdx_guest", "tdx_host_platform"}),
        sev=tuple(sorted(flags & _SEV)),
    )


_SEV: Set[str] = {"sev", "sev_es", "sev_snp", "sev_guest"}


def _block(text: str) -> Dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


# --- memory, disks, networks ----------------------------------------------------------------------------------------


def parse_meminfo(text: str) -> Mapping[str, int]:
    """Bytes by name; a node's lines begin with 'Node 0 '."""
    return {key: int(number) * 1024 for key, number in re.findall(r"(\w+(?:\(\w+\))?):\s+(\d+) kB", text)}


def _numa_nodes(root: Path) -> Tuple[NumaNode, ...]:
    nodes: List[NumaNode] = []
    for folder in _children(root / "sys/devices/system/node"):
        match = re.fullmatch(r"node(\d+)", folder.name)
        if match:
            total = parse_meminfo(_text(folder / "meminfo")).get("MemTotal")
            nodes.append(NumaNode(int(match[1]), _line(folder / "cpulist"), total))
    return tuple(sorted(nodes, key=lambda node: node.node))


def _nvme(root: Path) -> Tuple[Nvme, ...]:
    """One for each namespace that has a block device."""
    found: List[Nvme] = []
    for folder in _children(root / "sys/block"):
        if re.fullmatch(r"nvme\d+n\d+", folder.name):
            sectors = _number(_line(folder / "size"))
            found.append(
                Nvme(
                    name=folder.name,
                    model=_line(folder / "device/model") or None,
                    size_bytes=None if sectors is None else sectors * 512,
                    numa_node=_number(_line(folder / "device/numa_node")),
                )
            )
    return tuple(found)


def _infiniband(root: Path) -> Tuple[Infiniband, ...]:
    found: List[Infiniband] = []
    for device in _children(root / "sys/class/infiniband"):
        for port in _children(device / "ports"):
            found.append(
                Infiniband(
                    device=device.name,
                    port=int(port.name),
                    state=_line(port / "state").partition(": ")[2].lower() or None,
                    rate=_line(port / "rate") or None,
                    link_layer=_line(port / "link_layer") or None,
                    numa_node=_number(_line(device / "device/numa_node")),
                )
            )
    return tuple(found)


def read(root: Path) -> Host:
    memory = parse_meminfo(_text(root / "proc/meminfo"))
    return Host(
        cpu=parse_cpu(_text(root / "proc/cpuinfo"), platform.machine()),
        memory_total_bytes=memory.get("MemTotal"),
        memory_available_bytes=memory.get("MemAvailable"),
        numa_nodes=_numa_nodes(root),
        nvme=_nvme(root),
        infiniband=_infiniband(root),
        nouveau_loaded=(root / "sys/module/nouveau").is_dir(),
        secure_boot=read_secure_boot(root),
    )
