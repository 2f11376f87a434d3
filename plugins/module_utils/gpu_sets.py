# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What GPUs a plan is made for: named on the command line ("2x8xH100"), or the facts of `bedplate.llm.gpu_info`.

Both give the same thing, a `GpuSet` of equal GPUs in equal hosts, and errors of one sentence.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.gpu_generations import MEASURED, PRODUCTS, Product, find

# Between hosts, bytes/s of one GPU in one direction: a 400 Gbit/s adapter for each GPU, as in HGX servers.
BETWEEN_HOSTS = 50e9
MOST_GPUS_PER_HOST = 16
MOST_HOSTS = 64


class GpuSetError(ValueError):
    """The GPUs cannot be planned for; the message is one sentence for the user."""


@dataclass(frozen=True)
class GpuSet:
    """Equal GPUs in equal hosts.

    memory_bytes: of one GPU, as NVML reports it.
    simulated: whether the GPUs are only named, or those of a lab's profile, and no card was looked at.
    """

    hosts: int
    gpus_per_host: int
    product: Product
    memory_bytes: int
    simulated: bool = True
    notes: Tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return self.hosts * self.gpus_per_host

    @property
    def label(self) -> str:
        hosts = f"{self.hosts}x" if self.hosts > 1 else ""
        return f"{hosts}{self.gpus_per_host}x{self.product.name.replace(' ', '-')}"

    def linked(self, gpus: int) -> bool:
        """Whether that many GPUs of one host reach each other over NVLink."""
        if gpus <= 1 or self.product.link == "nvswitch":
            return True
        return bool(self.product.link == "bridge" and gpus <= self.product.link_group)

    def bandwidth_between(self, gpus: int) -> float:
        """bytes/s each way that one GPU has to the others of a group of that many.

        Over PCIe the peers of one host share the root complex, so half the link's rate is what remains in practice
        (uncalibrated; NCCL's bus bandwidth on such hosts is published between a third and two thirds of the link).
        """
        if gpus > self.gpus_per_host:
            return BETWEEN_HOSTS
        if self.linked(gpus):
            return float(self.product.link_each_way)
        return (64e9 if self.product.architecture in ("hopper", "blackwell") else 32e9) / 2


_SET = re.compile(r"(?:(?P<hosts>[0-9]+)\s*[x×]\s*)?(?P<gpus>[0-9]+)\s*[x×]\s*(?P<name>[A-Za-z].*)", re.IGNORECASE)


def _known(name: str) -> Product:
    product = find(name)
    if product is not None:
        return product
    names = sorted({word for each in PRODUCTS if not each.too_old for word in (each.name, *each.aliases)})
    lowered = {word.lower(): word for word in names}
    close = [lowered[word] for word in difflib.get_close_matches(name.lower(), list(lowered), n=3, cutoff=0.5)]
    hint = (
        f"did you mean {' or '.join(close)}?"
        if close
        else "known are " + ", ".join(each.name for each in PRODUCTS if not each.too_old) + "."
    )
    raise GpuSetError(f"the GPU {name!r} is not known; {hint}")


def _usable(product: Product) -> Product:
    if product.too_old:
        raise GpuSetError(
            f"the engine cannot serve on a {product.name}: {product.too_old}; use an Ampere GPU or newer."
        )
    return product


