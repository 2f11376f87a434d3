# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every way to place a model on a set of GPUs, and what comes of each: memory, tokens, context, speed."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, Iterator, List, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import (
    model_kv_compressed,
    model_limits,
    plan_memory,
    roofline,
)
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_sets import GpuSet
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import Architecture
from ansible_collections.bedplate.llm.plugins.module_utils.model_kv import (
    kv_bytes_for_request,
    kv_bytes_per_token_per_gpu,
    pool,
)
from ansible_collections.bedplate.llm.plugins.module_utils.model_weights import (
    Parallelism,
    parameters,
    weight_bytes_per_gpu,
)
from ansible_collections.bedplate.llm.plugins.module_utils.plan_precision import calculates
from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import Budget, Option, Question, Speed

# A context below this is not worth serving: reasoning models think for 4k to 16k tokens.
LEAST_CONTEXT = 8192
# With fewer tokens than this (three requests of 16k), another precision is looked for.
COMFORTABLE_TOKENS = 49152
# Lengths that the planner chooses itself are whole multiples of it.
_ROUND = 1024
# FlashMLA's blocks, and everybody else's.
_MLA_BLOCK, _BLOCK = 64, 16


def placements(question: Question) -> List[Parallelism]:
    """Numbers of ranks to consider, legal or not: what uses all GPUs, or as many as can be used."""
    gpus, arch = question.gpus, question.arch
    found = []
    for tensor in _tensor_sizes(question):
        for pipeline in _pipeline_sizes(question, gpus.total // tensor if tensor <= gpus.total else 0):
            group = tensor * pipeline
            data = question.data or gpus.total // group
            if group * data > gpus.total or (question.data is None and not _stands_well(gpus, tensor)):
                continue
            if arch.moe is None:
                found.append(Parallelism(tensor, pipeline, data, False))
                continue
            # Data ranks with stages of their own would tear the group that shares the experts over hosts.
            if data > 1 and pipeline > 1:
                continue
            # With several data ranks a mixture's experts are spread: EP is how the engine does that well.
            if data == 1:
                found.append(Parallelism(tensor, pipeline, 1, False))
            if tensor * data > 1:
                found.append(Parallelism(tensor, pipeline, data, True))
    return found


def _tensor_sizes(question: Question) -> List[int]:
    if question.tensor is not None:
        return [question.tensor]
    gpus = question.gpus
    sizes = {size for size in range(1, gpus.gpus_per_host + 1) if gpus.gpus_per_host % size == 0 or size in (2, 4, 8)}
    if gpus.hosts > 1:
        sizes.add(gpus.total)
    return sorted(sizes)


def _pipeline_sizes(question: Question, most: int) -> List[int]:
    if question.pipeline is not None:
        return [question.pipeline] if question.pipeline <= most else []
    return [size for size in range(1, min(most, question.arch.layers) + 1) if most % size == 0]


def _stands_well(gpus: GpuSet, tensor: int) -> bool:
    """Whether no tensor group is torn over hosts that it could do without."""
    return bool(gpus.hosts == 1 or tensor > gpus.gpus_per_host or gpus.gpus_per_host % tensor == 0)


def of_engine(arch: Architecture, parallelism: Parallelism) -> Parallelism:
    """As one engine sees it: data ranks of a dense model are engines of their own."""
    return parallelism if arch.moe is not None else replace(parallelism, data=1)


def problems(question: Question, parallelism: Parallelism, precision: str) -> List[str]:
    """Why the engine would refuse the placement; empty when it would not."""
    return list(model_limits.problems(question.arch, precision, of_engine(question.arch, parallelism)))


def block_size(arch: Architecture) -> int:
    """Tokens of a block of the KV cache, as the engine's default attention for the model has it."""
    if arch.compressed is not None:
        return int(model_kv_compressed.BLOCK)
    return _MLA_BLOCK if arch.mla is not None else _BLOCK


def in_flight(parallelism: Parallelism, max_num_batched_tokens: int) -> int:
    """Tokens of steps that are not settled, for which windows keep blocks: one step more than there are stages.

    vllm/config/vllm.py, max_concurrent_batches: the next step is scheduled while the last one still runs.
    """
    return int((parallelism.pipeline + 1) * max_num_batched_tokens)


def request_bytes(question: Question, option: Option) -> int:
    """What a request holds on a GPU at its worst moment, beside what its tokens take: windows, and sums that are not
    finished; 0 where all layers keep all tokens."""
    where, arch = option.parallelism, question.arch
    cache = pool(arch, option.kv_dtype, where.tensor, where.pipeline, 1, option.block_size)
    if not cache.slides:
        return 0
    flying, length = in_flight(where, option.max_num_batched_tokens), option.max_model_len
    return int(cache.request_blocks(length, flying) * cache.block_bytes - length * option.kv_bytes_per_token)


def evaluate(question: Question, parallelism: Parallelism, precision: str, kv_dtype: str) -> Option:
    """What the placement comes to.  With no length asked for, the longest that fits, at most the model's own."""
    arch, gpus = question.arch, question.gpus
    engine = of_engine(arch, parallelism)
    weights = weight_bytes_per_gpu(arch, precision, engine)
    seqs, batched = plan_memory.batch_sizes(arch, engine, gpus.product, gpus.memory_bytes)
    block = block_size(arch)

    def budget(length: int) -> Budget:
        return plan_memory.budget(
            arch, engine, weights, gpus.memory_bytes, question.utilization, seqs, batched, length, block, kv_dtype
        )

    def request(tokens: int) -> int:
        flying = in_flight(engine, batched)
        return int(kv_bytes_for_request(arch, tokens, kv_dtype, engine.tensor, engine.pipeline, 1, block, flying))

    per_token = kv_bytes_per_token_per_gpu(arch, kv_dtype, engine.tensor, engine.pipeline)
    wanted = question.max_model_len or min(LEAST_CONTEXT, arch.max_positions)
    left = budget(wanted)
    shortfall = max(0, request(wanted) - left.kv)
    length = question.max_model_len or (0 if shortfall else longest(arch.max_positions, wanted, budget, request))
    if length and not shortfall:
        left = budget(length)
    tokens = 0
    if left.kv > 0:
        whole = request(length or wanted)
        blocks = -(-(length or wanted) // block) * block
        # vllm/v1/core/kv_cache_utils.py, get_kv_cache_capacity: concurrency at this length, times the length
        tokens = left.kv // (per_token * block) * block if whole == blocks * per_token else 0
        tokens = tokens or int(left.kv / whole * (length or wanted))
    option = Option(
        parallelism, precision, kv_dtype, left, per_token, block, seqs, batched, tokens, length or wanted, shortfall
    )
    return replace(option, speed=speed(question, option)) if option.fits else option


def longest(maximum: int, least: int, budget: Callable[[int], Budget], request: Callable[[int], int]) -> int:
    """The longest context of which one request fits, in whole thousands when it is not the model's own."""
    low, high = least, maximum
    while low < high:
        middle = (low + high + 1) // 2
        if request(middle) <= budget(middle).kv:
            low = middle
        else:
            high = middle - 1
    return low if low == maximum else max(least, low // _ROUND * _ROUND)


def comfortable(question: Question, option: Option) -> bool:
    """Whether there is room for more than a single long request."""
    return bool(option.fits and option.kv_tokens >= max(COMFORTABLE_TOKENS, question.max_model_len or 0))


def work_of(question: Question, option: Option) -> roofline.Work:
    """The option, as the roofline sees it."""
    arch = question.arch
    routed, active = experts_and_active(arch)
    return roofline.Work(
        arch,
        option.parallelism,
        active,
        routed,
        option.budget.weights,
        option.precision,
        option.kv_bytes_per_token,
        calculates(option.precision, question.gpus.product),
    )


def experts_and_active(arch: Architecture) -> Tuple[int, int]:
    """Weights of all routed experts; weights that one token uses, the input embedding not counted."""
    everything = parameters(arch)
    embedding = 0 if arch.tied_embeddings else arch.vocab_size * arch.hidden_size
    moe = arch.moe
    if moe is None:
        return 0, everything - embedding
    sparse = sum(1 for layer in range(arch.layers) if arch.is_sparse(layer))
    routed = sparse * moe.routed_experts * 3 * arch.hidden_size * moe.intermediate_size
    used = routed * moe.experts_per_token // moe.routed_experts
    return routed, everything - embedding - routed + used


def concurrency(question: Question, option: Option) -> int:
    """Requests of the profile's lengths that all replicas hold at the same time; at least one."""
    profile = question.profile
    tokens = min(profile.tokens, option.max_model_len)
    where, engines = option.parallelism, option.parallelism.data
    fitting = option.kv_tokens // tokens
    cache = pool(question.arch, option.kv_dtype, where.tensor, where.pipeline, 1, option.block_size)
    if cache.slides:
        # The engine's tokens count what one request may need at its worst moment, which few are in at a time.
        fitting = cache.requests(option.budget.kv, tokens, in_flight(where, option.max_num_batched_tokens))
    return int(engines * max(1, min(option.max_num_seqs, fitting)))


def speed(question: Question, option: Option) -> Speed:
    """Bounds and expectations at the profile's lengths: of one stream, and at the concurrency that fits."""
    profile, gpus = question.profile, question.gpus
    work = work_of(question, option)
    context = profile.input_tokens + profile.output_tokens / 2
    all_requests = concurrency(question, option)
    each = all_requests / option.parallelism.data
    prefill = roofline.prefill_seconds(work, gpus, profile.input_tokens, True)
    # Throughput of prefill: full batches on all stages and replicas at the same time.
    batch = float(option.max_num_batched_tokens)
    whole = roofline.prefill_seconds(work, gpus, batch, True) / roofline.prefill_share(work)
    return Speed(
        1 / roofline.step_seconds(work, gpus, 1, context, True),
        all_requests / roofline.step_seconds(work, gpus, each, context, True),
        option.parallelism.data * batch / whole,
        prefill * 1000,
        1 / roofline.step_seconds(work, gpus, 1, context, False),
        roofline.output_rate(work, gpus, each, profile.input_tokens, profile.output_tokens, False),
        all_requests,
    )


def evaluated(question: Question, precision: str, kv_dtype: str) -> Iterator[Tuple[Parallelism, Optional[Option], str]]:
    """Each placement with what comes of it, or with the reason why the engine refuses it."""
    for parallelism in placements(question):
        refused = problems(question, parallelism, precision)
        if refused:
            yield parallelism, None, refused[0]
        else:
            yield parallelism, evaluate(question, parallelism, precision, kv_dtype), ""
