# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What NVIDIA's management library says of the GPUs, asked through pynvml, which is handed in.

Every value is asked for by itself: one that the GPU does not have is None, one that is refused has a reason, and a GPU
that has fallen off the bus is a GPU with an error beside the others.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import (
    Clocks,
    ConfidentialCompute,
    Driver,
    Ecc,
    Fabric,
    Gpu,
    Memory,
    Mig,
    MigInstance,
    NvLink,
    PciLink,
    Power,
    Process,
    Reading,
    RowRemap,
    SourceError,
    cpu_list,
    pci_address,
)

# The end of the library's version when it is a lab's stand-in for the driver (roles/lab_host/files/nvml).
SIMULATED = "+simulated"

ARCHITECTURES = {
    2: "kepler",
    3: "maxwell",
    4: "pascal",
    5: "volta",
    6: "turing",
    7: "ampere",
    8: "ada",
    9: "hopper",
    10: "blackwell",
    13: "rubin",
}
FABRIC_STATES = {0: "not_supported", 1: "not_started", 2: "in_progress", 3: "completed"}
FABRIC_HEALTH = {1: "healthy", 2: "unhealthy", 3: "limited_capacity"}
ENVIRONMENTS = {0: "unavailable", 1: "simulation", 2: "production"}

# NVML's error codes.  The quiet ones say that there is nothing to know; the fatal ones that the GPU is gone.
_QUIET = {
    2: "invalid argument",
    3: "not supported",
    6: "not found",
    13: "function not found",
    21: "no data",
    25: "argument version mismatch",
    26: "deprecated",
}
_DRIVER_NOT_LOADED, _NO_LIBRARY, _MISMATCH = 9, 12, 18
_FATAL = {15, 16}

_LINKS = 36  # the most that NVML has names for
_CPU_WORDS, _NODE_WORDS = 32, 4  # of 64 bits each
_TO_SWITCH = 2
_NOT_AVAILABLE = 2**64 - 1


class Look:
    """Asks one question after the other and remembers which were refused."""

    def __init__(self, nvml: Any) -> None:
        self.nvml = nvml
        self.unreadable: Dict[str, str] = {}
        self.fatal: Optional[str] = None

    @contextlib.contextmanager
    def at(self, name: str) -> Iterator[None]:
        """Take a refusal inside as the state of the value `name`."""
        try:
            yield
        except self.nvml.NVMLError as error:
            code = getattr(error, "value", None)
            if code in _FATAL:
                self.fatal = str(error)
            if code not in _QUIET:
                self.unreadable[name] = str(error)
        except Exception as error:
            # This pynvml has no such function, or says so of the library in a class of its own that is no NVMLError.
            if not isinstance(error, AttributeError) and type(error).__name__ != "NVMLLibraryMismatchError":
                raise

    def ask(self, name: str, function: str, *arguments: Any) -> Any:
        """The function's answer, or None."""
        with self.at(name):
            return getattr(self.nvml, function)(*arguments)
        return None

    def flag(self, name: str, function: str, *arguments: Any) -> Optional[bool]:
        answer = self.ask(name, function, *arguments)
        return None if answer is None else bool(answer)

    def pair(self, name: str, function: str, *arguments: Any) -> Tuple[Any, Any]:
        answer = self.ask(name, function, *arguments)
        return (None, None) if answer is None else (answer[0], answer[1])


def read(nvml: Any) -> Reading:
    """All GPUs and the driver; SourceError when the library has nothing to say at all."""
    look = Look(nvml)
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        if getattr(error, "value", None) == _NO_LIBRARY:
            raise SourceError("The driver's library libnvidia-ml.so.1 is not installed.") from error
        driver = _installed(look, error)
        raise SourceError(f"NVML does not start: {_sentence(error)}", driver, _simulated(driver)) from error
    try:
        driver = _driver(look)
        try:
            count = int(nvml.nvmlDeviceGetCount())
        except nvml.NVMLError as error:
            raise SourceError(
                f"NVML does not count the GPUs: {_sentence(error)}", driver, _simulated(driver)
            ) from error
        return Reading(tuple(_gpu(nvml, index) for index in range(count)), driver, _simulated(driver))
    finally:
        with look.at("shutdown"):
            nvml.nvmlShutdown()


