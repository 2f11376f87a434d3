# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A plan as checks: whether it fits and keeps its targets."""

from __future__ import annotations

from typing import List

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.model_weights import Parallelism
from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import GIB, Plan, describe


def checks(plan: Plan) -> List[Check]:
    """Whether the plan can be carried out."""
    where = Parallelism(plan.tensor_parallel, plan.pipeline_parallel, plan.data_parallel, plan.expert_parallel)
    remedy = " Or: ".join(f"{change.what} ({change.ask})" for change in plan.changes)
    missing = f"{plan.shortfall_bytes / GIB:,.1f}"
    found = [
        Check(
            "plan.fits",
            plan.fits,
            f"{plan.model} fits on {plan.gpus} with {describe(where)}."
            if plan.fits
            else f"{plan.model} does not fit on {plan.gpus}: {missing} GiB are missing on each GPU.",
            "" if plan.fits else remedy or "Use more or larger GPUs.",
        )
    ]
    if plan.slo is not None:
        met = bool(plan.slo["met"])
        first, others = f"{plan.slo['ttft_ms']:,.0f} ms", f"{plan.slo['tpot_ms']:.1f} ms"
        reason = f"first tokens are expected after {first} and others every {others} (p99)."
        found.append(
            Check(
                "plan.targets",
                met,
                reason if met else " ".join(plan.slo["misses"]),
                "" if met else "Use more or faster GPUs, a lower rate, or looser targets.",
            )
        )
    return found
