# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the GPUs of a host are those that a plan was made for: asked before anything is changed there."""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.bedplate.llm.plugins.module_utils import plan_use
from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_sets import GpuSet, GpuSetError, from_facts, parse
from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import GIB

# A plan for GPUs by name counts with their nominal memory, which a card may miss by a little.
MEMORY_TOLERANCE = 0.01


def host_check(plan: Mapping[str, Any], facts: Mapping[str, Any]) -> Check:
    """One check of the plan against `bedplate_gpus` of a host.

    More GPUs, or more memory in the same generation, than planned do no harm: the plan's flags work there.
    """
    refused = plan_use.problems(plan)
    if refused:
        return Check("gpu.planned", False, refused[0], _again(plan if isinstance(plan, Mapping) else {}))
    try:
        planned = parse(str(plan["gpus"]))
    except GpuSetError as error:
        return _fails(plan, f"its GPUs cannot be compared with this host's: {error}")
    if not facts.get("gpus"):
        return _fails(plan, "this host has no GPU")
    try:
        found = from_facts({"this host": facts})
    except GpuSetError as error:
        # What follows the semicolon is advice for somebody who asks for a plan.
        return _fails(plan, str(error).split(";", maxsplit=1)[0].rstrip("."))
    return _compared(plan, planned, found)


def _compared(plan: Mapping[str, Any], planned: GpuSet, found: GpuSet) -> Check:
    needed = 1
    for ranks in ("tensor_parallel", "pipeline_parallel", "data_parallel"):
        needed *= int(plan.get(ranks) or 1)
    if found.total < needed:
        return _fails(plan, f"needs {needed} GPUs of one host, and this host has {found.total} ({found.product.name})")
    if found.product.architecture != planned.product.architecture:
        return _fails(
            plan,
            f"this host has {found.label}, which are {found.product.architecture} and not"
            f" {planned.product.architecture}: precision and flags were chosen for the other generation",
        )
    memory = int((plan.get("memory_per_gpu") or {}).get("total") or planned.memory_bytes)
    if found.memory_bytes < memory * (1 - MEMORY_TOLERANCE):
        return _fails(
            plan,
            f"counts with {memory / GIB:,.1f} GiB on each GPU, and this host's have {found.memory_bytes / GIB:,.1f}"
            f" ({found.product.name})",
        )
    note = ", simulated" if found.simulated else ""
    return Check("gpu.planned", True, f"This host's {found.label}{note} can carry the plan for {plan['gpus']}.")


def _fails(plan: Mapping[str, Any], why: str) -> Check:
    made = f"vllm_plan is made for {plan['model']} on {plan['gpus']}"
    joined = f"{made}, {'and ' if why.startswith('this host') else ''}{why}."
    return Check("gpu.planned", False, joined, _again(plan))


def _again(plan: Mapping[str, Any]) -> str:
    model = plan.get("model") or "MODEL"
    return f"Plan for what is there, `bedplate plan --site SITE --model {model} --json`, or change the host's GPUs."
