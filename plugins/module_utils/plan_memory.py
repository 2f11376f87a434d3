# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""How vLLM divides a GPU's memory, computed before it does: the KV cache gets what all the rest leaves.

    kv = (total - driver) * gpu_memory_utilization - weights - beside - activations - graphs - communication - base

as in vllm/v1/worker/gpu_worker.py (determine_available_memory, 0.32.0).  The parts are fitted to the starts in
tests/bench/planner/measured.json, whose debug messages tell what is kept, what is needed for a moment, and what the
graphs are estimated at; `uncalibrated` says which plans no start stands behind.
"""

from __future__ import annotations

from typing import Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import model_compressed
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_generations import Product
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import Architecture, Compressed
from ansible_collections.bedplate.llm.plugins.module_utils.model_weights import Parallelism
from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import GIB, Budget

# NVML's total less CUDA's (cudaMemGetInfo), which is what the engine multiplies.  Measured: 140.40 - 139.81 GiB on
# an H200, 0.46 on an H100, and published messages of other cards from 24 GiB up give 0.35 to 0.9;
# the figure of the H200 stands for all.
DRIVER_BYTES = int(0.59 * GIB)

# What the engine's "model loading took" has above the bytes of the tensors: tables of positions, padding, rounding.
# Measured: 0.02 to 0.14 GiB, and 0.3 where bf16 files become fp8 while they are loaded.
BESIDE_WEIGHTS_BYTES = int(0.10 * GIB)

# What is there before the weights and grows with nothing that we know: CUDA's context, libraries, workspaces.
# Measured: 0.28 to 0.37 GiB on an H200, kept less weights, logits and experts.
BASE_BYTES = int(0.32 * GIB)

# What the engine keeps of each logit (32-bit) of max_num_seqs: 0.55 GiB less with 128 sequences than with 1,024.
LOGIT_BYTES = 4

# What a step has of each activation beside the copy of the embedding: 0.02 to 0.13 GiB for 2,048 and 8,192 tokens.
_STEP_BYTES = 3.2

# CUDA graphs, as the engine estimates them for 512 sequences, which is more than they take (7B: 0.83 and 0.55 GiB):
# for each layer, and for each number that the heads put out, which the split attention holds in 32 parts.
# Fitted to 12 starts of 28 to 64 layers and 12 to 40 heads, within 0.14 GiB.
GRAPH_BYTES_PER_LAYER = int(0.0131 * GIB)
GRAPH_BYTES_PER_OUTPUT = 0.0183 * GIB / 128
# Latent attention puts out the latent, 512 numbers a head: 12.35 GiB for 128 heads, 6.30 for 64.
GRAPH_BYTES_PER_LATENT_OUTPUT = 0.0965 * GIB / 512
# Over an fp8 cache another kernel reads it, which is not split: 1.07 GiB for 128 heads.
GRAPH_BYTES_PER_LATENT_OUTPUT_FP8 = 0.008 * GIB / 512
_GRAPH_SEQUENCES = 512

# NCCL's buffers and the all-reduce's, on each GPU that talks to others: 0.94 GiB between two GPUs.
COMMUNICATION_BYTES = GIB

# vllm/model_executor/layers/attention/mla_attention.py, determine_chunked_prefill_workspace_size.
_MLA_WORKSPACE_TOKENS = 64 * 1024

# Bytes of the indexer's keys for a token (128 fp8, one 32-bit scale), and how many requests its workspace holds
# (vllm/v1/attention/backends/mla/indexer.py); fewer of long contexts (vllm/config/vllm.py).
_INDEXER_TOKEN_BYTES = 132
_INDEXER_REQUESTS, _INDEXER_LONG_REQUESTS = 40, 16
_INDEXER_LONG = 256 * 1024
# Requests whose rows DeepSeek V4 unpacks at a time (PREFILL_CHUNK_SIZE).
_PREFILL_REQUESTS = 4


def uncalibrated(arch: Architecture, parallelism: Parallelism, product: Product, kv_dtype: str) -> str:
    """Why no measured start stands behind the plan's memory, as the rest of a sentence; empty where one does."""
    if arch.compressed is not None:
        return "DeepSeek V4's compressed attention was never measured"
    if arch.moe is None and arch.mla is None:
        return ""
    if product.architecture != "hopper":
        return f"experts and latent attention were measured on Hopper only, and this is {product.architecture}"
    if arch.indexer is not None:
        return "sparse attention was never measured"
    if arch.mla is not None and kv_dtype not in ("auto", "fp8"):
        return f"latent attention was never measured with a cache of {kv_dtype}"
    if parallelism.data > 1:
        return "experts that data ranks share were never measured"
    return ""


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
    """What a step needs for a moment, and the logits and experts' buffers that the engine keeps.

    For a moment, the largest of
    - the layers: tokens * (3 * intermediate / tp + 4 * hidden) * 2 bytes (7B: 8,192 more tokens took 1.09 GiB);
    - a copy of the embedding, which each start had whatever its tokens (14B, 32B: 1.58 GiB, 7B with 2,048 tokens
      1.01); the engine's source does not say why, and a start with a warm compile cache may do without;
    - latent attention: the context that it unpacks, queries, values and activations (128 heads: 4.74 GiB, 64: 2.43).
    """
    tokens, hidden, tensor = max_num_batched_tokens, arch.hidden_size, parallelism.tensor
    layers = tokens * (3 * arch.intermediate_size // tensor + 4 * hidden) * 2
    embedding = arch.vocab_size * hidden * 2 // tensor + tokens * hidden * _STEP_BYTES
    moment = max(layers, embedding)
    if arch.mla is not None:
        rows = min(max(8 * max_model_len, 4 * max_num_seqs * block_size), _MLA_WORKSPACE_TOKENS)
        heads = arch.heads // tensor
        unpacked = rows * heads * (arch.mla.qk_nope_head_dim + arch.mla.v_head_dim) * 2
        step = tokens * (heads * (arch.mla.qk_head_dim + arch.mla.v_head_dim) + hidden) * 2
        moment = max(moment, unpacked + step)
    if arch.compressed is not None:
        moment = max(moment, tokens * _compressed_step(arch, arch.compressed, tensor))
    kept = min(max_num_seqs, tokens) * arch.vocab_size * LOGIT_BYTES + _expert_workspace(arch, parallelism, tokens)
    if arch.indexer is not None:
        kept += max_model_len * _INDEXER_REQUESTS * _INDEXER_TOKEN_BYTES
    if arch.compressed is not None:
        kept += _compressed_workspace(arch.compressed, tokens, max_model_len)
    return int(moment + kept)


def _compressed_step(arch: Architecture, parts: Compressed, tensor: int) -> int:
    """Bytes of a token of a step of DeepSeek V4, by its source: queries and outputs of the padded heads, the outputs
    once more in fp8, the residual streams before, after and mixed, and four activations.  Never measured."""
    heads = model_compressed.padded_heads(arch.heads // tensor) * parts.head_dim
    return int(heads * (2 + 2 + 1) + 3 * parts.streams * arch.hidden_size * 2 + 4 * arch.hidden_size * 2)


def _compressed_workspace(parts: Compressed, tokens: int, max_model_len: int) -> int:
    """What the engine keeps for prefills of DeepSeek V4 (nvidia/flashmla.py, forward_mqa; mla/indexer.py): rows of four
    requests unpacked to 16 bits, or the keys of the indexer's requests, and the numbers of the rows that are picked."""
    ratio = min((ratio for ratio in parts.ratios if ratio > 1), default=0)
    far = -(-max_model_len // ratio) if ratio else 0
    gathered = _PREFILL_REQUESTS * (far + parts.window + tokens) * parts.head_dim * 2
    requests = _INDEXER_REQUESTS if max_model_len <= _INDEXER_LONG else _INDEXER_LONG_REQUESTS
    keys = far * requests * _INDEXER_TOKEN_BYTES if 4 in parts.ratios else 0
    picked = 2 * tokens * (parts.index_topk + parts.window) * 4
    return int(max(gathered, keys) + picked)


def _expert_workspace(arch: Architecture, parallelism: Parallelism, tokens: int) -> int:
    """Buffers of the experts, which the engine keeps (workspace_shapes of layers/fused_moe/experts/triton_moe.py).

    One entry for each expert of each token; with DP a rank has the tokens of all ranks before it.  Measured: 0.87 GiB
    with 4 experts for a token and 1.75 with 8, on one GPU and on each of two.
    """
    moe = arch.moe
    if moe is None or not any(map(arch.is_sparse, range(arch.layers))):
        return 0
    width = moe.intermediate_size if parallelism.expert else moe.intermediate_size // parallelism.tensor
    routed = tokens * parallelism.data * moe.experts_per_token
    return int(routed * (max(width, arch.hidden_size) + max(2 * width, arch.hidden_size)) * 2)


def graph_bytes(arch: Architecture, parallelism: Parallelism, max_num_seqs: int, kv_dtype: str = "auto") -> int:
    """Memory that the engine sets aside for CUDA graphs."""
    layers = -(-arch.layers // parallelism.pipeline)
    share = min(1.0, 2 * max_num_seqs / _GRAPH_SEQUENCES)
    heads = arch.heads // parallelism.tensor
    if arch.mla is not None:
        fp8 = kv_dtype.startswith("fp8")
        each = GRAPH_BYTES_PER_LATENT_OUTPUT_FP8 if fp8 else GRAPH_BYTES_PER_LATENT_OUTPUT
        outputs = heads * arch.mla.kv_lora_rank * each
    elif arch.compressed is not None:
        # As latent attention's, which it resembles; its graphs leave the attention itself out, so that it may be less.
        outputs = heads * arch.compressed.head_dim * GRAPH_BYTES_PER_LATENT_OUTPUT
    else:
        outputs = heads * arch.head_dim * GRAPH_BYTES_PER_OUTPUT
    return int((layers * GRAPH_BYTES_PER_LAYER + outputs) * share)


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
    kv_dtype: str = "auto",
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
        graphs=graph_bytes(arch, parallelism, max_num_seqs, kv_dtype),
        communication=0 if alone else COMMUNICATION_BYTES,
        base=BASE_BYTES,
    )
