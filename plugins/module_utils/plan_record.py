# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The comparison of an engine with its plan as it is kept: a record beside the release, and a file of metrics.

The record is of the release's newest start, since that one serves; how earlier starts differed is what the metrics'
history is for.  The same start gives the same record, however often it is looked at.
"""

from __future__ import annotations

import calendar
import time
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.plan_compared import Figure, fields
from ansible_collections.bedplate.llm.plugins.module_utils.plan_reported import Reported

SCHEMA = 1
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_FAMILIES = (
    ("room", "bedplate_vllm_kv_cache_tokens", "Tokens that the KV cache of one engine holds."),
    ("weights", "bedplate_vllm_weight_bytes", "Memory of a GPU that loading the model took."),
    ("concurrency", "bedplate_vllm_max_concurrency", "Requests of the full length that one engine holds at a time."),
)


def usable(value: Any, release: str) -> Dict[str, Any]:
    """An earlier record of this release; empty when it is none, or of another schema."""
    if not isinstance(value, dict) or value.get("schema") != SCHEMA or value.get("release") != release:
        return {}
    return value


def record(
    release: str,
    engine: str,
    invocation: str,
    gpus: Sequence[str],
    plan: Mapping[str, Any],
    figures: Sequence[Figure],
    said: Reported,
    earlier: Mapping[str, Any],
    now: float,
) -> Dict[str, Any]:
    """What is kept of a start; gpus: the host's by name, empty when nobody looked (then an earlier look counts)."""
    reported = {
        "kv_cache_tokens": said.kv_cache_tokens,
        "max_concurrency": said.max_concurrency,
        "weight_bytes": said.weight_bytes,
    }
    known = earlier.get("invocation") == invocation and earlier.get("reported") == reported
    named = fields()
    return {
        "schema": SCHEMA,
        "release": release,
        "engine": engine,
        "invocation": invocation,
        "measured_at": earlier["measured_at"] if known else time.strftime(_TIME, time.gmtime(now)),
        "gpus": list(gpus) or list(earlier.get("gpus") or ()),
        "reported": reported,
        "weights_of": said.weights_of,
        "plan": {
            "model": plan["model"],
            "gpus": plan["gpus"],
            "calibrated": bool(plan.get("calibrated", False)),
            **{named[figure.name]: figure.planned for figure in figures},
        }
        if plan
        else None,
        "errors": {figure.name: None if figure.error is None else round(figure.error, 6) for figure in figures},
        "not_held": {figure.name: figure.not_held for figure in figures if figure.not_held},
    }


def metrics(kept: Mapping[str, Any]) -> str:
    """The record as text for Prometheus (textfile collector); a figure that is not known has no sample."""
    plan: Mapping[str, Any] = kept["plan"] or {}
    errors: Mapping[str, Any] = kept["errors"]
    named = fields()
    lines: List[str] = []
    for figure, family, what in _FAMILIES:
        values = (("planned", plan.get(named[figure])), ("reported", kept["reported"][named[figure]]))
        lines += _family(family, what, [(_labels(source=source), value) for source, value in values])
    lines += _family(
        "bedplate_vllm_plan_error_ratio",
        "Reported over planned, less one.",
        [(_labels(figure=figure), value) for figure, value in errors.items()],
    )
    lines += _family(
        "bedplate_vllm_plan_held",
        "Whether the engine is held to the plan's figure.",
        [(_labels(figure=figure), int(figure not in kept["not_held"])) for figure in errors],
    )
    measured = calendar.timegm(time.strptime(kept["measured_at"], _TIME))
    lines += _family(
        "bedplate_vllm_measured_timestamp_seconds", "When the engine's figures were read.", [("", measured)]
    )
    info = _labels(
        release=kept["release"], engine=kept["engine"], model=plan.get("model", ""), gpus=plan.get("gpus", "")
    )
    lines += _family("bedplate_vllm_plan_info", "What was measured; model and gpus are the plan's.", [(info, 1)])
    return "\n".join(lines) + "\n"


def _family(name: str, what: str, samples: Sequence[Tuple[str, Any]]) -> List[str]:
    known = [f"{name}{labels} {value!r}" for labels, value in samples if value is not None]
    return [f"# HELP {name} {what}", f"# TYPE {name} gauge", *known] if known else []


def _labels(**values: str) -> str:
    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escaped(str(value))}"' for name, value in values.items()) + "}"
