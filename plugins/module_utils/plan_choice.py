# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which placement is taken, and why each other one is not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Dict, List, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import plan_precision, plan_slo
from ansible_collections.bedplate.llm.plugins.module_utils.model_weights import Parallelism
from ansible_collections.bedplate.llm.plugins.module_utils.plan_options import comfortable, evaluated
from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import (
    GIB,
    Option,
    Question,
    Rejection,
    describe,
)

# Expected speeds that are this close are the same, as far as the roofline's margins can tell; the simpler one is taken.
ALIKE = {"latency": 0.85, "throughput": 0.85}


@dataclass(frozen=True)
class Choice:
    """best: what is taken, or what comes nearest to fitting; None when the engine refuses every placement."""

    best: Optional[Option]
    options: Tuple[Option, ...]
    rejected: Tuple[Rejection, ...]


def _plainness(option: Option) -> Tuple[int, int, bool]:
    where = option.parallelism
    return where.pipeline, where.tensor, where.expert


def _merit(question: Question, option: Option) -> float:
    """More is better: slack within the targets, speed of a stream, or tokens/s in all."""
    speed = option.speed
    if speed is None:
        return float(option.budget.kv)
    if question.profile.has_targets:
        return float(min(2.0, plan_slo.slack(question, option)))
    if question.objective == "latency":
        return float(speed.stream_tokens_per_second_expected)
    return float(speed.output_tokens_per_second_expected)


def best_of(question: Question, options: Sequence[Option]) -> Option:
    """The placement for the objective: of those that fit, and of those with room if there are any."""
    fitting = [option for option in options if option.fits]
    if not fitting:
        return min(options, key=lambda option: (option.shortfall, _plainness(option)))
    fitting = [option for option in fitting if comfortable(question, option)] or fitting
    # Tensor parallelism over hosts only when nothing else is possible.
    within = [option for option in fitting if option.parallelism.tensor <= question.gpus.gpus_per_host]
    fitting = within or fitting
    if question.profile.has_targets:
        fitting = [option for option in fitting if plan_slo.service(question, option).met] or fitting
    top = max(_merit(question, option) for option in fitting)
    alike = [option for option in fitting if _merit(question, option) >= top * ALIKE[question.objective]]
    if question.objective == "latency":
        # Among equals, the one that serves most beside it.
        most = max(option.speed.output_tokens_per_second_expected for option in alike if option.speed)
        alike = [o for o in alike if o.speed and o.speed.output_tokens_per_second_expected >= most * 0.95]
    return min(alike, key=_plainness)


def enough(question: Question, option: Option) -> bool:
    """Whether it is what was asked for: it fits, and keeps the targets if there are any."""
    return option.fits and (not question.profile.has_targets or bool(plan_slo.service(question, option).met))


def choose(question: Question, precision: str, kv_dtype: str) -> Choice:
    """The best placement in one precision, and the others with their reasons."""
    options: List[Option] = []
    refused: List[Tuple[Parallelism, str]] = []
    for parallelism, option, reason in evaluated(question, precision, kv_dtype):
        if option is None:
            refused.append((parallelism, reason))
        else:
            options.append(option)
    if not options:
        return Choice(None, (), tuple(_illegal(refused)))
    best = best_of(question, options)
    others = [option for option in options if option is not best]
    rejected = [Rejection(option.name, reason_against(question, option, best)) for option in others]
    return Choice(best, tuple(options), (*rejected, *_illegal(refused)))


def _illegal(refused: Sequence[Tuple[Parallelism, str]]) -> List[Rejection]:
    """One rejection for each number of tensor ranks, since that is what the engine refuses nearly always."""
    seen: Dict[Tuple[str, int], str] = {}
    for parallelism, reason in refused:
        name = describe(replace(parallelism, data=1, expert=False))
        seen.setdefault((reason, parallelism.tensor), name)
    return [Rejection(name, reason) for (reason, _tensor), name in seen.items()]


