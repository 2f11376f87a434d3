# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is known of a host's GPUs: the structure of the fact `bedplate_gpus`.

Whatever could not be read is None, never a guess.  None alone means that the hardware, the driver or the source does
not have the value; a reason in `unreadable` means that it should have been there.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple, Type, TypeVar, Union, get_type_hints

NVML, NVIDIA_SMI, PCI, NONE = "nvml", "nvidia-smi", "pci", "none"

T = TypeVar("T")


@dataclass(frozen=True)
class PciLink:
    """The PCI Express link.  The maximum is what this GPU in this slot can do; an idle GPU lowers its generation."""

    generation: Optional[int] = None
    generation_max: Optional[int] = None
    width: Optional[int] = None
    width_max: Optional[int] = None


@dataclass(frozen=True)
class Memory:
    """Device memory.  Free and used change with what runs; reserved is the driver's own."""

    total_bytes: Optional[int] = None
    reserved_bytes: Optional[int] = None
    used_bytes: Optional[int] = None
    free_bytes: Optional[int] = None


@dataclass(frozen=True)
class Ecc:
    """Error correction: mode now and after the next reset, errors since the driver was loaded and in all."""

    enabled: Optional[bool] = None
    pending: Optional[bool] = None
    corrected_volatile: Optional[int] = None
    uncorrected_volatile: Optional[int] = None
    uncorrected_aggregate: Optional[int] = None


@dataclass(frozen=True)
class RowRemap:
    """Rows of memory that were replaced by spare ones; `pending` ones are at the next reset."""

    correctable: Optional[int] = None
    uncorrectable: Optional[int] = None
    pending: Optional[bool] = None
    failed: Optional[bool] = None


@dataclass(frozen=True)
class MigInstance:
    """One part of a GPU that is split."""

    uuid: Optional[str] = None
    name: Optional[str] = None
    memory_total_bytes: Optional[int] = None
    memory_free_bytes: Optional[int] = None
    multiprocessors: Optional[int] = None


@dataclass(frozen=True)
class Mig:
    enabled: Optional[bool] = None
    pending: Optional[bool] = None
    instances: Tuple[MigInstance, ...] = ()


@dataclass(frozen=True)
class NvLink:
    """Links to other GPUs.  `peers` are the PCI addresses of GPUs at the other end; through a switch there are none."""

    links: int = 0
    links_active: int = 0
    links_to_switch: int = 0
    version: Optional[int] = None
    peers: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Fabric:
    """How the GPU stands with NVSwitch's fabric: not_started, in_progress or completed."""

    state: Optional[str] = None
    status: Optional[str] = None
    health: Optional[str] = None
    cluster_uuid: Optional[str] = None
    clique_id: Optional[int] = None


@dataclass(frozen=True)
class Power:
    limit_watts: Optional[float] = None
    limit_min_watts: Optional[float] = None
    limit_max_watts: Optional[float] = None


@dataclass(frozen=True)
class Clocks:
    sm_mhz: Optional[int] = None
    sm_max_mhz: Optional[int] = None
    memory_mhz: Optional[int] = None
    memory_max_mhz: Optional[int] = None


@dataclass(frozen=True)
class Process:
    pid: int
    memory_used_bytes: Optional[int] = None


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    error: why the GPU as a whole cannot be read; then all but its index, and often its address, is unknown.
    product: what gpu_generations calls it, None when it is not in that table.
    """

    index: int
    error: Optional[str] = None
    name: Optional[str] = None
    product: Optional[str] = None
    uuid: Optional[str] = None
    pci_address: Optional[str] = None
    pci_device_id: Optional[str] = None
    kernel_driver: Optional[str] = None
    architecture: Optional[str] = None
    compute_capability: Optional[str] = None
    memory: Memory = field(default_factory=Memory)
    link: PciLink = field(default_factory=PciLink)
    ecc: Ecc = field(default_factory=Ecc)
    row_remap: RowRemap = field(default_factory=RowRemap)
    mig: Mig = field(default_factory=Mig)
    nvlink: Optional[NvLink] = None
    fabric: Optional[Fabric] = None
    power: Power = field(default_factory=Power)
    clocks: Clocks = field(default_factory=Clocks)
    numa_node: Optional[int] = None
    cpu_affinity: Optional[str] = None
    persistence: Optional[bool] = None
    utilization_percent: Optional[int] = None
    processes: Optional[Tuple[Process, ...]] = None
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"GPU {self.index}" + (f" ({self.pci_address})" if self.pci_address else "")


@dataclass(frozen=True)
class ConfidentialCompute:
    enabled: Optional[bool] = None
    devtools: Optional[bool] = None
    environment: Optional[str] = None


@dataclass(frozen=True)
class Driver:
    """The driver: `version` is what answers, `module_version` the kernel's, `library_version` the installed one."""

    version: Optional[str] = None
    module_version: Optional[str] = None
    module_open: Optional[bool] = None
    library_version: Optional[str] = None
    nvml_version: Optional[str] = None
    cuda_version: Optional[str] = None
    confidential_compute: Optional[ConfidentialCompute] = None
    error: Optional[str] = None


