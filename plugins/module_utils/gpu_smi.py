# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What `nvidia-smi -q -x` says of the GPUs: the second best source, for hosts without pynvml.

It tells nothing of NVLink, and its wording changes between drivers: a value is looked for under each name that it has
had.
"""

from __future__ import annotations

import re
from typing import Dict, List, Optional, Tuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import (
    Clocks,
    Driver,
    Ecc,
    Fabric,
    Gpu,
    Memory,
    Mig,
    MigInstance,
    PciLink,
    Power,
    Process,
    Reading,
    RowRemap,
    SourceError,
    pci_address,
)

# Nothing to know, as opposed to something that could not be read.
_ABSENT = re.compile(r"\[?(n/?a|not supported|none|not active|requested functionality has been deprecated)\]?", re.I)
# `[Unknown Error]`, `[GPU is lost]`, `ERR!`
_REFUSED = re.compile(r"\[(?P<why>.+)\]|err!", re.I)
_GONE = re.compile(r"gpu is lost|requires? re(?:set|start)|fallen off the bus", re.I)
_MISMATCH = re.compile(r"version mismatch", re.I)
_NOT_LOADED = re.compile(r"couldn't communicate with the NVIDIA driver", re.I)
_FABRIC_STATES = {"not started": "not_started", "in progress": "in_progress", "completed": "completed"}


def parse(text: str) -> Reading:
    """The GPUs in the XML; SourceError when it is none."""
    try:
        root = _tree(text)
    except (expat.ExpatError, ValueError) as error:
        raise _no_answer(text, str(error)) from error
    if root.tag != "nvidia_smi_log":
        raise SourceError(f"nvidia-smi prints <{root.tag}>, not <nvidia_smi_log>.")
    version = _Values(root).text("driver_version")
    driver = Driver(version=version, cuda_version=_Values(root).text("cuda_version"))
    return Reading(tuple(_gpu(index, element) for index, element in enumerate(root.findall("gpu"))), driver)


def _no_answer(text: str, error: str) -> SourceError:
    """What nvidia-smi prints instead of XML is the reason."""
    said = " ".join(text.split())[:300]
    if _MISMATCH.search(said):
        reason = "the kernel module and the library are of different versions."
    elif _NOT_LOADED.search(said):
        reason = "the kernel module is not loaded."
    elif said and not said.startswith("<"):
        reason = f"{said.rstrip('.')}."
    else:
        reason = f"its output is no XML ({error})." if said else "it prints nothing."
    return SourceError(f"nvidia-smi does not answer: {reason}", Driver(error=reason))


def _tree(text: str) -> Element:
    """Elements and text; a document that defines entities is refused, since expanding them can take all memory."""
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def refuse(*_arguments: object) -> None:
        raise ValueError("it defines entities")

    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(text.strip(), True)
    return builder.close()


class _Values:
    """Reads below one element, and remembers what was refused."""

    def __init__(self, element: Element) -> None:
        self.element = element
        self.unreadable: Dict[str, str] = {}
        self.fatal: Optional[str] = None

    def text(self, *paths: str, name: str = "") -> Optional[str]:
        """The first of the paths that is there and has a value."""
        for path in paths:
            value = (self.element.findtext(path) or "").strip()
            refused = _REFUSED.fullmatch(value)
            if not value or _ABSENT.fullmatch(value):
                continue
            if _GONE.search(value):
                self.fatal = value.strip("[]")
            if refused:
                self.unreadable[name or path] = refused["why"] or "Unknown Error"
                continue
            return value
        return None

    def number(self, *paths: str, name: str = "") -> Optional[float]:
        """'81559 MiB', '700.00 W', '16x' and '0 %' without their units."""
        match = re.match(r"-?\d+(?:\.\d+)?", self.text(*paths, name=name) or "")
        return float(match[0]) if match else None

    def count(self, *paths: str, name: str = "") -> Optional[int]:
        number = self.number(*paths, name=name)
        return None if number is None else int(number)

    def mebibytes(self, *paths: str, name: str = "") -> Optional[int]:
        number = self.number(*paths, name=name)
        return None if number is None else int(number * 1024**2)

    def flag(self, *paths: str, name: str = "") -> Optional[bool]:
        value = self.text(*paths, name=name)
        return None if value is None else value.lower() in ("enabled", "yes", "1", "on")


def _gpu(index: int, element: Element) -> Gpu:
    values = _Values(element)
    address = pci_address(element.get("id") or "")
    gpu = Gpu(
        index=index,
        name=values.text("product_name", name="name"),
        uuid=values.text("uuid", name="uuid"),
        pci_address=address or None,
        pci_device_id=_device_id(values.text("pci/pci_device_id", name="pci_device_id")),
        architecture=_architecture(values.text("product_architecture", name="architecture")),
        memory=Memory(
            total_bytes=values.mebibytes("fb_memory_usage/total", name="memory"),
            reserved_bytes=values.mebibytes("fb_memory_usage/reserved", name="memory"),
            used_bytes=values.mebibytes("fb_memory_usage/used", name="memory"),
            free_bytes=values.mebibytes("fb_memory_usage/free", name="memory"),
        ),
        link=PciLink(
            generation=values.count("pci/pci_gpu_link_info/pcie_gen/current_link_gen", name="link.generation"),
            generation_max=values.count("pci/pci_gpu_link_info/pcie_gen/max_link_gen", name="link.generation_max"),
            width=values.count("pci/pci_gpu_link_info/link_widths/current_link_width", name="link.width"),
            width_max=values.count("pci/pci_gpu_link_info/link_widths/max_link_width", name="link.width_max"),
        ),
        ecc=_ecc(values),
        row_remap=_row_remap(values),
        mig=_mig(values),
        fabric=_fabric(values),
        power=_power(values),
        clocks=Clocks(
            sm_mhz=values.count("clocks/sm_clock", name="clocks.sm_mhz"),
            sm_max_mhz=values.count("max_clocks/sm_clock", name="clocks.sm_max_mhz"),
            memory_mhz=values.count("clocks/mem_clock", name="clocks.memory_mhz"),
            memory_max_mhz=values.count("max_clocks/mem_clock", name="clocks.memory_max_mhz"),
        ),
        persistence=values.flag("persistence_mode", name="persistence"),
        utilization_percent=values.count("utilization/gpu_util", name="utilization_percent"),
        processes=_processes(values),
        unreadable=values.unreadable,
    )
    if values.fatal:
        return Gpu(index=index, pci_address=gpu.pci_address, error=f"{values.fatal.rstrip('.')}.")
    return gpu


def _device_id(text: Optional[str]) -> Optional[str]:
    """'0x233010DE' has the device before the vendor."""
    match = re.fullmatch(r"(?:0x)?([0-9a-fA-F]{4})10[dD][eE]", text or "")
    return match[1].lower() if match else None


def _architecture(text: Optional[str]) -> Optional[str]:
    name = (text or "").lower().replace("ada lovelace", "ada")
    return name or None


def _sum(values: _Values, place: str, word: str, name: str) -> Optional[int]:
    """The counters below a place whose names have that word: new drivers count by memory and by kind of error."""
    place_found = values.element.find(place)
    tags = [] if place_found is None else [child.tag for child in place_found if word in child.tag]
    found = [values.count(f"{place}/{tag}", name=name) for tag in tags if "threshold" not in tag]
    numbers = [number for number in found if number is not None]
    return sum(numbers) if numbers else None


def _ecc(values: _Values) -> Ecc:
    return Ecc(
        enabled=values.flag("ecc_mode/current_ecc", name="ecc.enabled"),
        pending=values.flag("ecc_mode/pending_ecc", name="ecc.pending"),
        corrected_volatile=_sum(values, "ecc_errors/volatile", "_correctable", "ecc.corrected_volatile"),
        uncorrected_volatile=_sum(values, "ecc_errors/volatile", "_uncorrectable", "ecc.uncorrected_volatile"),
        uncorrected_aggregate=_sum(values, "ecc_errors/aggregate", "_uncorrectable", "ecc.uncorrected_aggregate"),
    )


def _row_remap(values: _Values) -> RowRemap:
    return RowRemap(
        correctable=values.count("remapped_rows/remapped_row_corr", name="row_remap"),
        uncorrectable=values.count("remapped_rows/remapped_row_unc", name="row_remap"),
        pending=values.flag("remapped_rows/remapped_row_pending", "retired_pages/pending_retirement", name="row_remap"),
        failed=values.flag("remapped_rows/remapped_row_failure", name="row_remap"),
    )


def _mig(values: _Values) -> Mig:
    enabled = values.flag("mig_mode/current_mig", name="mig")
    parts: List[MigInstance] = []
    for element in values.element.findall("mig_devices/mig_device") if enabled else ():
        part = _Values(element)
        parts.append(
            MigInstance(
                uuid=part.text("uuid"),
                memory_total_bytes=part.mebibytes("fb_memory_usage/total"),
                memory_free_bytes=part.mebibytes("fb_memory_usage/free"),
                multiprocessors=part.count("device_attributes/shared/multiprocessor_count"),
            )
        )
    return Mig(enabled, values.flag("mig_mode/pending_mig", name="mig"), tuple(parts))


def _fabric(values: _Values) -> Optional[Fabric]:
    # The spelling of these tags has changed more than once: cliqueId, CliqueId.
    tags = {child.tag.lower().replace("_", ""): f"fabric/{child.tag}" for child in values.element.findall("fabric/*")}

    def text(tag: str) -> Optional[str]:
        return values.text(tags[tag], name="fabric") if tag in tags else None

    state = _FABRIC_STATES.get((text("state") or "").lower())
    if state is None:
        return None
    clique = text("cliqueid")
    return Fabric(
        state=state,
        status=(text("status") or "").lower() or None,
        health=(values.text("fabric/health/summary", name="fabric") or "").lower().replace(" ", "_") or None,
        cluster_uuid=_not_zero(text("clusteruuid")),
        clique_id=int(clique) if clique and clique.isdigit() else None,
    )


def _not_zero(uuid: Optional[str]) -> Optional[str]:
    return uuid if uuid and uuid.strip("0-") else None


def _power(values: _Values) -> Power:
    def watts(*tags: str) -> Optional[float]:
        # Newest first; a GPU and its module (GH200) are apart since 545.
        paths = [f"{place}/{tag}" for place in ("gpu_power_readings", "power_readings") for tag in tags]
        return values.number(*paths, name=f"power.{tags[0]}")

    return Power(watts("current_power_limit", "power_limit"), watts("min_power_limit"), watts("max_power_limit"))


def _processes(values: _Values) -> Optional[Tuple[Process, ...]]:
    place = values.element.find("processes")
    if place is None or (values.text("processes", name="processes") is None and "processes" in values.unreadable):
        return None
    found: List[Process] = []
    for element in place.findall("process_info"):
        item = _Values(element)
        pid = item.count("pid")
        # C computes, G draws; the former takes the memory that a model needs.
        if pid is not None and "C" in (item.text("type") or "C"):
            found.append(Process(pid, item.mebibytes("used_memory")))
    return tuple(found)