def _sentence(error: Any) -> str:
    code = getattr(error, "value", None)
    if code == _DRIVER_NOT_LOADED:
        return "the kernel module is not loaded."
    if code == _MISMATCH:
        return "the kernel module and the library are of different versions."
    return f"{str(error).rstrip('.')}."


def _simulated(driver: Driver) -> bool:
    return bool(driver.nvml_version and driver.nvml_version.endswith(SIMULATED))


def library_version(nvml_version: Optional[str]) -> Optional[str]:
    """The driver's version in NVML's own, which has CUDA's major version before it: '13.580.95.05' is '580.95.05'."""
    if not nvml_version:
        return None
    _cuda, dot, rest = nvml_version.partition("+")[0].partition(".")
    return rest if dot and rest.count(".") else None


def _installed(look: Look, error: Any) -> Driver:
    """What the library says of itself although it did not start."""
    version = look.ask("nvml_version", "nvmlSystemGetNVMLVersion")
    return Driver(nvml_version=version, library_version=library_version(version), error=_sentence(error))


def _driver(look: Look) -> Driver:
    nvml_version = look.ask("nvml_version", "nvmlSystemGetNVMLVersion")
    cuda = look.ask("cuda_version", "nvmlSystemGetCudaDriverVersion_v2")
    return Driver(
        version=look.ask("version", "nvmlSystemGetDriverVersion"),
        library_version=library_version(nvml_version),
        nvml_version=nvml_version,
        cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        confidential_compute=_confidential_compute(look),
    )


def _confidential_compute(look: Look) -> Optional[ConfidentialCompute]:
    state = look.ask("confidential_compute", "nvmlSystemGetConfComputeState")
    if state is None:
        return None
    return ConfidentialCompute(
        enabled=bool(state.ccFeature),
        devtools=bool(state.devToolsMode),
        environment=ENVIRONMENTS.get(state.environment),
    )


def _gpu(nvml: Any, index: int) -> Gpu:
    look = Look(nvml)
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError as error:
        return Gpu(index=index, error=_sentence(error))
    pci = look.ask("pci_address", "nvmlDeviceGetPciInfo", handle)
    address = pci_address(_text(pci.busId)) if pci is not None else None
    capability = look.ask("compute_capability", "nvmlDeviceGetCudaComputeCapability", handle)
    utilization = look.ask("utilization_percent", "nvmlDeviceGetUtilizationRates", handle)
    gpu = Gpu(
        index=index,
        name=look.ask("name", "nvmlDeviceGetName", handle),
        uuid=look.ask("uuid", "nvmlDeviceGetUUID", handle),
        pci_address=address,
        pci_device_id=f"{pci.pciDeviceId >> 16:04x}" if pci is not None else None,
        architecture=ARCHITECTURES.get(look.ask("architecture", "nvmlDeviceGetArchitecture", handle)),
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
        memory=_memory(look, handle),
        link=PciLink(
            generation=look.ask("link.generation", "nvmlDeviceGetCurrPcieLinkGeneration", handle),
            generation_max=look.ask("link.generation_max", "nvmlDeviceGetMaxPcieLinkGeneration", handle),
            width=look.ask("link.width", "nvmlDeviceGetCurrPcieLinkWidth", handle),
            width_max=look.ask("link.width_max", "nvmlDeviceGetMaxPcieLinkWidth", handle),
        ),
        ecc=_ecc(look, handle),
        row_remap=_row_remap(look, handle),
        mig=_mig(look, handle),
        nvlink=_nvlink(look, handle),
        fabric=_fabric(look, handle),
        power=_power(look, handle),
        clocks=_clocks(look, handle),
        numa_node=_numa_node(look, handle),
        cpu_affinity=cpu_list(_bits(look.ask("cpu_affinity", "nvmlDeviceGetCpuAffinity", handle, _CPU_WORDS))) or None,
        persistence=look.flag("persistence", "nvmlDeviceGetPersistenceMode", handle),
        utilization_percent=None if utilization is None else int(utilization.gpu),
        processes=_processes(look, handle),
        unreadable=look.unreadable,
    )
    if look.fatal:
        return Gpu(index=index, pci_address=address, error=f"{look.fatal.rstrip('.')}.")
    return gpu


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


