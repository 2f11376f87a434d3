# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is on the bus, from sysfs: the GPUs of a host that has no driver yet."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import Gpu, PciLink, Reading, SourceError

DEVICES = "sys/bus/pci/devices"
_VENDOR = "0x10de"
_GPU_CLASS, _BRIDGE_CLASS = "0x03", "0x0680"

# By PCI device id, names as gpu_generations knows them.  An id that is missing here is shown as it is.
NAMES = {
    "1db1": "V100-SXM2-16GB",
    "1db5": "V100-SXM2-32GB",
    "1eb8": "T4",
    "20b0": "A100-SXM4-40GB",
    "20b2": "A100-SXM4-80GB",
    "20b5": "A100 80GB PCIe",
    "20f1": "A100-PCIE-40GB",
    "20f3": "A800-SXM4-80GB",
    "20f5": "A800 80GB PCIe",
    "2204": "RTX 3090",
    "2235": "A40",
    "2236": "A10",
    "2321": "H100 NVL",
    "2324": "H800",
    "2329": "H20",
    "2330": "H100 80GB HBM3",
    "2331": "H100 PCIe",
    "2335": "H200",
    "233b": "H200 NVL",
    "2684": "RTX 4090",
    "26b1": "RTX 6000 Ada Generation",
    "26b5": "L40",
    "26b9": "L40S",
    "27b8": "L4",
    "2901": "B200",
    "2941": "GB200",
    "2b85": "RTX 5090",
}

# The kernel writes transfers per second, NVIDIA counts generations.
_GENERATIONS = {"2.5": 1, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}


@dataclass(frozen=True)
class Bus:
    """NVIDIA's devices: GPUs as facts, and how many NVSwitches."""

    gpus: Tuple[Gpu, ...] = ()
    nvswitches: int = 0


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(text: str) -> Optional[int]:
    """A node of -1 is none."""
    return int(text) if re.fullmatch(r"\d+", text) else None


def generation(speed: str) -> Optional[int]:
    """'32.0 GT/s PCIe' is generation 5; kernels before 5.7 write '8 GT/s'."""
    match = re.match(r"(\d+(?:\.\d+)?) GT/s", speed)
    return _GENERATIONS.get(f"{float(match[1]):.1f}") if match else None


def _gpu(index: int, device: Path) -> Gpu:
    number = _line(device / "device").partition("x")[2].lower()
    driver = device / "driver"
    return Gpu(
        index=index,
        name=f"NVIDIA {NAMES.get(number, f'device {number}')}",
        pci_address=device.name,
        pci_device_id=number,
        kernel_driver=driver.resolve().name if driver.exists() else None,
        link=PciLink(
            generation=generation(_line(device / "current_link_speed")),
            generation_max=generation(_line(device / "max_link_speed")),
            # A link that is down has the width 255.
            width=_width(_line(device / "current_link_width")),
            width_max=_width(_line(device / "max_link_width")),
        ),
        numa_node=_number(_line(device / "numa_node")),
        cpu_affinity=_line(device / "local_cpulist") or None,
    )


def _width(text: str) -> Optional[int]:
    width = _number(text)
    return width if width and width <= 32 else None


def scan(root: Path) -> Bus:
    """Every NVIDIA device below the root directory of a system, in the order of the bus, as the driver counts."""
    folder = root / DEVICES
    devices = sorted(folder.iterdir()) if folder.is_dir() else []
    ours = [(device, _line(device / "class")) for device in devices if _line(device / "vendor") == _VENDOR]
    gpus = [device for device, kind in ours if kind.startswith(_GPU_CLASS)]
    return Bus(
        tuple(_gpu(index, device) for index, device in enumerate(gpus)),
        sum(kind.startswith(_BRIDGE_CLASS) for _device, kind in ours),
    )


def read(bus: Bus) -> Reading:
    """The bus as a source: the last one, which knows neither memory nor health."""
    if not bus.gpus:
        raise SourceError("No NVIDIA GPU is on the PCI bus.")
    return Reading(bus.gpus)