def gib(size: float) -> str:
    return f"{size / GIB:,.1f} GiB"


def tokens(number: int) -> str:
    """12,345 as people say it: 12k; 2,087,248: 2.09M."""
    if number >= 1_000_000:
        return f"{number / 1e6:.2f}M"
    return f"{number / 1000:.0f}k" if number >= 10_000 else f"{number:,}"


def why_not_fit(option: Option) -> str:
    """Where the memory goes of a placement that does not fit."""
    budget = option.budget
    beside = budget.requested - budget.weights - budget.kv
    if budget.kv <= 0:
        return (
            f"does not fit: each GPU needs {gib(budget.weights)} for weights and {gib(beside)} beside them, and the"
            f" engine may use {gib(budget.requested)}; {gib(option.shortfall)} are missing."
        )
    return (
        f"does not fit: {gib(budget.kv)} are left for the KV cache, and one request of {option.max_model_len:,} tokens"
        f" needs {gib(option.shortfall)} more."
    )


def reason_against(question: Question, option: Option, best: Option) -> str:
    """Why this placement is not taken, in a sentence."""
    where, taken = option.parallelism, best.parallelism
    if option.speed is None or best.speed is None:  # those that do not fit have none
        return why_not_fit(option)
    if comfortable(question, best) and not comfortable(question, option):
        return f"leaves room for {tokens(option.kv_tokens)} tokens only, too few for more than a long request."
    if where.tensor > question.gpus.gpus_per_host:
        return "tensor parallelism would cross hosts in every layer; others fit within a host."
    if question.profile.has_targets and not plan_slo.service(question, option).met:
        return str("misses the targets: " + plan_slo.service(question, option).misses[0])
    if question.profile.has_targets:
        ours, theirs = plan_slo.slack(question, option), plan_slo.slack(question, best)
        less = "with less to spare" if ours < theirs else "and is less simple"
        return f"keeps the targets too, {less}: {ours:.1f} times as good as they ask, against {theirs:.1f}."
    if question.objective == "latency":
        ours, theirs = option.speed.stream_tokens_per_second_expected, best.speed.stream_tokens_per_second_expected
        unit = "tokens/s of one stream"
    else:
        ours, theirs = option.speed.output_tokens_per_second_expected, best.speed.output_tokens_per_second_expected
        unit = "tokens/s in all"
    compared = f"{ours:,.0f} {unit} are expected, against {theirs:,.0f}"
    if where.pipeline > taken.pipeline:
        return f"stages of a pipeline wait for each other and shorten no token's way; {compared}."
    if where.tensor > taken.tensor and not question.gpus.linked(where.tensor):
        return f"there is no NVLink between these GPUs, and every layer would wait for PCIe twice; {compared}."
    if question.arch.one_cache and where.tensor > taken.tensor:
        total = option.kv_tokens * where.data
        kind = "latent" if question.arch.mla is not None else "compressed"
        return (
            f"{kind} attention keeps the whole cache on every tensor rank: {tokens(total)} tokens in all, against"
            f" {tokens(best.kv_tokens * taken.data)}; {compared}."
        )
    if question.objective == "latency" and where.tensor < taken.tensor:
        return f"each GPU reads more weights for a token; {compared}."
    if ours >= theirs * ALIKE[question.objective]:
        return f"as fast, as far as can be told, and less simple; {compared}."
    return f"slower: {compared}."


def precision_reason(precision: str, choice: Choice) -> str:
    """Why a precision that was tried first is not taken."""
    name = plan_precision.title(precision)
    if choice.best is None:
        return choice.rejected[0].reason if choice.rejected else f"{name} has no placement here."
    if not choice.best.fits:
        return f"{choice.best.name} {why_not_fit(choice.best)}"
    room = tokens(choice.best.kv_tokens)
    return f"{choice.best.name} would hold {room} tokens only, too few for more than a long request."
