# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The GPUs that this collection knows: memory, rates, links, and what a driver and an engine need to know of them.

One row for each product and memory size.  Rates are dense, which is half of what data sheets print "with sparsity",
and with 32-bit accumulation where a data sheet gives a choice.  To add a product, add a row; nothing else changes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, FrozenSet, Optional, Tuple

_MIB = 1024**2

# Where a product's `memory_bytes` comes from.
MEASURED = "measured"  # NVML on a card of this project
NOMINAL = (
    "nominal"  # what nvidia-smi is published to show, or the data sheet; a driver or ECC can differ by some percent
)


@dataclass(frozen=True)
class Product:
    """One GPU product.

    name: what a user writes and a report shows.
    nvml_names: names by which NVML knows it, without "NVIDIA " and "GeForce ".
    aliases: further short names; a bare "H100" is the SXM card with the smallest memory that is common in servers.
    compute_capability: (major, minor).
    memory_bytes: total as NVML reports it; memory_source is "measured" or "nominal".
    memory_bandwidth: bytes/s of the device memory.
    bf16, fp8, fp4: dense operations/s of the tensor cores (a multiply-add is two); 0 where there is no such unit.
    link: "nvswitch" (every GPU with every other), "bridge" (groups of link_group GPUs) or "pcie".
    link_bandwidth: bytes/s of one GPU over that link, both directions together, as data sheets give it.
    peer_access: whether such cards of one host reach each other's memory without passing through the host's.
    open_kernel_module: whether NVIDIA's open kernel module is "required", "supported" or impossible ("no").
    source: where the figures come from.
    too_old: why the engine cannot serve on it; empty when it can.
    """

    name: str
    nvml_names: Tuple[str, ...]
    aliases: Tuple[str, ...]
    architecture: str
    compute_capability: Tuple[int, int]
    memory_bytes: int
    memory_source: str
    memory_bandwidth: float
    bf16: float
    fp8: float
    fp4: float
    link: str
    link_bandwidth: float
    open_kernel_module: str
    source: str
    link_group: int = 1
    peer_access: bool = True
    fp16: float = 0.0
    too_old: str = ""

    @property
    def precisions(self) -> FrozenSet[str]:
        """What its tensor cores calculate with; int4 weights are unpacked to 16 bits everywhere."""
        native = [("fp16", self.bf16 or self.fp16), ("bf16", self.bf16), ("fp8", self.fp8), ("fp4", self.fp4)]
        return frozenset(name for name, rate in native if rate)

    @property
    def link_each_way(self) -> float:
        """bytes/s that one GPU sends while it receives as much."""
        return self.link_bandwidth / 2


_Names = Tuple[str, ...]
_SHEET = "NVIDIA data sheet"
_PAPER = "NVIDIA architecture white paper, with fp32 accumulation"
_PCIE4, _PCIE5 = ("pcie", 64, 1), ("pcie", 128, 1)
_GEFORCE = ("RTX 30", "RTX 40", "RTX 50")
_NO_BRIDGE = "an optional NVLink bridge is not counted"
_NO_BF16 = "it has no bfloat16, in which the models of this collection are made"


def _product(
    generation: Tuple[str, Tuple[int, int], str],
    names: Tuple[str, _Names, _Names],
    mib: int,
    bandwidth: float,
    rates: Tuple[float, float, float],
    link: Tuple[str, float, int],
    source: str,
    measured: bool = False,
    fp16: float = 0.0,
    too_old: str = "",
) -> Product:
    """A row: our name, NVML's names, others; MiB; GB/s; TFLOP/s of bf16, fp8, fp4; the link, its GB/s, its group."""
    architecture, capability, module = generation
    bf16, fp8, fp4 = (rate * 1e12 for rate in rates)
    return Product(
        name=names[0],
        nvml_names=names[1],
        aliases=names[2],
        architecture=architecture,
        compute_capability=capability,
        memory_bytes=mib * _MIB,
        memory_source=MEASURED if measured else NOMINAL,
        memory_bandwidth=bandwidth * 1e9,
        bf16=bf16,
        fp8=fp8,
        fp4=fp4,
        link=link[0],
        link_bandwidth=link[1] * 1e9,
        link_group=link[2],
        open_kernel_module=module,
        source=source,
        fp16=fp16 * 1e12 or bf16,
        too_old=too_old,
        # NVIDIA's driver refuses it between GeForce cards.
        peer_access=not names[0].startswith(_GEFORCE),
    )


