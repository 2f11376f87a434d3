# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Put together what the sources say: the best one that answers, and what the others know beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, Dict, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import (
    PCI,
    Driver,
    FabricManager,
    Gpu,
    GpuFacts,
    Host,
    Reading,
    Source,
    SourceError,
)
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_generations import find
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_pci import Bus

Attempt = Tuple[str, Callable[[], Reading]]


def ask(attempts: Sequence[Attempt]) -> Tuple[Source, Reading]:
    """The first source that answers, in the order given, with the reason of each before it that does not."""
    reasons: Dict[str, str] = {}
    driver, simulated = Driver(), False
    for name, read in attempts:
        # What stands in for the driver hides what is on the operator's own bus.
        if simulated and name == PCI:
            continue
        try:
            reading = read()
        except SourceError as error:
            reasons[name] = str(error)
            driver = _over(driver, error.driver)
            simulated = simulated or error.simulated
        else:
            reading = replace(reading, driver=_over(reading.driver, driver), simulated=reading.simulated or simulated)
            return Source(name, reasons), reading
    return Source(unavailable=reasons), Reading((), driver, simulated)


def _over(first: Driver, second: Driver) -> Driver:
    """What the first knows, and else what the second does."""
    names = ("version", "module_version", "module_open", "library_version", "nvml_version", "cuda_version", "error")
    known = {name: getattr(first, name) for name in names}
    merged = {name: getattr(second, name) if value is None else value for name, value in known.items()}
    return replace(first, **merged)


def assemble(
    source: Source,
    reading: Reading,
    bus: Bus,
    host: Host,
    installed: Driver,
    fabric_manager: Optional[FabricManager],
) -> GpuFacts:
    """The facts of a host; `installed` is the driver as its files show it, `bus` what PCI shows.

    A simulated driver has no module, no bus and no fabric manager: what is seen of them is the machine's below it.
    """
    simulated = reading.simulated
    if simulated:
        bus, installed, fabric_manager = Bus(), Driver(), None
        host = replace(host, nouveau_loaded=False)
    gpus = _addressed(reading.gpus, bus.gpus)
    beside = {gpu.pci_address: gpu for gpu in bus.gpus}
    return GpuFacts(
        source=source,
        simulated=simulated,
        gpus=tuple(_known(_completed(gpu, beside.get(gpu.pci_address))) for gpu in gpus),
        driver=_over(reading.driver, installed),
        fabric_manager=fabric_manager,
        pci_addresses=tuple(gpu.pci_address for gpu in bus.gpus if gpu.pci_address),
        nvswitches=bus.nvswitches,
        host=host,
    )


def _addressed(gpus: Tuple[Gpu, ...], bus: Tuple[Gpu, ...]) -> Tuple[Gpu, ...]:
    """A GPU that does not even tell its address has the one that is left, when there is no choice."""
    silent = [gpu.index for gpu in gpus if gpu.pci_address is None]
    told = {gpu.pci_address for gpu in gpus}
    left = [gpu.pci_address for gpu in bus if gpu.pci_address not in told]
    if len(silent) != len(left):
        return gpus
    places = dict(zip(silent, left))
    return tuple(replace(gpu, pci_address=places.get(gpu.index, gpu.pci_address)) for gpu in gpus)


def _completed(gpu: Gpu, seen: Optional[Gpu]) -> Gpu:
    """With what only the bus knows, and with what the better source left open."""
    if seen is None:
        return gpu
    return replace(
        gpu,
        pci_device_id=gpu.pci_device_id or seen.pci_device_id,
        kernel_driver=seen.kernel_driver,
        numa_node=seen.numa_node if gpu.numa_node is None else gpu.numa_node,
        cpu_affinity=gpu.cpu_affinity or seen.cpu_affinity,
    )


def _known(gpu: Gpu) -> Gpu:
    """With what the table of products says of a GPU of that name."""
    product = find(gpu.name) if gpu.name else None
    if product is None:
        return gpu
    major, minor = product.compute_capability
    return replace(
        gpu,
        product=product.name,
        architecture=gpu.architecture or product.architecture,
        compute_capability=gpu.compute_capability or f"{major}.{minor}",
    )
