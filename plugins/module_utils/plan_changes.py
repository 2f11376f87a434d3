# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What would make a model fit that does not, or keep targets that it misses, the cheapest change first."""

from __future__ import annotations

from dataclasses import replace
from typing import Iterator, List, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import plan_precision
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_generations import find
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_sets import GpuSet
from ansible_collections.bedplate.llm.plugins.module_utils.plan_choice import choose, enough, gib, tokens
from ansible_collections.bedplate.llm.plugins.module_utils.plan_options import LEAST_CONTEXT, comfortable
from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import Change, Option, Question

# Cards to look at when no number of the given ones will do, by what they cost.
_LARGER = ("L40S", "A100-80G", "H100", "H200", "B200", "B300")
_MOST_HOSTS = 8
_CONTEXT_STEPS = (131072, 65536, 32768, 16384, 8192)


def first_fit(question: Question) -> Optional[Option]:
    """The best placement in the first precision with room for more than one long request, else the first that fits."""
    stored = plan_precision.of_checkpoint(question.arch)
    fitting: Optional[Option] = None
    for precision in plan_precision.choices(question.arch, question.precision):
        # What the engine makes of the files itself must start from files that it can read.
        unreadable = precision != stored and question.precision == "auto" and stored != "bf16"
        if unreadable or plan_precision.problem(precision, question.gpus.product):
            continue
        best = choose(question, precision, question.kv_dtype).best
        if best is None or not enough(question, best):
            continue
        if comfortable(question, best):
            return best
        fitting = fitting or best
    return fitting


def _result(option: Option) -> str:
    room = tokens(option.kv_tokens)
    return f"{option.name}, {gib(option.budget.weights)} of weights on each GPU, room for {room} tokens"


def _shorter(question: Question) -> Iterator[Change]:
    if question.max_model_len is None:
        return
    for length in _CONTEXT_STEPS:
        if length >= question.max_model_len:
            continue
        option = first_fit(replace(question, max_model_len=length))
        if option is not None:
            yield Change(f"Limit the context to {length:,} tokens ({_result(option)}).", f"--max-model-len {length}")
            return


def _smaller_kv(question: Question) -> Iterator[Change]:
    if question.arch.compressed is not None:  # it has no other
        return
    kv_dtype = plan_precision.smaller_kv(question.arch)
    refused = plan_precision.kv_problem(kv_dtype, question.arch, question.gpus.product)
    if question.kv_dtype != "auto" or refused:
        return
    option = first_fit(replace(question, kv_dtype=kv_dtype))
    if option is not None:
        yield Change(f"Keep the KV cache in fp8 ({_result(option)}).", f"--kv-dtype {kv_dtype}")


def _quantised(question: Question) -> Iterator[Change]:
    if question.arch.compressed is not None:
        return
    stored = plan_precision.of_checkpoint(question.arch)
    # A precision that had room, and was too slow for the targets, is tried no further; the next one may be faster.
    tried = (stored,) if question.profile.has_targets else plan_precision.choices(question.arch, question.precision)
    for precision in plan_precision.ORDER:
        later = plan_precision.ORDER.index(precision) > plan_precision.ORDER.index(stored)
        if precision in tried or not later or precision == "gptq_int4":
            continue
        if precision in ("fp8", "fp8_block") and stored != "bf16":
            continue
        if precision == "fp8_block" or plan_precision.problem(precision, question.gpus.product):
            continue
        option = first_fit(replace(question, precision=precision))
        if option is not None:
            name = next((r.model for r in question.recipes if r.precision == precision and r.model), "")
            own = name or precision not in plan_precision.ONLINE
            files = f", with the files of {name}" if name else ", with a checkpoint of that kind" if own else ""
            yield Change(
                f"Serve it in {plan_precision.title(precision)}{files} ({_result(option)}).", f"--precision {precision}"
            )


def _sets(question: Question) -> Iterator[GpuSet]:
    """More of the same GPUs: up to eight in the host, then more hosts where GPUs of a host are well linked."""
    gpus = question.gpus
    if gpus.hosts == 1:
        for size in (2, 4, 8):
            if size > gpus.gpus_per_host:
                yield replace(gpus, gpus_per_host=size)
    if gpus.product.link == "nvswitch":
        for hosts in range(max(2, gpus.hosts + 1), _MOST_HOSTS + 1):
            yield replace(gpus, hosts=hosts, gpus_per_host=max(8, gpus.gpus_per_host))


def _first_set(question: Question, sets: Sequence[GpuSet], precisions: Sequence[str]) -> Optional[Change]:
    """The first set with room for more than one long request, else the first that fits."""
    fitting: Optional[Change] = None
    for gpus in sets:
        for precision in precisions:
            asked = replace(question, gpus=gpus, precision=precision)
            option = first_fit(asked)
            if option is None:
                continue
            suffix = f" --precision {precision}" if precision != "auto" else ""
            what = f"Use {gpus.label} in {plan_precision.title(option.precision)} ({_result(option)})."
            change = Change(what, f"--gpus {gpus.label}{suffix}")
            if comfortable(asked, option):
                return change
            fitting = fitting or change
    return fitting


def _more(question: Question) -> Iterator[Change]:
    refused = plan_precision.problem(plan_precision.of_checkpoint(question.arch), question.gpus.product)
    others = refused and question.precision == "auto" and question.arch.compressed is None
    precisions = ["awq_int4", "bf16"] if others else [question.precision]
    change = _first_set(question, list(_sets(question)), precisions)
    if change is not None:
        yield change


def _larger(question: Question) -> Iterator[Change]:
    """Larger GPUs: the same number of them, or a host of eight."""
    for count in sorted({question.gpus.gpus_per_host, 8}):
        sets = []
        for name in _LARGER:
            product = find(name)
            if product is not None and product.memory_bytes > question.gpus.memory_bytes:
                sets.append(GpuSet(question.gpus.hosts, count, product, product.memory_bytes))
        change = _first_set(question, sets, [question.precision])
        if change is not None:
            yield change
            return


def changes(question: Question) -> Tuple[Change, ...]:
    """What would make it fit and keep the targets, the cheapest first; each was asked again and has an answer."""
    found: List[Change] = []
    for source in (_shorter, _smaller_kv, _quantised, _more, _larger):
        found += source(question)
    if not found and (question.max_model_len or 0) > LEAST_CONTEXT:
        return changes(replace(question, max_model_len=None))
    return tuple(found)
