# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The planner: how a model goes onto GPUs, in which precision, with which flags, and why not otherwise.

`plan` is pure: the same question has the same answer, without a network, without a GPU, without a file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Dict, List, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import (
    plan_changes,
    plan_choice,
    plan_flags,
    plan_memory,
    plan_precision,
    plan_slo,
)
from ansible_collections.bedplate.llm.plugins.module_utils.plan_options import (
    comfortable,
    concurrency,
    placements,
    problems,
    request_bytes,
)
from ansible_collections.bedplate.llm.plugins.module_utils.plan_terms import OBJECTIVES
from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import (
    Option,
    Plan,
    PlanError,
    Question,
    Rejection,
    describe,
)


@dataclass(frozen=True)
class _Decision:
    question: Question
    option: Option
    rejected: Tuple[Rejection, ...]


def plan(question: Question) -> Plan:
    """The answer to a question; PlanError in one sentence when it has none (not when the model does not fit)."""
    _refuse(question)
    gpus = question.gpus
    if gpus.hosts > 1:
        alone = _decide(replace(question, gpus=replace(gpus, hosts=1), profile=_share(question, gpus.hosts)))
        if alone is not None and alone.option.fits:
            return _answer(question, alone, gpus.hosts)
    decision = _decide(question)
    if decision is None:
        raise PlanError(_no_placement(question))
    return _answer(question, decision, 1)


def _share(question: Question, hosts: int) -> Any:
    profile = question.profile
    return replace(profile, rate=None if profile.rate is None else profile.rate / hosts)


def _refuse(question: Question) -> None:
    if question.objective not in OBJECTIVES:
        raise PlanError(f"the objective is {question.objective!r}; choose one of {', '.join(OBJECTIVES)}.")
    if not 0.1 <= question.utilization <= 0.99:
        raise PlanError(f"the share of each GPU's memory is {question.utilization}; give one between 0.1 and 0.99.")
    if question.max_model_len is not None and question.max_model_len < 1:
        raise PlanError(f"the context is {question.max_model_len} tokens; give 1 or more.")
    profile = question.profile
    for name, value in (
        ("input", profile.input_tokens),
        ("output", profile.output_tokens),
        ("rate", profile.rate),
        ("ttft", profile.ttft_ms),
        ("tpot", profile.tpot_ms),
    ):
        if value is not None and value <= 0:
            raise PlanError(f"{name} is {value}; give a number above 0.")
    product = question.gpus.product
    reason = plan_precision.model_problem(question.precision, question.arch)
    if reason:
        raise PlanError(f"{question.model}: {reason}")
    if question.precision not in ("auto", "checkpoint"):
        reason = plan_precision.problem(question.precision, product)
        if reason:
            raise PlanError(reason)
    if question.kv_dtype != "auto":
        reason = plan_precision.kv_problem(question.kv_dtype, question.arch, product)
        if reason:
            raise PlanError(reason)
    if question.tensor or question.pipeline or question.data:
        wanted = placements(question)
        if not wanted:
            ranks = (question.tensor or 1) * (question.pipeline or 1) * (question.data or 1)
            raise PlanError(f"{ranks} GPUs are asked for and {question.gpus.label} has {question.gpus.total}.")
        precision = plan_precision.choices(question.arch, question.precision)[0]
        refused = [problems(question, each, precision) for each in wanted]
        if all(refused):
            raise PlanError(f"{question.model} cannot be placed with {describe(wanted[0])}: {refused[0][0]}")


def _decide(question: Question) -> Optional[_Decision]:
    """Tries the precisions from the best on; takes the first with room, else the first that fits, else the nearest."""
    tried: List[Tuple[str, plan_choice.Choice]] = []
    rejected: List[Rejection] = []
    for precision in plan_precision.choices(question.arch, question.precision, question.gpus.product):
        reason = plan_precision.problem(precision, question.gpus.product)
        if reason:
            rejected.append(Rejection(plan_precision.title(precision), reason))
            continue
        choice = plan_choice.choose(question, precision, question.kv_dtype)
        tried.append((precision, choice))
        if choice.best is not None and comfortable(question, choice.best):
            break
    found = [(precision, choice, choice.best) for precision, choice in tried if choice.best is not None]
    if not found:
        return None
    fitting = [each for each in found if comfortable(question, each[2])] or [each for each in found if each[2].fits]
    taken = fitting[0] if fitting else min(found, key=lambda each: each[2].shortfall)
    for precision, choice in tried:
        if precision != taken[0]:
            reason = plan_choice.precision_reason(precision, choice)
            rejected.append(Rejection(plan_precision.title(precision), reason))
    return _Decision(question, taken[2], (*rejected, *taken[1].rejected))


