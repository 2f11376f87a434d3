# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""How fast a model can be on given GPUs: bounds from bytes and operations, and what is to be expected of an engine.

A decode step reads the weights that its tokens use and the keys and values of all requests, and calculates
2 operations for each active weight and token:

    step = max(bytes / bandwidth, operations / rate)            the bound: no engine is faster
    step = max(bytes / (bandwidth * 0.70), operations / (rate * 0.55)) + overhead + 1.5 ms            expected

(the model of Williams et al., "Roofline", 2009).  Prefill is the same with all tokens of the prompt at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.bedplate.llm.plugins.module_utils import model_compressed, model_kv_compressed
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_generations import Product
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_sets import GpuSet
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import Architecture
from ansible_collections.bedplate.llm.plugins.module_utils.model_weights import Parallelism

# Share of the memory's bandwidth that decoding reaches.  R1-Distill-Qwen-7B and 14B in bf16 at 8 requests/s have a
# median time per token of 11.0 and 21.2 ms on an H100 PCIe (2,039 GB/s) and the 7B one of 21.9 ms on an RTX 4090, vLLM
# 0.8.5 (IOG-Foundation/llm-inference-benchmarks, 2025-06): 0.68, 0.68 and 0.69 of the bound.
BANDWIDTH_SHARE = 0.70
# Share of the tensor cores' rate that prefill reaches.  Not calibrated; a bare matrix product reached 0.80 on an H200.
RATE_SHARE = 0.55
# Of a mixture of experts in fp8: 52,300 prompt tokens/s of R1 on 8 H100 (LMSYS, 2025-05-05) are 0.25 of the rate.
MOE_RATE_SHARE = 0.25
# What a layer of experts takes besides (routing, sorting, many small products): one stream of V3.2 in NVFP4 on 8 B300
# makes 125 tokens/s (vLLM, 2026-05-11); its bytes, collectives and step take 3 of these 8 ms, 58 layers the others.
MOE_LAYER_SECONDS = 86e-6
# What a step takes besides: launches, scheduling, sampling.  From R1-Distill-Qwen-1.5B in the same source: 5.3 ms,
# where its bytes take 1.7 ms.  Not calibrated on vLLM 0.33.
STEP_SECONDS = 1.5e-3
# One collective, besides its bytes.  Not calibrated: usual figures of NCCL over NVLink, PCIe and between hosts.
# Cards without peer access send through the host's memory: R1-Distill-Qwen-14B on 8 RTX 4090 has 44 ms per token in the
# source above, where its bytes take 5 ms, in 96 collectives.
_LATENCY = {"nvlink": 8e-6, "pcie": 30e-6, "host memory": 250e-6, "hosts": 40e-6}

_WEIGHT_BYTES = {
    "bf16": 2.0,
    "fp8": 1.0,
    "fp8_block": 1.000244,
    "awq_int4": 0.51953,
    "gptq_int4": 0.515625,
    "nvfp4": 0.5625,
    "mxfp4": 0.53125,
}


@dataclass(frozen=True)
class Work:
    """What a model asks of the hardware.

    active: weights that one token uses, without the input embedding; routed: weights of all routed experts;
    kv_bytes_per_token: of one GPU; weight_bytes: of the fullest GPU; calculates: the unit, bf16, fp8 or fp4.
    """

    arch: Architecture
    parallelism: Parallelism
    active: int
    routed: int
    weight_bytes: int
    precision: str
    kv_bytes_per_token: int
    calculates: str

    @property
    def expert_bytes(self) -> float:
        """Bytes of routed experts on one GPU; with DP the experts are spread over all ranks."""
        ranks = self.parallelism.tensor * self.parallelism.data * self.parallelism.pipeline
        return float(self.routed * _WEIGHT_BYTES[self.precision] / ranks)

    @property
    def embedding_bytes(self) -> float:
        """The input embedding, of which a step reads a row for each token only."""
        tied = self.arch.tied_embeddings
        ranks = self.parallelism.tensor * self.parallelism.pipeline
        return 0.0 if tied else self.arch.vocab_size * self.arch.hidden_size * 2 / ranks

    def touched_bytes(self, tokens: float) -> float:
        """Weight bytes that one GPU of a stage reads for a step of so many tokens of one replica.

        Each token goes to k of E experts, so (1 - k/E)^tokens of them are left alone.  With DP the tokens of all
        replicas come to the same experts.
        """
        still = max(0.0, self.weight_bytes - self.expert_bytes - self.embedding_bytes)
        moe = self.arch.moe
        if moe is None:
            return still
        everyone = tokens * self.parallelism.data
        idle = (1.0 - moe.experts_per_token / moe.routed_experts) ** max(1.0, everyone)
        return float(still + self.expert_bytes * (1.0 - idle))


def rate_of(product: Product, calculates: str) -> float:
    """Dense operations/s of the unit that calculates; without it, weights are unpacked and bf16 calculates."""
    rates = {"bf16": product.bf16, "fp8": product.fp8, "fp4": product.fp4}
    return float(rates.get(calculates) or product.bf16)


