# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the GPUs of a host are fit to serve: facts on one side, expectations on the other, checks as the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterable, List, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import NVIDIA_SMI, NVML, Driver, Gpu, GpuFacts
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_generations import find

# A GPU that does more than this is not idle, and its link has no reason to be slow.
_BUSY_PERCENT = 10

_SIGNED = " Secure Boot is on: the kernel takes only a module that is signed with a key that the firmware knows."
_RESET = "Stop what uses it and reset it (nvidia-smi --gpu-reset -i {index}), or reboot the host."


@dataclass(frozen=True)
class Expectations:
    """What the site says about a host; None is no statement."""

    gpu_count: Optional[int] = None


def checks(facts: GpuFacts, expected: Expectations) -> List[Check]:
    """Every statement that can be made of this host; a host with no GPU and none expected gets one."""
    present = bool(facts.gpus or facts.pci_addresses)
    found = [_count(facts, expected)]
    if present or expected.gpu_count or facts.driver.error:
        found += _driver(facts)
    readable = tuple(gpu for gpu in facts.gpus if gpu.error is None)
    if facts.source.answered in (NVML, NVIDIA_SMI):
        found += _each(facts)
        found += _memory(readable)
        found += _links(readable)
        found += _fabric(facts, readable)
        found += _modes(readable)
    return found


def _check(name: str, ok: bool, holds: str, fails: str, remedy: str) -> Check:
    return Check(f"gpu.{name}", ok, holds if ok else fails, "" if ok else remedy)


def _some(gpus: Iterable[Gpu]) -> str:
    """'GPU 3 (0000:61:00.0)', 'GPUs 1, 2', and of none nothing."""
    listed = list(gpus)
    if not listed:
        return ""
    return listed[0].label if len(listed) == 1 else "GPUs " + ", ".join(str(gpu.index) for gpu in listed)


def _gpus(number: int) -> str:
    return f"{number} GPU" if number == 1 else f"{number} GPUs"


# --- the host and its driver ----------------------------------------------------------------------------------------


def _count(facts: GpuFacts, expected: Expectations) -> Check:
    usable = sum(gpu.error is None for gpu in facts.gpus)
    models = sorted({gpu.product or gpu.name or "unknown" for gpu in facts.gpus if gpu.error is None})
    found = f"The host has {_gpus(usable)}" + (f" ({', '.join(models)})" if models else "")
    note = ", simulated" if facts.simulated else ""
    wanted = expected.gpu_count
    return _check(
        "count",
        wanted is None or usable == wanted,
        f"{found}{note}.",
        f"{found}{note}, and the inventory expects {wanted}.",
        "Look for the missing ones with `lspci -d 10de:` and in the kernel's log (NVRM, Xid); if the inventory is"
        " wrong, correct the number that it expects.",
    )


def _driver(facts: GpuFacts) -> List[Check]:
    driver = facts.driver
    answered = facts.source.answered in (NVML, NVIDIA_SMI)
    reasons = " ".join(facts.source.unavailable.values())
    found = [
        _check(
            "driver",
            answered,
            f"The driver {driver.version or ''} answers through {facts.source.answered}.".replace("  ", " "),
            f"The driver does not answer. {reasons}".rstrip(),
            "Install NVIDIA's driver for the running kernel and load it (modprobe nvidia); dmesg says why if it does"
            f" not load.{_SIGNED if facts.host.secure_boot else ''}",
        ),
        driver_library(driver),
        _check(
            "nouveau",
            not facts.host.nouveau_loaded,
            "nouveau is not loaded.",
            "The kernel has loaded nouveau, which keeps NVIDIA's driver from the GPUs.",
            "Blacklist nouveau, build the initramfs of every installed kernel again, and reboot.",
        ),
    ]
    if driver.module_open is not None:
        wants = [gpu for gpu in facts.gpus if _open_module(gpu) == ("no" if driver.module_open else "required")]
        has, other = ("open", "proprietary") if driver.module_open else ("proprietary", "open")
        found.append(
            _check(
                "module-kind",
                not wants,
                f"The {has} kernel module is one for these GPUs.",
                f"The {has} kernel module is loaded, and {_some(wants)} works only with the {other} one.",
                f"Install the {other} kernel module of the same driver version.",
            )
        )
    if answered and facts.pci_addresses:
        known = {gpu.pci_address for gpu in facts.gpus}
        strange = [address for address in facts.pci_addresses if address not in known]
        found.append(
            _check(
                "driven",
                not strange,
                f"The driver has every GPU on the bus ({len(facts.pci_addresses)}).",
                f"The driver does not have the GPU at {', '.join(strange)}.",
                "Look in the kernel's log for NVRM and Xid; a GPU that vfio-pci or nouveau holds must be given back.",
            )
        )
    return found


