# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Open or proprietary kernel module, which branches drive a GPU, and whether a fabric manager is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Mapping, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import (
    OPEN,
    PROPRIETARY,
    DriverFacts,
    Gpu,
    Problem,
    Wanted,
)

# By NVIDIA's release notes and driver installation guides: the first branch that drives an architecture, the last one
# that drives Volta, the first with an open module, and the first without a proprietary one.
FIRST_BRANCH: Mapping[str, int] = {"ampere": 450, "ada": 525, "hopper": 525, "blackwell": 570}
LAST_BRANCH: Mapping[str, int] = {"volta": 580}
NVSWITCH, NVLINK5 = "nvswitch", "nvlink5"
FIRST_OPEN, FIRST_WITHOUT_PROPRIETARY = 515, 620
# A whole baseboard; in parts of one the fabric is run from outside.
_BASEBOARD = 8


@dataclass(frozen=True)
class Kind:
    """The module to install; None while there are problems."""

    kind: Optional[str]
    problems: Tuple[Problem, ...] = ()


def _named(gpus: Sequence[Gpu]) -> str:
    return ", ".join(sorted({gpu.product or gpu.name for gpu in gpus}))


def kind_of(facts: DriverFacts, wanted: Wanted) -> Kind:
    """What the site asks for where that is possible, else what the GPUs need."""
    need_open = [gpu for gpu in facts.gpus if gpu.open_module == "required"]
    need_proprietary = [gpu for gpu in facts.gpus if gpu.open_module == "no"]
    unknown = [gpu for gpu in facts.gpus if gpu.open_module is None]
    problems: List[Problem] = []
    asked = wanted.kernel_module
    if need_open and need_proprietary:
        problems.append(
            Problem(
                "pair",
                f"This host has {_named(need_open)}, which needs the open kernel module, and"
                f" {_named(need_proprietary)}, which needs the proprietary one: no driver drives both; take one out.",
            )
        )
    elif asked == PROPRIETARY and need_open:
        problems.append(_impossible(PROPRIETARY, need_open, OPEN))
    elif asked == OPEN and need_proprietary:
        problems.append(_impossible(OPEN, need_proprietary, PROPRIETARY))
    elif asked == "auto" and (unknown or not facts.gpus):
        seen = f"does not know {_named(unknown)}" if unknown else "finds no NVIDIA GPU on the PCI bus of this host"
        problems.append(
            Problem(
                "unknown",
                f"nvidia_driver_kernel_module is auto, and bedplate {seen}: set it to open (every generation since"
                " Turing) or proprietary.",
            )
        )
    if problems:
        return Kind(None, tuple(problems))
    kind = asked if asked != "auto" else (PROPRIETARY if need_proprietary else OPEN)
    return Kind(kind, tuple(_branch_problems(facts.gpus, wanted, kind)))


def _impossible(asked: str, gpus: Sequence[Gpu], needed: str) -> Problem:
    return Problem(
        "pair",
        f"nvidia_driver_kernel_module is {asked}, and {_named(gpus)} works with the {needed} kernel module only:"
        f" set it to {needed} or auto.",
    )


def _branch_problems(gpus: Sequence[Gpu], wanted: Wanted, kind: str) -> List[Problem]:
    branch = wanted.branch
    if not branch:
        return []
    problems: List[str] = []
    for gpu in gpus:
        name, architecture = gpu.product or gpu.name, gpu.architecture or ""
        first, last = FIRST_BRANCH.get(architecture, 0), LAST_BRANCH.get(architecture, branch)
        if branch < first:
            problems.append(f"{name} needs branch {first} or newer")
        if branch > last:
            problems.append(f"{name} is not driven by branches after {last}")
    if kind == OPEN and branch < FIRST_OPEN:
        problems.append(f"the open kernel module begins with branch {FIRST_OPEN}")
    if kind == PROPRIETARY and branch >= FIRST_WITHOUT_PROPRIETARY:
        problems.append(f"there is no proprietary kernel module from branch {FIRST_WITHOUT_PROPRIETARY} on")
    return [
        Problem(
            "pair", f"nvidia_driver_version is {wanted.version}, and {problem}: choose a version of another branch."
        )
        for problem in dict.fromkeys(problems)
    ]


def fabric_of(facts: DriverFacts, wanted: Wanted) -> str:
    """Which fabric has to be managed on this host: NVSwitch on the bus, NVLink 5 of a whole baseboard, or none.

    The switches of NVLink 5 are not on the bus.  Where the guess is wrong, nvidia_driver_fabric_manager says it.
    """
    blackwell = [gpu for gpu in facts.gpus if gpu.architecture == "blackwell" and gpu.link == "nvswitch"]
    # In racks (GB200) the fabric is run by the switch trays.
    blackwell = [gpu for gpu in blackwell if not (gpu.product or "").startswith("GB")]
    if wanted.fabric_manager == "absent":
        return ""
    if wanted.fabric_manager == "present":
        return NVLINK5 if blackwell else NVSWITCH
    if facts.nvswitches:
        return NVSWITCH
    return NVLINK5 if len(blackwell) >= _BASEBOARD else ""
