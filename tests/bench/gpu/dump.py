"""Record what a real GPU machine says: facts and checks, a profile for the stand-in, and nvidia-smi's own words.

    python3 tests/bench/gpu/dump.py FOLDER

Wants Python 3.9 or newer and this checkout, nothing installed; pynvml.py may stand in PYTHONPATH.  What tells one
machine from another (UUIDs, serial numbers, process numbers) is not recorded.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

PROJECT = Path(__file__).resolve().parents[3]
UTILS = "ansible_collections.bedplate.llm.plugins.module_utils"
ROOT = Path("/")

# The profile's words for NVML's reasons; what is not here is an unknown error there.
ERRORS = {
    "Insufficient Permissions": "no_permission",
    "GPU is lost": "gpu_is_lost",
    "GPU requires restart": "reset_required",
    "Timeout": "timeout",
}


def utility(name: str) -> Any:
    """One of the collection's module_utils, from the checkout where ansible-core does not know the collection."""
    if "ansible_collections" not in sys.modules and importlib.util.find_spec("ansible_collections") is None:
        package = ""
        for part, path in (("ansible_collections", ""), ("bedplate", ""), ("llm", str(PROJECT))):
            package = f"{package}.{part}".strip(".")
            sys.modules[package] = ModuleType(package)
            sys.modules[package].__path__ = [path] if path else []
    return importlib.import_module(f"{UTILS}.{name}")


facts_of, nvml, smi, pci, host, sources, health, checks = (
    utility(name)
    for name in ("gpu_facts", "gpu_nvml", "gpu_smi", "gpu_pci", "gpu_host", "gpu_sources", "gpu_health", "checks")
)


# --- look -------------------------------------------------------------------------------------------------------------


