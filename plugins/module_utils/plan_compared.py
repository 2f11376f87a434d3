# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an engine reports against what its plan said: one figure and one check for room, weights and concurrency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.plan_reported import Reported
from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import GIB

# A little less room is what the planner's own error can be; more than planned is no problem.
ROOM_TOLERANCE = 0.05
# Other weights than planned are a problem either way: then something else is served than what was planned.
WEIGHTS_TOLERANCE = 0.02
# The engine rounds to 0.01 GiB, which is more than the tolerance for very small models.
_ROUNDING_BYTES = 0.005 * GIB

_METRICS = "Look for vllm:cache_config_info in what the engine answers to /metrics."
_JOURNAL = (
    "Its journal since the start is gone, or it logs in a form of its own: restart it when it suits, and run the"
    " rollout, which keeps the figure."
)
_LESS_ROOM = "Something else uses the GPU's memory, or the plan is of other GPUs: plan again with this host's GPUs."
_OTHER_WEIGHTS = (
    "The engine loads other weights than were planned: plan again from the model's own files (`bedplate plan --model"
    " FOLDER`); if the error stays, the planner is wrong about this model."
)


@dataclass(frozen=True)
class Figure:
    """One figure of a plan, and what the engine says of it (None: nothing).

    not_held: why the engine is not held to it, as a sentence; empty when it is.
    """

    name: str
    planned: float
    reported: Optional[float]
    not_held: str = ""

    @property
    def error(self) -> Optional[float]:
        """Relative to the plan: -0.05 is 5 % less than planned."""
        return None if self.reported is None else self.reported / self.planned - 1


@dataclass(frozen=True)
class _Kind:
    """How a figure is read: its field in the record and the report, its sentence, and when it is right."""

    name: str
    field: str
    planned: Callable[[Mapping[str, Any]], float]
    says: Callable[[float, float], str]
    silent: str
    silent_remedy: str
    remedy: str
    ok: Callable[[float, float], bool]


def _planned_weights(plan: Mapping[str, Any]) -> int:
    """As the engine counts them: with what it puts beside them while it loads."""
    return int(plan["weight_bytes_per_gpu"] + plan["memory_per_gpu"]["beside_weights"])


def _enough(planned: float, found: float) -> bool:
    return found / planned - 1 >= -ROOM_TOLERANCE


def _alike(planned: float, found: float) -> bool:
    return bool(abs(found - planned) <= WEIGHTS_TOLERANCE * planned + _ROUNDING_BYTES)


_KINDS = (
    _Kind(
        "room",
        "kv_cache_tokens",
        lambda plan: int(plan["kv_cache_tokens"]),
        lambda planned, found: f"The KV cache holds {found:,.0f} tokens and the plan says {planned:,.0f}",
        "The engine does not say how many tokens its KV cache holds",
        _METRICS,
        _LESS_ROOM,
        _enough,
    ),
    _Kind(
        "weights",
        "weight_bytes",
        _planned_weights,
        lambda planned, found: (
            f"Loading the model took {found / GIB:,.2f} GiB of a GPU and the plan says {planned / GIB:,.2f}"
        ),
        "The engine does not say how much memory its model took",
        _JOURNAL,
        _OTHER_WEIGHTS,
        _alike,
    ),
    _Kind(
        "concurrency",
        "max_concurrency",
        lambda plan: float(plan["max_concurrency"]),
        lambda planned, found: (
            f"The engine holds {found:,.2f} requests of its full length at a time and the plan says {planned:,.2f}"
        ),
        "The engine does not say how many requests of its full length it holds at a time",
        _METRICS,
        "Look at vllm.planned-room: the room is smaller, or the longest request longer, than planned.",
        _enough,
    ),
)


def fields() -> Dict[str, str]:
    """The field of each figure by its name."""
    return {kind.name: kind.field for kind in _KINDS}


def compare(plan: Mapping[str, Any], departures: Sequence[str], said: Reported) -> List[Figure]:
    """Each figure that the plan has; departures: what the site changes of the plan's flags."""
    figures = []
    for kind in _KINDS:
        try:
            planned = kind.planned(plan)
        except (KeyError, TypeError, ValueError):
            continue
        if planned > 0:
            figures.append(
                Figure(kind.name, planned, getattr(said, kind.field), _not_held(kind.name, plan, departures))
            )
    return figures


def _not_held(name: str, plan: Mapping[str, Any], departures: Sequence[str]) -> str:
    if departures:
        return "the site's variables depart from the plan's flags."
    if not plan.get("calibrated", False):
        return "the plan's memory model is not calibrated for this kind of model."
    if name == "weights" and int(plan.get("pipeline_parallel") or 1) > 1:
        return "the engine says it of its first pipeline stage only, and the plan of the fullest one."
    return ""


def checks(figures: Sequence[Figure], said: Reported) -> List[Check]:
    """One check a figure.  The error is in the reason either way, also where the engine is not held to the plan."""
    kinds = {kind.name: kind for kind in _KINDS}
    return [_check(kinds[figure.name], figure, said) for figure in figures]


def _check(kind: _Kind, figure: Figure, said: Reported) -> Check:
    if figure.reported is None or figure.error is None:
        right, remedy = False, kind.silent_remedy
        reason = f"{kind.silent}, so that the plan's cannot be compared."
    else:
        right, remedy = kind.ok(figure.planned, figure.reported), kind.remedy
        reason = f"{kind.says(figure.planned, figure.reported)} ({figure.error:+.1%})."
        if kind.name == "weights" and said.weights_of:
            reason += f" The journal has lost this start; the figure is of the release's start of {said.weights_of}."
    if figure.not_held:
        return Check(f"vllm.planned-{kind.name}", True, f"{reason} It is not held to that: {figure.not_held}")
    return Check(f"vllm.planned-{kind.name}", right, reason, "" if right else remedy)