def _memory(look: Look, handle: Any, name: str = "memory") -> Memory:
    # The second form counts what the driver reserves apart from what is used; drivers before 510 have only the first.
    version = getattr(look.nvml, "nvmlMemory_v2", None)
    info = look.ask(name, "nvmlDeviceGetMemoryInfo", handle, version) if version else None
    if info is None and name not in look.unreadable:
        info = look.ask(name, "nvmlDeviceGetMemoryInfo", handle)
    if info is None:
        return Memory()
    reserved = getattr(info, "reserved", None)
    return Memory(int(info.total), None if reserved is None else int(reserved), int(info.used), int(info.free))


def _ecc(look: Look, handle: Any) -> Ecc:
    enabled, pending = look.pair("ecc.enabled", "nvmlDeviceGetEccMode", handle)
    if not enabled:
        return Ecc(_flag(enabled), _flag(pending))
    return Ecc(
        bool(enabled),
        _flag(pending),
        corrected_volatile=look.ask("ecc.corrected_volatile", "nvmlDeviceGetTotalEccErrors", handle, 0, 0),
        uncorrected_volatile=look.ask("ecc.uncorrected_volatile", "nvmlDeviceGetTotalEccErrors", handle, 1, 0),
        uncorrected_aggregate=look.ask("ecc.uncorrected_aggregate", "nvmlDeviceGetTotalEccErrors", handle, 1, 1),
    )


def _flag(value: Any) -> Optional[bool]:
    return None if value is None else bool(value)


def _row_remap(look: Look, handle: Any) -> RowRemap:
    rows = look.ask("row_remap", "nvmlDeviceGetRemappedRows", handle)
    if rows is None:
        # GPUs before Ampere retire pages instead; what is pending there wants the same reset.
        return RowRemap(pending=look.flag("row_remap", "nvmlDeviceGetRetiredPagesPendingStatus", handle))
    return RowRemap(int(rows[0]), int(rows[1]), bool(rows[2]), bool(rows[3]))