def driver_library(driver: Driver) -> Check:
    """Also gpu_stack's, in the same words."""
    module, library = driver.module_version, driver.library_version
    mismatch = bool(module and library and module != library) or "different versions" in (driver.error or "")
    return _check(
        "driver-library",
        not mismatch,
        f"Kernel module and library are of one version{f' ({module})' if module else ''}.",
        f"The kernel module is {module or 'of another version'} and the library {library or 'not of that version'}:"
        " the one was updated without the other.",
        "Reboot, or unload and load the module (modprobe -r nvidia_uvm nvidia_drm nvidia_modeset nvidia;"
        " modprobe nvidia), and hold the driver's packages so that nothing updates them unseen.",
    )


def _open_module(gpu: Gpu) -> str:
    product = find(gpu.product) if gpu.product else None
    return str(product.open_kernel_module) if product else ""


def _each(facts: GpuFacts) -> List[Check]:
    lost = [gpu for gpu in facts.gpus if gpu.error]
    refused = sorted({f"{gpu.label}: {name} ({why})" for gpu in facts.gpus for name, why in gpu.unreadable.items()})
    said = "; ".join(f"{gpu.label}: {(gpu.error or '').rstrip('.')}" for gpu in lost)
    return [
        _check(
            "answers",
            not lost,
            "Every GPU answers.",
            f"{said}.",
            "Reboot the host; if it stays away, cut the power for a minute, then have the card or its seat looked at.",
        ),
        _check(
            "readable",
            not refused,
            "Every value can be read.",
            f"Some values cannot be read: {'; '.join(refused)}.",
            "Run as root, and look in the kernel's log for what NVRM says of these GPUs.",
        ),
    ]


# --- memory ---------------------------------------------------------------------------------------------------------


def _memory(gpus: Tuple[Gpu, ...]) -> List[Check]:
    def bad(holds: Callable[[Gpu], bool]) -> List[Gpu]:
        return [gpu for gpu in gpus if holds(gpu)]

    pending, failed = bad(lambda gpu: bool(gpu.row_remap.pending)), bad(lambda gpu: bool(gpu.row_remap.failed))
    errors = bad(lambda gpu: bool(gpu.ecc.uncorrected_volatile))
    counts = ", ".join(str(gpu.ecc.uncorrected_volatile) for gpu in errors)
    modes = bad(lambda gpu: gpu.ecc.pending is not None and gpu.ecc.pending != gpu.ecc.enabled)
    return [
        _check(
            "row-remap",
            not pending,
            "No GPU waits for a reset to replace rows of its memory.",
            f"{_some(pending)} will replace bad rows of memory at the next reset, and until then goes on with them.",
            _RESET.format(index=",".join(str(gpu.index) for gpu in pending)),
        ),
        _check(
            "row-remap-failed",
            not failed,
            "No GPU has failed to replace rows of its memory.",
            f"{_some(failed)} has no spare rows left for bad ones.",
            "Take it out of service and have it replaced: this is the maker's own criterion.",
        ),
        _check(
            "ecc-errors",
            not errors,
            "No uncorrectable memory error since the driver was loaded.",
            f"{_some(errors)} had uncorrectable memory errors since the driver was loaded: {counts}.",
            _RESET.format(index=",".join(str(gpu.index) for gpu in errors))
            + " If they come back, have the card replaced.",
        ),
        _check(
            "ecc-mode",
            not modes,
            "No GPU waits for a reset to change its ECC mode.",
            f"{_some(modes)} will change its ECC mode at the next reset, and its memory with it.",
            _RESET.format(index=",".join(str(gpu.index) for gpu in modes)),
        ),
    ]


# --- links ----------------------------------------------------------------------------------------------------------


def busy(gpu: Gpu) -> bool:
    return (gpu.utilization_percent or 0) > _BUSY_PERCENT