# Architecture, compute capability, open kernel module (NVIDIA's driver documentation).
_VOLTA = ("volta", (7, 0), "no")
_TURING = ("turing", (7, 5), "supported")
_AMPERE = ("ampere", (8, 0), "supported")
_AMPERE_86 = ("ampere", (8, 6), "supported")
_ADA = ("ada", (8, 9), "supported")
_HOPPER = ("hopper", (9, 0), "supported")
_BLACKWELL = ("blackwell", (10, 0), "required")
_BLACKWELL_103 = ("blackwell", (10, 3), "required")
_BLACKWELL_120 = ("blackwell", (12, 0), "required")


def _switch(bandwidth: float) -> Tuple[str, float, int]:
    return ("nvswitch", bandwidth, 1)


def _bridge(bandwidth: float, group: int) -> Tuple[str, float, int]:
    return ("bridge", bandwidth, group)


PRODUCTS: Tuple[Product, ...] = (
    # Too old: known, so that the refusal has a name and a reason.
    _product(
        _VOLTA,
        ("V100", ("V100-SXM2-32GB",), ("V100-32G",)),
        32768,
        900,
        (0, 0, 0),
        _bridge(300, 8),
        f"{_SHEET} V100",
        fp16=125,
        too_old=_NO_BF16,
    ),
    _product(
        _VOLTA,
        ("V100-16G", ("V100-SXM2-16GB",), ()),
        16384,
        900,
        (0, 0, 0),
        _bridge(300, 8),
        f"{_SHEET} V100",
        fp16=125,
        too_old=_NO_BF16,
    ),
    _product(
        _TURING, ("T4", ("T4",), ()), 15360, 320, (0, 0, 0), ("pcie", 32, 1), f"{_SHEET} T4", fp16=65, too_old=_NO_BF16
    ),
    _product(
        _AMPERE_86, ("RTX 3090", ("RTX 3090",), ()), 24576, 936, (71, 0, 0), _PCIE4, f"{_PAPER} (GA102); {_NO_BRIDGE}"
    ),
    _product(_AMPERE_86, ("A10", ("A10",), ()), 23028, 600, (125, 0, 0), _PCIE4, f"{_SHEET} A10 (2021)"),
    _product(
        _AMPERE,
        ("A100-40G-PCIe", ("A100-PCIE-40GB",), ()),
        40960,
        1555,
        (312, 0, 0),
        _PCIE4,
        f"{_SHEET} A100 40GB (2020); {_NO_BRIDGE}",
    ),
    _product(
        _AMPERE,
        ("A100-40G", ("A100-SXM4-40GB",), ("A100-40G-SXM",)),
        40960,
        1555,
        (312, 0, 0),
        _switch(600),
        f"{_SHEET} A100 40GB (2020)",
    ),
    _product(
        _AMPERE,
        ("A100-80G-PCIe", ("A100 80GB PCIe",), ("A100-PCIe",)),
        81920,
        1935,
        (312, 0, 0),
        _PCIE4,
        f"{_SHEET} A100 80GB (2021); {_NO_BRIDGE}",
    ),
    _product(
        _AMPERE,
        ("A100-80G", ("A100-SXM4-80GB",), ("A100", "A100-80G-SXM", "A100-SXM")),
        81920,
        2039,
        (312, 0, 0),
        _switch(600),
        f"{_SHEET} A100 80GB (2021)",
    ),
    _product(
        _AMPERE,
        ("A800", ("A800-SXM4-80GB",), ("A800-80G", "A800-SXM")),
        81920,
        2039,
        (312, 0, 0),
        _switch(400),
        f"{_SHEET} A100 80GB (2021), with the links of the A800",
    ),
    _product(
        _AMPERE,
        ("A800-PCIe", ("A800 80GB PCIe",), ("A800-80G-PCIe",)),
        81920,
        1935,
        (312, 0, 0),
        _PCIE4,
        f"{_SHEET} A100 80GB (2021); {_NO_BRIDGE}",
    ),
    _product(_ADA, ("RTX 4090", ("RTX 4090",), ()), 24564, 1008, (165.2, 330.3, 0), _PCIE4, f"{_PAPER} (AD102)"),
    _product(
        _ADA,
        ("L4", ("L4",), ()),
        23034,
        300,
        (121, 242, 0),
        _PCIE4,
        f"{_SHEET} L4 (2023), its figures with sparsity halved",
    ),
    _product(_ADA, ("L40S", ("L40S",), ()), 46068, 864, (362, 733, 0), _PCIE4, f"{_SHEET} L40S (2023)"),
    _product(
        _HOPPER,
        ("H100-PCIe", ("H100 PCIe",), ("H100-80G-PCIe",)),
        81559,
        2039,
        (756, 1513, 0),
        _PCIE5,
        f"{_SHEET} H100 PCIe (2022); {_NO_BRIDGE}",
    ),
    _product(
        _HOPPER,
        ("H100", ("H100 80GB HBM3",), ("H100-SXM", "H100-80G", "H100-80G-SXM")),
        81559,
        3352,
        (989, 1979, 0),
        _switch(900),
        f"{_SHEET} H100 SXM (2023)",
        measured=True,
    ),
    _product(
        _HOPPER,
        ("H100-NVL", ("H100 NVL",), ("H100-94G",)),
        95830,
        3938,
        (835, 1671, 0),
        _bridge(600, 2),
        f"{_SHEET} H100 NVL (2023)",
    ),
    _product(
        _HOPPER,
        ("H800", ("H800", "H800-SXM5-80GB"), ("H800-SXM", "H800-80G")),
        81559,
        3352,
        (989, 1979, 0),
        _switch(400),
        f"{_SHEET} H100 SXM (2023), with the links of the H800",
    ),
    _product(
        _HOPPER, ("H20", ("H20",), ("H20-96G",)), 97871, 4000, (148, 296, 0), _switch(900), f"{_SHEET} H20, 96 GB"
    ),
    _product(
        _HOPPER,
        ("H200", ("H200",), ("H200-SXM", "H200-141G")),
        143771,
        4800,
        (989, 1979, 0),
        _switch(900),
        f"{_SHEET} H200 SXM (2024)",
        measured=True,
    ),
    _product(
        _HOPPER,
        ("H200-NVL", ("H200 NVL",), ()),
        143771,
        4800,
        (835, 1671, 0),
        _bridge(900, 4),
        f"{_SHEET} H200 NVL (2024)",
    ),
    _product(
        _BLACKWELL_120, ("RTX 5090", ("RTX 5090",), ()), 32607, 1792, (209.5, 419, 1676), _PCIE5, f"{_PAPER} (GB202)"
    ),
    _product(
        _BLACKWELL_120,
        ("RTX PRO 6000 Blackwell", ("RTX PRO 6000 Blackwell Workstation Edition",), ("RTX PRO 6000",)),
        97887,
        1792,
        (503.8, 1007.6, 2015.2),
        _PCIE5,
        f"{_PAPER} (RTX PRO)",
    ),
    _product(
        _BLACKWELL_120,
        ("RTX PRO 6000 Blackwell Server", ("RTX PRO 6000 Blackwell Server Edition",), ("RTX PRO 6000 Server",)),
        97887,
        1597,
        (503.8, 1007.6, 2015.2),
        _PCIE5,
        f"{_SHEET} RTX PRO 6000 Server Edition (2025), with the rates of the Workstation Edition",
    ),
    _product(
        _BLACKWELL_120,
        (
            "RTX PRO 6000 Blackwell Max-Q",
            ("RTX PRO 6000 Blackwell Max-Q Workstation Edition",),
            ("RTX PRO 6000 Max-Q",),
        ),
        97887,
        1792,
        (438.9, 877.9, 1755.7),
        _PCIE5,
        f"{_PAPER} (RTX PRO), at 300 W",
    ),
    _product(
        _BLACKWELL,
        ("B200", ("B200",), ("B200-SXM",)),
        183359,
        8000,
        (2250, 4500, 9000),
        _switch(1800),
        f"{_SHEET} HGX B200 (2024), an eighth",
    ),
    _product(
        _BLACKWELL_103,
        ("B300", ("B300 SXM6 AC",), ("B300-SXM",)),
        275040,
        8000,
        (2250, 4500, 13500),
        _switch(1800),
        f"{_SHEET} HGX B300 (2025), an eighth",
    ),
    _product(
        _BLACKWELL,
        ("GB200", ("GB200",), ()),
        189471,
        8000,
        (2500, 5000, 10000),
        _switch(1800),
        f"{_SHEET} GB200 NVL72 (2024), one of its GPUs; aarch64 hosts",
    ),
)


def _plain(name: str) -> str:
    """How names are compared: no vendor, no separators, no case; "80GB" is "80g"."""
    text = re.sub(r"\b(nvidia|geforce|tesla)\b", " ", name.lower())
    text = re.sub(r"(?<=\d)gb\b", "g", text)
    return re.sub(r"[\s_\-]+", "", text)


def _index() -> Dict[str, Product]:
    index: Dict[str, Product] = {}
    for product in PRODUCTS:
        for name in (product.name, *product.nvml_names, *product.aliases):
            index.setdefault(_plain(name), product)
    return index


_BY_NAME = _index()


def find(name: str) -> Optional[Product]:
    """The product of that name, NVML's ("NVIDIA H100 80GB HBM3") or a short one ("H100"); None when it is not known."""
    return _BY_NAME.get(_plain(name))