def _no_placement(question: Question) -> str:
    precision = plan_precision.choices(question.arch, question.precision, question.gpus.product)[0]
    reason = plan_precision.problem(precision, question.gpus.product)
    for parallelism in placements(question):
        reason = reason or next(iter(problems(question, parallelism, precision)), None)
    return f"{question.model} cannot be placed on {question.gpus.label}: {reason or 'no number of ranks divides it.'}"


def _reasons(question: Question, decision: _Decision, hosts: int) -> List[str]:
    option = decision.option
    if not option.fits:
        return [f"{option.name} {plan_choice.why_not_fit(option)}"]
    asked = "the targets" if question.profile.has_targets else question.objective
    said = [f"{option.name} is the best of the placements for {asked}."]
    if hosts > 1:
        said.append(
            f"Each of the {hosts} hosts serves the model by itself: nothing crosses between hosts, one can be restarted"
            " while the other serves, and the figures of an engine are those of one host."
        )
    if question.arch.one_cache and option.parallelism.data > 1:
        said.append(
            "The model's attention has one cache for all heads, which every tensor rank would keep whole; with"
            " data parallelism each GPU keeps the requests of its own, and expert parallelism spreads the experts."
        )
    return said


def _speed(option: Option, hosts: int) -> Optional[Dict[str, Any]]:
    if option.speed is None:
        return None
    value = asdict(option.speed)
    for name in (
        "decode_tokens_per_second_bound",
        "prefill_tokens_per_second_bound",
        "output_tokens_per_second_expected",
        "at_concurrency",
    ):
        value[name] *= hosts
    return value


def _answer(question: Question, decision: _Decision, hosts: int) -> Plan:
    """hosts: how many serve the model, each by itself."""
    asked, option = decision.question, decision.option
    where = option.parallelism
    fits = option.fits
    slo = plan_slo.service(asked, option) if fits and question.profile.has_targets else None
    warnings = plan_flags.warnings(asked, option)
    if slo is not None and not slo.met:
        warnings.insert(0, "The targets are not met: " + " ".join(slo.misses))
    return Plan(
        model=question.model,
        gpus=question.gpus.label,
        simulated=question.gpus.simulated,
        calibrated=not plan_memory.uncalibrated(asked.arch, where, asked.gpus.product, option.kv_dtype),
        fits=fits,
        shortfall_bytes=option.shortfall,
        objective=question.objective,
        precision=option.precision,
        kv_cache_dtype=option.kv_dtype,
        tensor_parallel=where.tensor,
        pipeline_parallel=where.pipeline,
        data_parallel=where.data,
        expert_parallel=where.expert,
        engines=hosts,
        gpus_used=option.gpus * hosts,
        weight_bytes_per_gpu=option.budget.weights,
        kv_bytes_per_token_per_gpu=option.kv_bytes_per_token,
        kv_cache_tokens=option.kv_tokens if fits else 0,
        kv_cache_tokens_total=option.kv_tokens * where.data * hosts if fits else 0,
        max_model_len=option.max_model_len,
        max_concurrency=round(option.kv_tokens / option.max_model_len, 2) if fits else 0.0,
        concurrent_requests=concurrency(asked, option) * hosts if fits else 0,
        memory_per_gpu=option.budget.as_dict(),
        speed=_speed(option, hosts),
        slo=None if slo is None else slo.as_dict(),
        flags=plan_flags.flags(asked, option) if fits else {},
        environment=plan_flags.environment(option) if fits else {},
        warnings=tuple(warnings),
        reasons=tuple(_reasons(question, decision, hosts)),
        rejected=decision.rejected,
        changes=() if plan_choice.enough(asked, option) else plan_changes.changes(question),
        profile=asdict(question.profile),
        engine_minimum=question.engine_minimum,
        kv_bytes_per_request_per_gpu=request_bytes(asked, option),
    )