def nvidia_smi() -> str:
    """Its output, without what tells one machine from another; nothing where it is missing."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    text = subprocess.run([tool, "-q", "-x"], capture_output=True, text=True, check=False, timeout=300).stdout
    secret = r"<(\w*(?:uuid|serial|guid|module_id|board_id|hostname)\w*)>[^<]*</\1>"
    return re.sub(secret, r"<\1>N/A</\1>", text, flags=re.IGNORECASE)


def ask_nvml() -> Any:
    try:
        import pynvml
    except ImportError as error:
        raise facts_of.SourceError("This Python has no pynvml.") from error
    return nvml.read(pynvml)


def ask_smi(text: str) -> Any:
    if not text:
        raise facts_of.SourceError("There is no nvidia-smi.")
    return smi.parse(text)


def fabric_manager() -> Any:
    def output(*argv: str) -> str:
        tool = shutil.which(argv[0])
        return subprocess.run([tool, *argv[1:]], capture_output=True, text=True, check=False).stdout if tool else ""

    show = output("systemctl", "show", "nvidia-fabricmanager.service", "-p", "LoadState,ActiveState")
    return host.parse_fabric_manager(show, output("nv-fabricmanager", "--version"))


def look(smi_text: str) -> Any:
    """As the module gpu_info does it."""
    bus = pci.scan(ROOT)
    source, reading = sources.ask(
        [
            (facts_of.NVML, ask_nvml),
            (facts_of.NVIDIA_SMI, lambda: ask_smi(smi_text)),
            (facts_of.PCI, lambda: pci.read(bus)),
        ]
    )
    installed = replace(host.read_module(ROOT), library_version=host.library_version(ROOT))
    facts = sources.assemble(source, reading, bus, host.read(ROOT), installed, fabric_manager())
    return replace(facts, gpus=tuple(nameless(gpu) for gpu in facts.gpus))


def nameless(gpu: Any) -> Any:
    """The GPU without what tells it from another of its kind."""

    def number(kind: str, index: int) -> str:
        return f"{kind}-{index:08d}-0000-4000-8000-{int(gpu.pci_device_id or '0', 16):012x}"

    parts = tuple(replace(part, uuid=number("MIG", index)) for index, part in enumerate(gpu.mig.instances))
    processes = gpu.processes and tuple(replace(each, pid=1000 + at) for at, each in enumerate(gpu.processes))
    fabric = gpu.fabric and replace(gpu.fabric, cluster_uuid=None)
    return replace(
        gpu,
        uuid=gpu.uuid and number("GPU", gpu.index),
        mig=replace(gpu.mig, instances=parts),
        processes=processes,
        fabric=fabric,
    )


# --- write a profile --------------------------------------------------------------------------------------------------


def code(names: dict[int, str], name: str | None) -> int | None:
    return next((number for number, known in names.items() if known == name), None)


def milliwatts(watts: float | None) -> int | None:
    return None if watts is None else round(watts * 1000)


def gpu_values(gpu: Any) -> Iterator[tuple[str, Any]]:
    """Key without `gpu.N.`, and value; None is not written."""
    yield from (("name", gpu.name), ("uuid", gpu.uuid), ("compute_capability", gpu.compute_capability))
    yield "architecture", code(nvml.ARCHITECTURES, gpu.architecture)
    if gpu.pci_address:
        yield "pci.bus_id", gpu.pci_address.partition(".")[0].zfill(14) + ".0"
    yield "pci.device_id", gpu.pci_device_id and f"0x{gpu.pci_device_id}"
    for name in ("total", "reserved", "used"):
        yield f"memory.{name}", getattr(gpu.memory, f"{name}_bytes")
    for group in ("link", "ecc", "row_remap", "clocks"):
        for name, value in vars(getattr(gpu, group)).items():
            yield f"{group}.{name}", value
    for name, value in vars(gpu.power).items():
        yield f"power.{name.replace('_watts', '_milliwatts')}", milliwatts(value)
    yield from (("numa_node", gpu.numa_node), ("cpu_affinity", gpu.cpu_affinity), ("persistence", gpu.persistence))
    yield "utilization_percent", gpu.utilization_percent
    yield from mig_values(gpu.mig)
    yield from nvlink_values(gpu.nvlink)
    if gpu.fabric:
        yield "fabric.state", code(nvml.FABRIC_STATES, gpu.fabric.state)
        yield "fabric.status", 0 if gpu.fabric.status == "success" else 999
        yield "fabric.clique_id", gpu.fabric.clique_id
        yield "fabric.health_summary", code(nvml.FABRIC_HEALTH, gpu.fabric.health)
    if gpu.processes is not None:
        yield "processes", len(gpu.processes)
        for index, process in enumerate(gpu.processes):
            yield f"process.{index}.pid", process.pid
            yield f"process.{index}.memory_bytes", process.memory_used_bytes


def mig_values(mig: Any) -> Iterator[tuple[str, Any]]:
    yield from (("mig.enabled", mig.enabled), ("mig.pending", mig.pending))
    if mig.enabled:
        yield "mig.slots", 7
    for index, part in enumerate(mig.instances):
        total, free = part.memory_total_bytes, part.memory_free_bytes
        yield from ((f"mig.{index}.uuid", part.uuid), (f"mig.{index}.name", part.name))
        yield from ((f"mig.{index}.memory.total", total), (f"mig.{index}.multiprocessors", part.multiprocessors))
        yield f"mig.{index}.memory.used", None if total is None or free is None else total - free


def nvlink_values(nvlink: Any) -> Iterator[tuple[str, Any]]:
    """Which link is which is not among the facts: those to a switch come first, those that are down last."""
    if nvlink is None:
        return
    yield from (("nvlink.links", nvlink.links), ("nvlink.version", nvlink.version))
    switched = nvlink.links_to_switch == nvlink.links_active
    if switched:
        yield "nvlink.*.to_switch", 1
    for link in range(nvlink.links):
        if link >= nvlink.links_active:
            yield f"nvlink.{link}.active", 0
        elif not switched and link < nvlink.links_to_switch:
            yield f"nvlink.{link}.to_switch", 1
        elif not switched and nvlink.peers:
            peer = nvlink.peers[(link - nvlink.links_to_switch) % len(nvlink.peers)]
            yield f"nvlink.{link}.bus_id", peer.zfill(16)


# Names of facts that are called otherwise in a profile.
REFUSED = {
    "memory": "memory.total",
    "row_remap": "row_remap.pending",
    "mig": "mig.enabled",
    "mig.instances": "mig.slots",
    "nvlink": "nvlink.links",
    "fabric": "fabric.state",
    "pci_address": "pci.bus_id",
}


def refusals(gpu: Any) -> Iterator[tuple[str, str]]:
    for name, reason in gpu.unreadable.items():
        yield REFUSED.get(name, name.replace("_watts", "_milliwatts")), f"!{ERRORS.get(reason.rstrip('.'), 'unknown')}"
    if gpu.error:
        yield "*", f"!{ERRORS.get(gpu.error.rstrip('.'), 'unknown')}"


def profile_of(facts: Any, comment: str) -> str:
    """Lines that make the stand-in say the same; what all GPUs have in common is said once."""
    driver, count = facts.driver, len(facts.gpus)
    cuda = [int(part) for part in (driver.cuda_version or "0.0").split(".")]
    lines: list[tuple[str, Any]] = [
        ("driver.version", driver.version),
        ("nvml.version", driver.nvml_version and driver.nvml_version.replace(nvml.SIMULATED, "")),
        ("cuda.version", cuda[0] * 1000 + cuda[1] * 10 or None),
    ]
    if driver.confidential_compute:
        state = driver.confidential_compute
        lines += [("confidential.feature", state.enabled), ("confidential.devtools", state.devtools)]
        lines.append(("confidential.environment", code(nvml.ENVIRONMENTS, state.environment)))
    lines.append(("gpu.count", count))
    each = {gpu.index: {key: value for key, value in gpu_values(gpu) if value is not None} for gpu in facts.gpus}
    sound = [gpu.index for gpu in facts.gpus if not gpu.error]
    first = each[sound[0]] if sound else {}
    common = {key: value for key, value in first.items() if all(each[index].get(key) == value for index in sound)}
    lines += [(f"gpu.*.{key}", value) for key, value in common.items()]
    for gpu in facts.gpus:
        own = [(key, value) for key, value in each[gpu.index].items() if key not in common]
        broken = list(refusals(gpu))
        # A lost GPU may still tell its address, which then outlasts the error that all else is.
        told = [("handle", 0), *own] if gpu.error and gpu.pci_address else []
        lines += [(f"gpu.{gpu.index}.{key}", value) for key, value in [*([] if told else own), *broken, *told]]
    written = [
        f"{key} = {int(value) if isinstance(value, bool) else value}" for key, value in lines if value is not None
    ]
    return "\n".join([f"# {comment}", *written]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Record what this machine's GPUs say.")
    parser.add_argument("folder", type=Path, help="where facts.json, gpu.profile and nvidia-smi.xml are written")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    text = nvidia_smi()
    facts = look(text)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    names = sorted({gpu.name for gpu in facts.gpus if gpu.name})
    record = {
        "command": "python3 tests/bench/gpu/dump.py FOLDER",
        "date": today,
        "bedplate_gpus": facts_of.as_dict(facts),
        "checks": checks.as_dicts(health.checks(facts, health.Expectations())),
    }
    (folder / "facts.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    comment = f"Recorded on {today} from {len(facts.gpus)} x {', '.join(names) or 'nothing'}."
    (folder / "gpu.profile").write_text(profile_of(facts, comment), encoding="utf-8")
    if text:
        (folder / "nvidia-smi.xml").write_text(text, encoding="utf-8")
    why = "".join(f"; {name}: {reason}" for name, reason in facts.source.unavailable.items())
    print(f"{len(facts.gpus)} GPUs ({', '.join(names)}), answered by {facts.source.answered}{why}")


if __name__ == "__main__":
    main()