def _links(gpus: Tuple[Gpu, ...]) -> List[Check]:
    narrow = [gpu for gpu in gpus if gpu.link.width and gpu.link.width_max and gpu.link.width < gpu.link.width_max]
    slow = [
        gpu
        for gpu in gpus
        if gpu.link.generation and gpu.link.generation_max and gpu.link.generation < gpu.link.generation_max
    ]
    wrong = [gpu for gpu in slow if busy(gpu)]
    # Idle, a low generation is how it saves power: nothing can be said before it works.
    resting = f" {_some(slow)} is idle and has lowered it, as it should." if slow else ""
    # Links that no GPU uses are those of a card without a bridge.
    linked = any(gpu.nvlink and gpu.nvlink.links_active for gpu in gpus)
    down = [gpu for gpu in gpus if linked and gpu.nvlink and gpu.nvlink.links_active < gpu.nvlink.links]
    widths = "; ".join(f"{gpu.label}: x{gpu.link.width} of x{gpu.link.width_max}" for gpu in narrow)
    generations = "; ".join(f"{gpu.label}: {gpu.link.generation} of {gpu.link.generation_max}" for gpu in wrong)
    up = "; ".join(f"{gpu.label}: {gpu.nvlink.links_active} of {gpu.nvlink.links}" for gpu in down if gpu.nvlink)
    seat = "Have the card, its riser and its slot looked at; the board's manual tells slots that are wired for less."
    return [
        _check(
            "link-width",
            not narrow,
            "Every PCI Express link is as wide as it can be.",
            f"A PCI Express link is narrower than it can be: {widths}.",
            seat,
        ),
        _check(
            "link-generation",
            not wrong,
            f"No busy GPU has a slow PCI Express link.{resting}",
            f"A PCI Express link is slower than it can be although the GPU works: generation {generations}.",
            f"{seat} Some firmware limits the generation of a slot.",
        ),
        *(
            [
                _check(
                    "nvlink",
                    not down,
                    "Every NVLink is up.",
                    f"Not every NVLink is up: {up}.",
                    "Look at the links with `nvidia-smi nvlink --status`, and reboot; if it stays so, have the board"
                    " looked at.",
                )
            ]
            if linked
            else []
        ),
    ]


def _fabric(facts: GpuFacts, gpus: Tuple[Gpu, ...]) -> List[Check]:
    """NVSwitch routes nothing before the fabric manager has told it how; CUDA then says error 802."""
    if not facts.nvswitches and not any(gpu.fabric for gpu in gpus):
        return []
    waiting = [
        gpu
        for gpu in gpus
        if gpu.fabric and (gpu.fabric.state != "completed" or gpu.fabric.status not in (None, "success"))
    ]
    sick = [gpu for gpu in gpus if gpu.fabric and gpu.fabric.health == "unhealthy"]
    states = "; ".join(
        f"{gpu.label}: {(gpu.fabric.state or 'unknown').replace('_', ' ')}"
        + (f", {gpu.fabric.status}" if gpu.fabric.status not in (None, "success") else "")
        + (f", {gpu.fabric.health}" if gpu.fabric.health == "unhealthy" else "")
        for gpu in gpus
        if gpu.fabric and (gpu in waiting or gpu in sick)
    )
    found: List[Check] = []
    if any(gpu.fabric for gpu in gpus):
        found.append(
            _check(
                "fabric",
                not waiting and not sick,
                "Every GPU has joined the fabric of the NVSwitches.",
                f"The fabric of the NVSwitches is not ready: {states}.",
                "Start nvidia-fabricmanager and wait for it; its log is /var/log/fabricmanager.log, and NVLink 5 needs"
                " the module ib_umad first.",
            )
        )
    manager, version = facts.fabric_manager, facts.driver.module_version or facts.driver.version
    ready = bool(gpus) and all(gpu.fabric and gpu not in waiting for gpu in gpus)
    if manager is not None:
        if not manager.installed:
            state, ok = "is not installed", ready
        elif manager.active_state != "active":
            state, ok = f"is {manager.active_state or 'not active'}", ready
        else:
            ok = not (manager.version and version) or manager.version == version
            state = f"is {manager.version or 'of unknown version'} and the driver {version}"
        elsewhere = ", and the fabric is ready all the same: it is run from outside this machine" if ready else ""
        running = manager.active_state == "active"
        found.append(
            _check(
                "fabric-manager",
                ok,
                f"The fabric manager {state}{'' if running else elsewhere}.",
                f"The fabric manager {state}.",
                "Install the nvidia-fabricmanager of exactly the driver's version, enable and start it, and hold both.",
            )
        )
    return found


# --- modes ----------------------------------------------------------------------------------------------------------


def _modes(gpus: Tuple[Gpu, ...]) -> List[Check]:
    empty = [gpu for gpu in gpus if gpu.mig.enabled and not gpu.mig.instances]
    asleep = [gpu for gpu in gpus if gpu.persistence is False]
    found = [
        _check(
            "mig",
            not empty,
            "No GPU is split into nothing.",
            f"{_some(empty)} has MIG on and no instances, so that nothing can run on it.",
            "Create instances (nvidia-smi mig -cgi … -C), or switch MIG off (nvidia-smi -mig 0) and reset the GPU.",
        )
    ]
    if asleep:
        found.append(
            Check(
                "gpu.persistence",
                True,
                f"{_some(asleep)}: the driver forgets its state when nobody uses it, and the next start takes seconds"
                " longer.",
                "Enable nvidia-persistenced.service.",
            )
        )
    else:
        found.append(Check("gpu.persistence", True, "The driver keeps its state when nobody uses the GPUs."))
    return found
