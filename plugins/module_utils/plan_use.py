# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A plan as the vllm role takes it: its flags, what the site's own variables change of them, and to what effect."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import GIB, tokens

SCHEMA = 1
_NEEDED = ("schema", "model", "gpus", "fits", "flags")
# Flags that have a variable of the role: the setting, and the values with which it asks nothing.
_SETTINGS: Dict[str, Tuple[str, Tuple[Any, ...]]] = {
    "tensor-parallel-size": ("tensor_parallel_size", (1, None, "")),
    "max-model-len": ("max_model_len", ("auto", "", None)),
    "gpu-memory-utilization": ("gpu_memory_utilization", (None, "")),
    "reasoning-parser": ("reasoning_parser", ("", None)),
    "max-num-seqs": ("max_num_seqs", (None, "")),
}
# Flags of an engine that spans hosts, which the role refuses.
_SPANNING = ("nnodes", "data-parallel-size-local")


def problems(plan: Any) -> List[str]:
    """Why the role cannot serve by this plan, in sentences; no plan at all is no problem."""
    if not plan:
        return []
    if not isinstance(plan, Mapping) or any(name not in plan for name in _NEEDED):
        return ["vllm_plan is not a plan; give what `bedplate plan --json` printed, as a file or as it stands."]
    if plan["schema"] != SCHEMA:
        return [
            f"vllm_plan has schema {plan['schema']!r}, expected {SCHEMA}; make it again with `bedplate plan --json`."
        ]
    if not plan["fits"]:
        missing = f"{int(plan.get('shortfall_bytes', 0)) / GIB:,.1f} GiB are missing on each GPU"
        ways = [str(change["what"]) for change in plan.get("changes", ())]
        return [f"vllm_plan does not fit: {plan['model']} on {plan['gpus']}, {missing}. {' Or: '.join(ways)}".strip()]
    if any(name in plan["flags"] for name in _SPANNING):
        return [
            f"vllm_plan spreads one engine over hosts ({plan['gpus']}), and the role serves from one; plan for GPUs"
            " of one host."
        ]
    return []


def _asked(settings: Mapping[str, Any], flag: str) -> Optional[Any]:
    """What the site's variables say for a flag; None when they leave it open."""
    if flag in _SETTINGS:
        name, nothing = _SETTINGS[flag]
        value = settings.get(name)
        return None if value in nothing else value
    return (settings.get("extra_args") or {}).get(flag)


def _same(one: Any, other: Any) -> bool:
    return str(one) == str(other)


def planned(settings: Mapping[str, Any], plan: Any) -> Dict[str, Any]:
    """The role's settings with the plan's flags where the site's variables leave them open."""
    merged = dict(settings)
    if not plan or problems(plan):
        return merged
    extra = dict(settings.get("extra_args") or {})
    for flag, value in plan["flags"].items():
        if _asked(settings, flag) is not None:
            continue
        if flag in _SETTINGS:
            merged[_SETTINGS[flag][0]] = str(value) if flag == "max-model-len" else value
        else:
            extra[flag] = value
    merged["extra_args"] = extra
    return merged


def departures(settings: Mapping[str, Any], plan: Any) -> List[str]:
    """One sentence for each flag of the plan that a variable of the site overrides, with what that does to the fit."""
    if not plan or problems(plan):
        return []
    found = []
    for flag, value in plan["flags"].items():
        asked = _asked(settings, flag)
        if asked is not None and not _same(asked, value):
            name = f"vllm_{_SETTINGS[flag][0]}" if flag in _SETTINGS else f"vllm_extra_args: {flag}"
            found.append(f"{name} is {asked}, where the plan says {value}: {_effect(flag, asked, plan)}")
    return found


def _effect(flag: str, asked: Any, plan: Mapping[str, Any]) -> str:
    again = "plan again with it to know whether it fits."
    if plan.get("kv_bytes_per_request_per_gpu") and flag in ("max-model-len", "gpu-memory-utilization"):
        return again  # the room does not grow as its tokens do
    try:
        if flag == "max-model-len":
            room = int(plan["kv_cache_tokens"])
            length = tokens(str(asked)) or 0
            if length > room:
                return f"no request of that length fits, there is room for {room:,} tokens; the engine will not start."
            return f"{room / length:,.1f} requests of that length fit at the same time."
        if flag == "gpu-memory-utilization":
            memory = plan["memory_per_gpu"]
            usable = memory["total"] - memory["reserved_by_driver"]
            more = int((float(asked) - float(plan["flags"][flag])) * usable)
            left = int(plan["kv_cache_tokens"]) + more // int(plan["kv_bytes_per_token_per_gpu"])
            if left < int(plan["max_model_len"]):
                return f"room for {max(0, left):,} tokens is left, fewer than one request of {plan['max_model_len']:,}."
            return f"the room changes from {plan['kv_cache_tokens']:,} to {left:,} tokens."
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return again
    return {
        "reasoning-parser": "the memory stays the same.",
        "max-num-seqs": "other buffers are needed, and fewer or more requests are worked on at a time; " + again,
    }.get(flag, again)