@dataclass(frozen=True)
class FabricManager:
    """NVIDIA's service that programs NVSwitch; None as a whole when nobody looked for it."""

    installed: bool = False
    version: Optional[str] = None
    active_state: Optional[str] = None


@dataclass(frozen=True)
class Source:
    """Who answered, and why each better one did not."""

    answered: str = NONE
    unavailable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cpu:
    model: Optional[str] = None
    architecture: Optional[str] = None
    sockets: int = 0
    cores: int = 0
    threads: int = 0
    amx: bool = False
    avx512: Tuple[str, ...] = ()
    vnni: bool = False
    sgx: bool = False
    tdx: bool = False
    sev: Tuple[str, ...] = ()


@dataclass(frozen=True)
class NumaNode:
    node: int
    cpus: str
    memory_total_bytes: Optional[int] = None


@dataclass(frozen=True)
class Nvme:
    name: str
    model: Optional[str] = None
    size_bytes: Optional[int] = None
    numa_node: Optional[int] = None


@dataclass(frozen=True)
class Infiniband:
    """One port of an RDMA device."""

    device: str
    port: int
    state: Optional[str] = None
    rate: Optional[str] = None
    link_layer: Optional[str] = None
    numa_node: Optional[int] = None


@dataclass(frozen=True)
class Host:
    cpu: Cpu = field(default_factory=Cpu)
    memory_total_bytes: Optional[int] = None
    memory_available_bytes: Optional[int] = None
    numa_nodes: Tuple[NumaNode, ...] = ()
    nvme: Tuple[Nvme, ...] = ()
    infiniband: Tuple[Infiniband, ...] = ()
    nouveau_loaded: bool = False
    secure_boot: Optional[bool] = None


@dataclass(frozen=True)
class GpuFacts:
    """The fact `bedplate_gpus`.

    simulated: a lab's stand-in for the driver answered, so the hardware is not there.
    pci_addresses: NVIDIA GPUs on the bus, whether the driver knows them or not.
    nvswitches: NVSwitch devices on the bus.
    """

    source: Source = field(default_factory=Source)
    simulated: bool = False
    gpus: Tuple[Gpu, ...] = ()
    driver: Driver = field(default_factory=Driver)
    fabric_manager: Optional[FabricManager] = None
    pci_addresses: Tuple[str, ...] = ()
    nvswitches: int = 0
    host: Host = field(default_factory=Host)


@dataclass(frozen=True)
class Reading:
    """What one source says: GPUs, and what it knows of the driver."""

    gpus: Tuple[Gpu, ...]
    driver: Driver = field(default_factory=Driver)
    simulated: bool = False


class SourceError(Exception):
    """A source does not answer; one sentence that says why, and what is known of the driver all the same."""

    def __init__(self, reason: str, driver: Optional[Driver] = None, simulated: bool = False) -> None:
        super().__init__(reason)
        self.driver = driver or Driver()
        self.simulated = simulated


def pci_address(text: str) -> str:
    """The kernel's spelling: NVIDIA writes '00000000:17:00.0' and sometimes capitals."""
    match = re.fullmatch(r"(?:([0-9a-f]+):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])", text.strip().lower())
    return f"{int(match[1] or '0', 16):04x}:{match[2]}:{match[3]}.{match[4]}" if match else text.strip().lower()


def cpu_list(numbers: Iterable[int]) -> str:
    """Numbers as the kernel lists them: '0-31,64-95'."""
    spans: List[List[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


# --- to and from plain data -----------------------------------------------------------------------------------------


def as_dict(facts: Any) -> Dict[str, Any]:
    """Plain data for JSON, with lists where there are tuples."""
    plain = _plain(facts)
    if not isinstance(plain, dict):
        raise TypeError(f"facts are a dataclass, found {type(facts).__name__}")
    return plain


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def from_dict(kind: Type[T], value: Any) -> T:
    """The inverse of as_dict(), such as `from_dict(GpuFacts, ansible_facts["bedplate_gpus"])`.

    What is missing has its default, and what this version does not know is left out, so that facts of another version
    can be read; ValueError when the value is not a dictionary.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{kind.__name__} is read from a dictionary, found {type(value).__name__}: {value!r}")
    hints = get_type_hints(kind)
    return kind(**{name: _typed(hint, value[name]) for name, hint in hints.items() if name in value})


def _typed(hint: Any, value: Any) -> Any:
    inner: List[Any] = list(getattr(hint, "__args__", ()))
    origin = getattr(hint, "__origin__", None)
    if value is None:
        return None
    if origin is Union:
        return _typed(inner[0], value)
    if origin is tuple:
        return tuple(_typed(inner[0], item) for item in value)
    return from_dict(hint, value) if isinstance(hint, type) and dataclasses.is_dataclass(hint) else value