def _mig(look: Look, handle: Any) -> Mig:
    enabled, pending = look.pair("mig", "nvmlDeviceGetMigMode", handle)
    if not enabled:
        return Mig(_flag(enabled), _flag(pending))
    instances: List[MigInstance] = []
    for slot in range(look.ask("mig.instances", "nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
        instance = look.ask("mig.instances", "nvmlDeviceGetMigDeviceHandleByIndex", handle, slot)
        if instance is not None:
            memory = _memory(look, instance, "mig.instances")
            attributes = look.ask("mig.instances", "nvmlDeviceGetAttributes_v2", instance)
            instances.append(
                MigInstance(
                    uuid=look.ask("mig.instances", "nvmlDeviceGetUUID", instance),
                    name=look.ask("mig.instances", "nvmlDeviceGetName", instance),
                    memory_total_bytes=memory.total_bytes,
                    memory_free_bytes=memory.free_bytes,
                    multiprocessors=None if attributes is None else int(attributes.multiprocessorCount),
                )
            )
    return Mig(True, _flag(pending), tuple(instances))


def _nvlink(look: Look, handle: Any) -> Optional[NvLink]:
    states: Dict[int, bool] = {}
    for link in range(_LINKS):
        state = look.ask("nvlink", "nvmlDeviceGetNvLinkState", handle, link)
        if state is None:
            break
        states[link] = bool(state)
    if not states:
        return None
    switch, peers = 0, set()
    active = [link for link, up in states.items() if up]
    for link in active:
        if look.ask("nvlink", "nvmlDeviceGetNvLinkRemoteDeviceType", handle, link) == _TO_SWITCH:
            switch += 1
        else:
            remote = look.ask("nvlink", "nvmlDeviceGetNvLinkRemotePciInfo", handle, link)
            if remote is not None:
                peers.add(pci_address(_text(remote.busId)))
    version = look.ask("nvlink", "nvmlDeviceGetNvLinkVersion", handle, active[0]) if active else None
    return NvLink(len(states), len(active), switch, version, tuple(sorted(peers)))


def _fabric(look: Look, handle: Any) -> Optional[Fabric]:
    with look.at("fabric"):
        info = _fabric_info(look.nvml, handle)
        state = FABRIC_STATES.get(info.state, "not_supported")
        if state == "not_supported":
            return None
        return Fabric(
            state=state,
            status="success" if info.status == 0 else str(look.nvml.NVMLError(info.status)),
            health=FABRIC_HEALTH.get(getattr(info, "healthSummary", 0)),
            cluster_uuid=_uuid(bytes(info.clusterUuid)),
            clique_id=int(info.cliqueId),
        )
    return None


def _fabric_info(nvml: Any, handle: Any) -> Any:
    """The newest form that both sides know: pynvml by its classes, the library by not refusing."""
    for kind in ("c_nvmlGpuFabricInfo_v3_t", "c_nvmlGpuFabricInfo_v2_t"):
        if hasattr(nvml, kind):
            info = getattr(nvml, kind)()
            try:
                nvml.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(info))
            except nvml.NVMLError as error:
                if getattr(error, "value", None) not in _QUIET:
                    raise
            else:
                return info
    info = nvml.c_nvmlGpuFabricInfo_t()
    nvml.nvmlDeviceGetGpuFabricInfo(handle, ctypes.byref(info))
    return info


def _uuid(raw: bytes) -> Optional[str]:
    text = raw.hex()
    groups = (text[:8], text[8:12], text[12:16], text[16:20], text[20:])
    return "-".join(groups) if any(raw) else None


def _power(look: Look, handle: Any) -> Power:
    limit = look.ask("power.limit_watts", "nvmlDeviceGetPowerManagementLimit", handle)
    least, most = look.pair("power.limit_max_watts", "nvmlDeviceGetPowerManagementLimitConstraints", handle)
    return Power(*(None if value is None else value / 1000 for value in (limit, least, most)))


def _clocks(look: Look, handle: Any) -> Clocks:
    return Clocks(
        sm_mhz=look.ask("clocks.sm_mhz", "nvmlDeviceGetClockInfo", handle, 1),
        sm_max_mhz=look.ask("clocks.sm_max_mhz", "nvmlDeviceGetMaxClockInfo", handle, 1),
        memory_mhz=look.ask("clocks.memory_mhz", "nvmlDeviceGetClockInfo", handle, 2),
        memory_max_mhz=look.ask("clocks.memory_max_mhz", "nvmlDeviceGetMaxClockInfo", handle, 2),
    )


def _numa_node(look: Look, handle: Any) -> Optional[int]:
    nodes = _bits(look.ask("numa_node", "nvmlDeviceGetMemoryAffinity", handle, _NODE_WORDS, 0))
    return nodes[0] if nodes else None


def _bits(words: Any) -> List[int]:
    return [at * 64 + bit for at, word in enumerate(words or ()) for bit in range(64) if int(word) >> bit & 1]


def _processes(look: Look, handle: Any) -> Optional[Tuple[Process, ...]]:
    found = look.ask("processes", "nvmlDeviceGetComputeRunningProcesses", handle)
    if found is None:
        return None
    # The driver does not know the memory of a process in another container or under MIG.
    return tuple(
        Process(int(item.pid), None if item.usedGpuMemory in (None, _NOT_AVAILABLE) else int(item.usedGpuMemory))
        for item in found
    )
