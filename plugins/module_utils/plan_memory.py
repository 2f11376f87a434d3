# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""How vLLM divides a GPU's memory, computed before it does: the KV cache gets what all the rest leaves.

    kv = (total - driver) * gpu_memory_utilization - weights - beside - activations - graphs - communication - base

as in vllm/v1/worker/gpu_worker.py (determine_available_memory, 0.32.0).  The parts are calibrated on measured starts of
DeepSeek-R1-Distill-Qwen-7B (tests/bench/planner); what is not calibrated says so.
"""

from __future__ import annotations

from typing import Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.gpu_generations import Product
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import Architecture
from ansible_collections.bedplate.llm.plugins.module_utils.model_weights import Parallelism
from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import GIB, Budget

# NVML's total less CUDA's (cudaMemGetInfo), which is what the engine multiplies.  Measured: 140.40 - 139.81 GiB on
# an H200, 0.46 on an H100, and published messages of other cards from 24 GiB up give 0.35 to 0.9;
# the figure of the H200 stands for all.
DRIVER_BYTES = int(0.59 * GIB)

# What the engine's "model loading took" has above the bytes of the tensors: tables of positions, padding, rounding.
#  Measured on the 7B: 14.32 against 14.185 GiB in bf16, 8.23 against 8.11 GiB in fp8.
BESIDE_WEIGHTS_BYTES = int(0.13 * GIB)

# What is there before the weights and grows with nothing that we know: CUDA's context, libraries, workspaces.
# Calibrated together with SAMPLER_BYTES: H200 at 0.92 and H100 at 0.85 both leave 2.84 GiB between request and KV.
BASE_BYTES = int(0.33 * GIB)

# Bytes of each logit while the sampler works: 16-bit, and three 32-bit copies.  The sum with BASE_BYTES is calibrated,
# the split is not: both measured cards ran with 1,024 sequences and one vocabulary.
SAMPLER_BYTES = 14

# CUDA graphs, as the engine estimates them: 0.42 GiB for 28 layers on H200 (0.55 GiB were taken when it captured).
# That they grow with the layers, and with the sizes captured, is not calibrated.
GRAPH_BYTES_PER_LAYER = int(0.42 * GIB) // 28
_GRAPH_SEQUENCES = 512

# NCCL's buffers and the all-reduce's, on each GPU that talks to others.  Not calibrated: no measured start with TP yet.
COMMUNICATION_BYTES = GIB

# vllm/model_executor/layers/attention/mla_attention.py, determine_chunked_prefill_workspace_size.
_MLA_WORKSPACE_TOKENS = 64 * 1024

# Bytes of the indexer's keys for a token (128 fp8, one 32-bit scale), and how many requests its workspace holds
# (vllm/v1/attention/backends/mla/indexer.py).
_INDEXER_TOKEN_BYTES = 132
_INDEXER_REQUESTS = 40


def is_calibrated(arch: Architecture) -> bool:
    """Whether measured starts hold the figures below; of experts and latent attention one was measured, and was off."""
    return arch.moe is None and arch.mla is None


def batch_sizes(arch: Architecture, parallelism: Parallelism, product: Product, memory_bytes: int) -> Tuple[int, int]:
    """(max_num_seqs, max_num_batched_tokens): the engine's own, unless ranks share experts.

    Then each rank has buffers for the tokens of all (15 GiB of an R1 with DP 8 at the default), so that together they
    get the tokens of two ranks.
    """
    seqs, tokens = batch_defaults(product, memory_bytes)
    if arch.moe is not None and parallelism.data > 2:
        tokens = max(1024, 2 * tokens // parallelism.data)
    return seqs, tokens


def batch_defaults(product: Product, memory_bytes: int) -> Tuple[int, int]:
    """(max_num_seqs, max_num_batched_tokens) that `vllm serve` takes (0.32.0: EngineArgs.get_batch_defaults)."""
    if memory_bytes >= 160 * GIB:
        return 1024, 16384
    if memory_bytes >= 70 * GIB and "a100" not in product.name.lower():
        return 1024, 8192
    return 256, 2048


def activation_bytes(
    arch: Architecture,
    parallelism: Parallelism,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    max_model_len: int,
    block_size: int,
) -> int:
    """The peak of what a step needs for a moment: the larger of its layers' buffers and of its sampler's.

    Layers: tokens * (3 * intermediate / tp + 4 * hidden) * 2 bytes.  Calibrated: 8,192 more tokens took 1.09 GiB on the
    7B, and the formula gives 1.086.  Experts' buffers and the context that MLA unpacks are from vLLM's source, and not
    calibrated.
    """
    tokens, hidden = max_num_batched_tokens, arch.hidden_size
    layers = tokens * (3 * arch.intermediate_size // parallelism.tensor + 4 * hidden) * 2
    if arch.mla is not None:
        rows = min(max(8 * max_model_len, 4 * max_num_seqs * block_size), _MLA_WORKSPACE_TOKENS)
        width = (arch.heads // parallelism.tensor) * (arch.mla.qk_nope_head_dim + arch.mla.v_head_dim)
        layers = max(layers, rows * width * 2 + tokens * 4 * hidden * 2)
        layers += rows * arch.mla.latent * 2
    sampler = min(max_num_seqs, tokens) * arch.vocab_size * SAMPLER_BYTES + tokens * hidden * 2
    peak = max(layers, sampler) + _expert_workspace(arch, parallelism, tokens)
    if arch.indexer is not None:
        peak += max_model_len * _INDEXER_REQUESTS * _INDEXER_TOKEN_BYTES
    return int(peak)


def _expert_workspace(arch: Architecture, parallelism: Parallelism, tokens: int) -> int:
    """Buffers of the experts, which the engine keeps (workspace_shapes of layers/fused_moe/experts/triton_moe.py).

    One entry for each expert of each token; with DP a rank has the tokens of all ranks before it.
    """
    moe = arch.moe
    if moe is None:
        return 0
    width = moe.intermediate_size if parallelism.expert else moe.intermediate_size // parallelism.tensor
    routed = tokens * parallelism.data * moe.experts_per_token
    return int(routed * (max(width, arch.hidden_size) + max(2 * width, arch.hidden_size)) * 2)


def graph_bytes(arch: Architecture, parallelism: Parallelism, max_num_seqs: int) -> int:
    """Memory that the engine sets aside for CUDA graphs."""
    layers = -(-arch.layers // parallelism.pipeline)
    share = min(1.0, 2 * max_num_seqs / _GRAPH_SEQUENCES)
    return int(layers * GRAPH_BYTES_PER_LAYER * share)


def budget(
    arch: Architecture,
    parallelism: Parallelism,
    weights: int,
    memory_bytes: int,
    utilization: float,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    max_model_len: Optional[int],
    block_size: int,
) -> Budget:
    """Where the memory of the fullest GPU goes; `memory_bytes` is NVML's total."""
    usable = memory_bytes - DRIVER_BYTES
    length = max_model_len or arch.max_positions
    alone = parallelism.tensor * parallelism.pipeline * (parallelism.data if arch.moe is not None else 1) == 1
    return Budget(
        total=memory_bytes,
        reserved_by_driver=DRIVER_BYTES,
        outside=usable - int(usable * utilization),
        weights=weights,
        beside_weights=BESIDE_WEIGHTS_BYTES,
        activations=activation_bytes(arch, parallelism, max_num_seqs, max_num_batched_tokens, length, block_size),
        graphs=graph_bytes(arch, parallelism, max_num_seqs),
        communication=0 if alone else COMMUNICATION_BYTES,
        base=BASE_BYTES,
    )