def parse(text: str) -> GpuSet:
    """A set as people write it: [HOSTSx]GPUSxNAME, such as 8xH200, 2x8xH100, 1xRTX4090 or 4xA100-40G.

    GpuSetError in one sentence when it is not one, or not a plausible one.
    """
    match = _SET.fullmatch(text.strip())
    if match is None:
        example = f"; one of them is 1x{text.strip()}" if find(text) else ""
        raise GpuSetError(
            f"{text!r} is not a set of GPUs{example}; write GPUSxNAME such as 8xH200, or HOSTSxGPUSxNAME such as"
            " 2x8xH100."
        )
    hosts, gpus = int(match["hosts"] or 1), int(match["gpus"])
    if not 1 <= gpus <= MOST_GPUS_PER_HOST:
        hosts_of_eight = f"{gpus // 8}x8x" if gpus and gpus % 8 == 0 else "2x8x"
        raise GpuSetError(
            f"{text!r} asks for {gpus} GPUs in one host, and a host has 1 to {MOST_GPUS_PER_HOST};"
            f" write several hosts as {hosts_of_eight}{match['name']}."
        )
    if not 1 <= hosts <= MOST_HOSTS:
        raise GpuSetError(f"{text!r} asks for {hosts} hosts; plan for 1 to {MOST_HOSTS} hosts.")
    product = _usable(_known(match["name"]))
    if product.architecture and "aarch64" in product.source and gpus > 4:
        raise GpuSetError(f"{text!r}: a host of {product.name} has 4 GPUs at most; write {gpus // 4}x4x{product.name}.")
    notes = (
        ()
        if product.memory_source == MEASURED
        else (f"The memory of the {product.name} is nominal, not read from a card.",)
    )
    return GpuSet(hosts, gpus, product, product.memory_bytes, True, notes)


def _at(value: Mapping[str, Any], path: str) -> Any:
    """What stands under a dotted key; None when a part of it is missing."""
    found: Any = value
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _one_host(name: str, facts: Mapping[str, Any]) -> Tuple[Product, int, int, bool]:
    gpus = [gpu for gpu in facts.get("gpus") or [] if isinstance(gpu, Mapping)]
    if not gpus:
        raise GpuSetError(
            f"{name}: no GPU was found there; run `bedplate.llm.gpu_info` on it and look at its findings."
        )
    for number, gpu in enumerate(gpus):
        label = f"{name}: GPU {gpu.get('index', number)}"
        if gpu.get("error"):
            raise GpuSetError(f"{label} does not answer ({gpu['error']}); put that right, or name GPUs with --gpus.")
        if _at(gpu, "mig.enabled"):
            raise GpuSetError(
                f"{label} is split (MIG), which is not planned; switch MIG off, or name GPUs with --gpus."
            )
    names = [str(gpu.get("product") or gpu.get("name") or "") for gpu in gpus]
    if len(set(names)) > 1:
        raise GpuSetError(
            f"{name} has GPUs of different kinds ({', '.join(sorted(set(names)))}); the engine needs equal ones:"
            " plan for those of one kind with --gpus."
        )
    product = _usable(_known(names[0]))
    known = [int(size) for size in (_at(gpu, "memory.total_bytes") for gpu in gpus) if size]
    # The smallest one decides: the engine uses the same number of blocks everywhere.
    memory = min(known) if known else product.memory_bytes
    return product, len(gpus), memory, bool(facts.get("simulated"))


def from_facts(hosts: Mapping[str, Mapping[str, Any]]) -> GpuSet:
    """The set of several hosts, from `bedplate_gpus` of each by its name; GpuSetError when they are not alike."""
    if not hosts:
        raise GpuSetError("no host was asked for its GPUs; name hosts, or GPUs with --gpus.")
    seen: Dict[str, Tuple[Product, int, int, bool]] = {name: _one_host(name, facts) for name, facts in hosts.items()}
    kinds: List[Tuple[str, str]] = [(f"{found[1]}x{found[0].name}", name) for name, found in seen.items()]
    if len({kind for kind, _name in kinds}) > 1:
        listed = ", ".join(f"{name} has {kind}" for kind, name in kinds)
        raise GpuSetError(f"the hosts are not alike ({listed}); plan for each kind alone with --limit.")
    values: Sequence[Tuple[Product, int, int, bool]] = list(seen.values())
    product, gpus = values[0][0], values[0][1]
    return replace(
        GpuSet(len(values), gpus, product, min(value[2] for value in values)),
        simulated=any(value[3] for value in values),
    )