def _attention_operations(arch: Architecture, context: float) -> float:
    """Operations of one new token over its context, all layers: scores and values, 2 each."""
    parts = arch.compressed
    if parts is not None:
        seen = [model_compressed.rows(parts, layer, context) for layer in range(arch.layers)]
        attended = 4.0 * arch.heads * parts.head_dim * sum(rows for rows, _keys in seen)
        return float(attended + 2.0 * parts.index_heads * parts.index_head_dim * sum(keys for _rows, keys in seen))
    if arch.mla is not None:  # absorbed: each head works on the latent
        return float(2.0 * arch.layers * arch.heads * (arch.mla.latent + arch.mla.kv_lora_rank) * context)
    return float(4.0 * arch.layers * arch.heads * arch.head_dim * context)


def _cache_bytes(work: Work, context: float) -> float:
    """Bytes of the cache that one GPU of a stage reads for a new token.

    Counted in full but for compressed attention, which reads its window, the rows that are picked, and all keys of the
    indexer.
    """
    parts = work.arch.compressed
    if parts is None:
        return context * work.kv_bytes_per_token
    seen = [model_compressed.rows(parts, layer, context) for layer in range(work.arch.layers)]
    read = sum(rows * model_kv_compressed.ROW_BYTES + keys * (parts.index_head_dim + 4) for rows, keys in seen)
    return float(read / work.parallelism.pipeline)


def _way(gpus: GpuSet, group: int) -> str:
    """How the GPUs of such a group reach each other."""
    if group > gpus.gpus_per_host:
        return "hosts"
    if gpus.linked(group):
        return "nvlink"
    return "pcie" if gpus.product.peer_access else "host memory"


def _sparse_layers(arch: Architecture) -> int:
    return sum(1 for layer in range(arch.layers) if arch.is_sparse(layer))


def _share_of_rate(arch: Architecture) -> float:
    return RATE_SHARE if arch.moe is None else MOE_RATE_SHARE


def _overhead(work: Work, gpus: GpuSet, tokens: float) -> float:
    """Seconds of one stage that are neither bytes nor operations: collectives (two all-reduces a layer for TP, the
    exchange of tokens for DP) and what layers of experts take besides."""
    arch, ranks = work.arch, work.parallelism
    layers = arch.layers / ranks.pipeline
    seconds = 0.0
    if ranks.tensor > 1:
        size = tokens * arch.hidden_size * 2.0
        group = ranks.tensor
        each = 2.0 * (group - 1) / group * size / gpus.bandwidth_between(group) + _LATENCY[_way(gpus, group)]
        seconds += 2.0 * layers * each
    if arch.moe is not None:
        seconds += _sparse_layers(arch) / ranks.pipeline * MOE_LAYER_SECONDS
    if arch.moe is not None and ranks.data > 1:
        group = ranks.data * ranks.tensor
        sparse = _sparse_layers(arch) / ranks.pipeline
        # all-gather and reduce-scatter (--all2all-backend, the default): everybody's tokens, in and out
        size = 2.0 * (ranks.data - 1) * tokens * arch.hidden_size * 2.0
        seconds += sparse * (size / gpus.bandwidth_between(group) + 2 * _LATENCY[_way(gpus, group)])
    return seconds


def step_seconds(work: Work, gpus: GpuSet, requests: float, context: float, bound: bool) -> float:
    """Seconds until each of so many requests of one replica has its next token; stages come one after the other."""
    product, ranks = gpus.product, work.parallelism
    stages = ranks.pipeline
    # With more requests than stages, each stage works on its part of them; a single one passes all stages.
    tokens = max(1.0, requests / stages) if requests >= stages else requests
    read = work.touched_bytes(tokens) + tokens * _cache_bytes(work, context)
    operations = tokens * (2.0 * work.active + _attention_operations(work.arch, context)) / (ranks.tensor * stages)
    rate = rate_of(product, work.calculates)
    if bound:
        return float(stages * max(read / product.memory_bandwidth, operations / rate))
    stage = max(read / (product.memory_bandwidth * BANDWIDTH_SHARE), operations / (rate * _share_of_rate(work.arch)))
    return float(stages * (stage + _overhead(work, gpus, tokens)) + STEP_SECONDS)


def prefill_seconds(work: Work, gpus: GpuSet, prompt: float, bound: bool) -> float:
    """Seconds until a prompt alone on its replica is worked through: the bound of its time to first token."""
    product, ranks = gpus.product, work.parallelism
    operations = prompt * (2.0 * work.active + _attention_operations(work.arch, prompt / 2)) / ranks.tensor
    rate = rate_of(product, work.calculates)
    read = work.touched_bytes(prompt) * ranks.pipeline
    if bound:
        return float(max(operations / rate, read / product.memory_bandwidth))
    seconds = max(operations / (rate * _share_of_rate(work.arch)), read / (product.memory_bandwidth * BANDWIDTH_SHARE))
    return float(seconds + ranks.pipeline * _overhead(work, gpus, prompt) + STEP_SECONDS)


def prefill_share(work: Work) -> int:
    """How many prompts a replica works on at the same time: one for each stage of the pipeline."""
    return int(work.parallelism.pipeline)


def output_rate(work: Work, gpus: GpuSet, requests: float, tokens_in: float, tokens_out: float, bound: bool) -> float:
    """Tokens/s that all replicas make together when each always has so many requests, their prompts included."""
    prompts = requests * prefill_seconds(work, gpus, tokens_in, bound) / prefill_share(work)
    steps = tokens_out * step_seconds(work, gpus, requests, tokens_in + tokens_out / 2, bound)
    return float(work.parallelism.data * requests * tokens_out / (prompts + steps))
