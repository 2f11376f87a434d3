# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What would make a model fit that does not, the cheapest change first."""

from __future__ import annotations

from dataclasses import replace
from typing import Iterator, List, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import plan_precision
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_generations import find
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_sets import GpuSet
from ansible_collections.bedplate.llm.plugins.module_utils.plan_choice import choose, gib, tokens
from ansible_collections.bedplate.llm.plugins.module_utils.plan_options import LEAST_CONTEXT
from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import Change, Option, Question

# Cards to look at when no number of the given ones will do, by what they cost.
_LARGER = ("L40S", "A100-80G", "H100", "H200", "B200", "B300")
_MOST_HOSTS = 4
_CONTEXT_STEPS = (131072, 65536, 32768, 16384, 8192)


def first_fit(question: Question) -> Optional[Option]:
    """The first precision of the question's that has a placement that fits."""
    stored = plan_precision.of_checkpoint(question.arch)
    for precision in plan_precision.choices(question.arch, question.precision):
        if plan_precision.problem(precision, question.gpus.product):
            continue
        # What the engine makes of the files itself must start from files that it can read.
        if precision != stored and question.precision == "auto" and stored != "bf16":
            continue
        best = choose(question, precision, question.kv_dtype).best
        if best is not None and best.fits:
            return best
    return None


def _result(option: Option) -> str:
    return f"{option.name}, {gib(option.budget.weights)} of weights on each GPU, room for {tokens(option.kv_tokens)} tokens"


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
    kv_dtype = plan_precision.smaller_kv(question.arch)
    refused = plan_precision.kv_problem(kv_dtype, question.arch, question.gpus.product)
    if question.kv_dtype != "auto" or refused:
        return
    option = first_fit(replace(question, kv_dtype=kv_dtype))
    if option is not None:
        yield Change(f"Keep the KV cache in fp8 ({_result(option)}).", f"--kv-dtype {kv_dtype}")


def _quantised(question: Question) -> Iterator[Change]:
    stored = plan_precision.of_checkpoint(question.arch)
    tried = plan_precision.choices(question.arch, question.precision)
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
            files = f", with the files of {name}" if name else ", with a checkpoint of that kind"
            yield Change(
                f"Serve it in {plan_precision.title(precision)}{files} ({_result(option)}).", f"--precision {precision}"
            )


def _more(question: Question) -> Iterator[Change]:
    """More of the same GPUs: in the host up to eight, then more hosts; the first number that does it."""
    gpus = question.gpus
    sizes = [size for size in (2, 4, 8) if size > gpus.gpus_per_host] if gpus.hosts == 1 else []
    sets = [replace(gpus, gpus_per_host=size) for size in sizes]
    full = max(8, gpus.gpus_per_host)
    sets += [
        replace(gpus, hosts=hosts, gpus_per_host=full) for hosts in range(2, _MOST_HOSTS + 1) if hosts > gpus.hosts
    ]
    stored_problem = plan_precision.problem(plan_precision.of_checkpoint(question.arch), gpus.product)
    precisions = [question.precision] if not stored_problem or question.precision != "auto" else ["awq_int4", "bf16"]
    for larger in sets:
        for precision in precisions:
            option = first_fit(replace(question, gpus=larger, precision=precision))
            if option is not None:
                suffix = f" --precision {precision}" if precision != "auto" else ""
                in_precision = f" in {plan_precision.title(option.precision)}"
                yield Change(f"Use {larger.label}{in_precision} ({_result(option)}).", f"--gpus {larger.label}{suffix}")
                return


def _larger(question: Question) -> Iterator[Change]:
    """The same number of larger GPUs."""
    for name in _LARGER:
        product = find(name)
        if product is None or product.memory_bytes <= question.gpus.memory_bytes:
            continue
        other = GpuSet(question.gpus.hosts, question.gpus.gpus_per_host, product, product.memory_bytes)
        option = first_fit(replace(question, gpus=other))
        if option is not None:
            yield Change(f"Use {other.label} ({_result(option)}).", f"--gpus {other.label}")
            return


def changes(question: Question) -> Tuple[Change, ...]:
    """What would make it fit, the cheapest first: each is a question that was asked again and has an answer."""
    found: List[Change] = []
    for source in (_shorter, _smaller_kv, _quantised, _more, _larger):
        found += source(question)
    if not found and (question.max_model_len or 0) > LEAST_CONTEXT:
        return changes(replace(question, max_model_len=None))
    return tuple(found)
