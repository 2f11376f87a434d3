# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The tensors of a model and the bytes that each GPU holds of them.

Names and shapes are those of Hugging Face's checkpoints.  What a rank holds was read in vLLM 0.32, in model_executor
(layers/linear.py, vocab_parallel_embedding.py, fused_moe/config.py, attention/mla_attention.py; models/llama.py,
qwen2.py, deepseek_v2.py, deepseek_mtp.py) and distributed/utils.py (get_pp_indices), for DeepSeek V4 in
models/deepseek_v4/nvidia; tests/reference compares.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Iterator, List, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import model_compressed
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import Architecture, Compressed, Mla
from ansible_collections.bedplate.llm.plugins.module_utils.model_quantization import (
    BYTES,
    Quantization,
    is_excluded,
    linear_bytes,
    of_precision,
)

# vLLM pads the vocabulary to it before it is cut (DEFAULT_VOCAB_PADDING_SIZE).
VOCAB_PADDING = 64
# Where a tensor stands that every pipeline stage has, whatever its layers are.
EVERY_STAGE = -2
# The linear layer of an MLP that brings the width back, by both names that it has.
_DOWN = ("down_proj", "w2")
_LAYER = re.compile(r"^(?:model\.)?layers\.\d+\.")


@dataclass(frozen=True)
class Parallelism:
    """Numbers of ranks.  expert: experts are spread over all tensor * data ranks instead of being cut.

    data counts ranks of one engine, which share a mixture's experts; replicas of a dense model have data 1.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: bool = False


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the checkpoint, as it is without quantisation.

    kind: linear (may be quantised), plain (a matrix that never is), upcast (quantised in the file, 16-bit when loaded),
    router, embedding, head, norm, bias, float32, table (64-bit in the file, 32-bit when loaded).
    sharding: column, kv, row, vocab, experts, shared, sinks, replicated.
    layer: -1 for what stands before the layers, the number of layers for what stands after them, EVERY_STAGE; layers of
    multi-token prediction have the numbers from there on, as in the files.
    """

    name: str
    shape: Tuple[int, ...]
    kind: str
    sharding: str
    layer: int

    @property
    def within(self) -> str:
        """The name within its layer."""
        return _LAYER.sub("", self.name)


@dataclass(frozen=True)
class TensorGroup:
    """count equal tensors; {} in the name stands for the expert's number."""

    spec: TensorSpec
    count: int = 1


def _attention(arch: Architecture, prefix: str, layer: int) -> Iterator[TensorGroup]:
    if arch.mla:
        yield from _latent_attention(arch, arch.mla, prefix, layer)
        return
    queries, keys = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    for name, width, sharding in (("q", queries, "column"), ("k", keys, "kv"), ("v", keys, "kv")):
        yield TensorGroup(
            TensorSpec(f"{prefix}{name}_proj.weight", (width, arch.hidden_size), "linear", sharding, layer)
        )
        if arch.qkv_bias:
            yield TensorGroup(TensorSpec(f"{prefix}{name}_proj.bias", (width,), "bias", sharding, layer))
    yield TensorGroup(TensorSpec(f"{prefix}o_proj.weight", (arch.hidden_size, queries), "linear", "row", layer))
    if arch.o_bias:
        yield TensorGroup(TensorSpec(f"{prefix}o_proj.bias", (arch.hidden_size,), "bias", "replicated", layer))
    if arch.qk_norm:
        for name in ("q", "k"):
            yield TensorGroup(TensorSpec(f"{prefix}{name}_norm.weight", (arch.head_dim,), "norm", "replicated", layer))


def _latent_attention(arch: Architecture, mla: Mla, prefix: str, layer: int) -> Iterator[TensorGroup]:
    hidden, queries = arch.hidden_size, arch.heads * mla.qk_head_dim

    def linear(name: str, outputs: int, inputs: int, sharding: str) -> TensorGroup:
        return TensorGroup(TensorSpec(f"{prefix}{name}.weight", (outputs, inputs), "linear", sharding, layer))

    def norm(name: str, width: int) -> TensorGroup:
        return TensorGroup(TensorSpec(f"{prefix}{name}.weight", (width,), "norm", "replicated", layer))

    if mla.q_lora_rank:
        yield linear("q_a_proj", mla.q_lora_rank, hidden, "replicated")
        yield norm("q_a_layernorm", mla.q_lora_rank)
        yield linear("q_b_proj", queries, mla.q_lora_rank, "column")
    else:
        yield linear("q_proj", queries, hidden, "column")
    yield linear("kv_a_proj_with_mqa", mla.latent, hidden, "replicated")
    yield norm("kv_a_layernorm", mla.kv_lora_rank)
    yield linear("kv_b_proj", arch.heads * (mla.qk_nope_head_dim + mla.v_head_dim), mla.kv_lora_rank, "column")
    yield linear("o_proj", hidden, arch.heads * mla.v_head_dim, "row")
    if arch.indexer:
        index = arch.indexer
        yield linear("indexer.wq_b", index.heads * index.head_dim, mla.q_lora_rank or hidden, "replicated")
        for name, shape, kind in (
            ("wk.weight", (index.head_dim, hidden), "upcast"),
            ("weights_proj.weight", (index.heads, hidden), "plain"),
            ("k_norm.weight", (index.head_dim,), "float32"),
            ("k_norm.bias", (index.head_dim,), "float32"),
        ):
            yield TensorGroup(TensorSpec(f"{prefix}indexer.{name}", shape, kind, "replicated", layer))


def _mlp(arch: Architecture, prefix: str, width: int, layer: int, shared: bool, count: int) -> Iterator[TensorGroup]:
    sharding = "experts" if "{}" in prefix else "shared" if shared else ""
    names = ("w1", "w3", "w2") if arch.compressed else ("gate_proj", "up_proj", "down_proj")
    shapes = ((width, arch.hidden_size), (width, arch.hidden_size), (arch.hidden_size, width))
    for name, shape in zip(names, shapes):
        cut = "row" if name.endswith(_DOWN) else "column"
        spec = TensorSpec(f"{prefix}{name}.weight", shape, "linear", sharding or cut, layer)
        yield TensorGroup(spec, count)
        if arch.mlp_bias and not sharding:
            cut = "replicated" if name.endswith(_DOWN) else "column"
            yield TensorGroup(TensorSpec(f"{prefix}{name}.bias", shape[:1], "bias", cut, layer))


def _layer(arch: Architecture, layer: int) -> Iterator[TensorGroup]:
    prefix = f"model.layers.{layer}."
    yield from _attention(arch, prefix + "self_attn.", layer)
    if arch.moe is not None and arch.is_sparse(layer):
        moe, experts = arch.moe, arch.moe.routed_experts
        gate = TensorSpec(f"{prefix}mlp.gate.weight", (experts, arch.hidden_size), "router", "replicated", layer)
        yield TensorGroup(gate)
        if moe.correction_bias:
            name = f"{prefix}mlp.gate.e_score_correction_bias"
            yield TensorGroup(TensorSpec(name, (experts,), "float32", "replicated", layer))
        yield from _mlp(arch, prefix + "mlp.experts.{}.", moe.intermediate_size, layer, False, experts)
        if moe.shared_experts:
            width = moe.shared_experts * moe.intermediate_size
            yield from _mlp(arch, prefix + "mlp.shared_experts.", width, layer, True, 1)
    else:
        yield from _mlp(arch, prefix + "mlp.", arch.intermediate_size, layer, False, 1)
    norms = ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for name in norms[: arch.norms_per_layer]:
        yield TensorGroup(TensorSpec(f"{prefix}{name}.weight", (arch.hidden_size,), "norm", "replicated", layer))


def _compressed_layer(arch: Architecture, parts: Compressed, layer: int) -> Iterator[TensorGroup]:
    """A layer of DeepSeek V4, or of its multi-token prediction."""
    drafts = layer >= arch.layers
    prefix = f"mtp.{layer - arch.layers}." if drafts else f"layers.{layer}."
    hidden, moe = arch.hidden_size, arch.moe
    single = [*model_compressed.attention(parts, hidden, arch.heads, layer), *model_compressed.streams(parts, hidden)]
    single += [(f"{name}_norm.weight", (hidden,), "norm", "replicated") for name in ("attn", "ffn")]
    if drafts:
        single += [*model_compressed.prediction(hidden), *model_compressed.streams_end(parts, hidden)]
    if moe is not None:
        single.append(("ffn.gate.weight", (moe.routed_experts, hidden), "router", "replicated"))
        if layer < parts.hash_layers:
            single.append(("ffn.gate.tid2eid", (arch.vocab_size, moe.experts_per_token), "table", "replicated"))
        elif moe.correction_bias:
            single.append(("ffn.gate.bias", (moe.routed_experts,), "float32", "replicated"))
        width = moe.shared_experts * moe.intermediate_size
        yield from _mlp(arch, prefix + "ffn.experts.{}.", moe.intermediate_size, layer, False, moe.routed_experts)
        if width:
            yield from _mlp(arch, prefix + "ffn.shared_experts.", width, layer, True, 1)
    for name, shape, kind, sharding in single:
        yield TensorGroup(TensorSpec(prefix + name, shape, kind, sharding, layer))


def _compressed(arch: Architecture, parts: Compressed, mtp: bool) -> Iterator[TensorGroup]:
    """DeepSeek V4's tensors, by the names of its own files."""
    table = (arch.vocab_size, arch.hidden_size)
    yield TensorGroup(TensorSpec("embed.weight", table, "embedding", "vocab", -1))
    for layer in range(arch.layers + (arch.mtp_layers if mtp else 0)):
        yield from _compressed_layer(arch, parts, layer)
    for name, shape, kind, sharding in model_compressed.streams_end(parts, arch.hidden_size):
        yield TensorGroup(TensorSpec(name, shape, kind, sharding, EVERY_STAGE))
    yield TensorGroup(TensorSpec("norm.weight", (arch.hidden_size,), "norm", "replicated", arch.layers))
    yield TensorGroup(TensorSpec("head.weight", table, "head", "vocab", arch.layers))


def _prediction(arch: Architecture, layer: int) -> Iterator[TensorGroup]:
    """A layer of multi-token prediction: a layer, what joins it, and its copies of the embedding and the head."""
    prefix, hidden, table = f"model.layers.{layer}.", arch.hidden_size, (arch.vocab_size, arch.hidden_size)
    yield from _layer(arch, layer)
    for name in ("enorm", "hnorm", "shared_head.norm"):
        yield TensorGroup(TensorSpec(f"{prefix}{name}.weight", (hidden,), "norm", "replicated", layer))
    yield TensorGroup(TensorSpec(f"{prefix}eh_proj.weight", (hidden, 2 * hidden), "plain", "replicated", layer))
    yield TensorGroup(TensorSpec(f"{prefix}embed_tokens.weight", table, "embedding", "vocab", layer))
    yield TensorGroup(TensorSpec(f"{prefix}shared_head.head.weight", table, "head", "vocab", layer))


@lru_cache(maxsize=64)
def tensor_groups(arch: Architecture, mtp: bool = False) -> Tuple[TensorGroup, ...]:
    """The same as `tensors`, equal experts together: some hundreds instead of tens of thousands."""
    if arch.compressed is not None:
        return tuple(_compressed(arch, arch.compressed, mtp))
    table = (arch.vocab_size, arch.hidden_size)
    found: List[TensorGroup] = [TensorGroup(TensorSpec("model.embed_tokens.weight", table, "embedding", "vocab", -1))]
    for layer in range(arch.layers):
        found += _layer(arch, layer)
    found.append(TensorGroup(TensorSpec("model.norm.weight", (arch.hidden_size,), "norm", "replicated", arch.layers)))
    if not arch.tied_embeddings:
        found.append(TensorGroup(TensorSpec("lm_head.weight", table, "head", "vocab", arch.layers)))
    for layer in range(arch.layers, arch.layers + (arch.mtp_layers if mtp else 0)):
        found += _prediction(arch, layer)
    return tuple(found)


def tensors(arch: Architecture, mtp: bool = False) -> Iterator[TensorSpec]:
    """The checkpoint's tensors as the architecture says, with those of multi-token prediction when asked."""
    for group in tensor_groups(arch, mtp):
        if "{}" in group.spec.name:
            for expert in range(group.count):
                yield TensorSpec(
                    group.spec.name.format(expert),
                    group.spec.shape,
                    group.spec.kind,
                    group.spec.sharding,
                    group.spec.layer,
                )
        else:
            yield group.spec


def _size(shape: Tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def parameters(arch: Architecture, mtp: bool = False) -> int:
    """The number of weights, as published for the model."""
    total = 0
    for group in tensor_groups(arch, mtp):
        total += group.count * _size(group.spec.shape)
    return total


def storage(arch: Architecture, precision: str) -> Optional[Quantization]:
    """How a model's linear layers are stored in a precision, None for plain weights.

    Latent attention stays 16-bit in the fp4 checkpoints that NVIDIA publishes (the card of DeepSeek-R1-FP4).
    """
    found: Optional[Quantization] = of_precision(precision, arch.quantization)
    if found is not None and precision == "nvfp4" and arch.mla:
        return replace(found, excluded=(*found.excluded, "self_attn"))
    return found


def stored_as(quantization: Optional[Quantization], spec: TensorSpec, loaded: bool) -> Optional[Quantization]:
    """How a tensor is stored: quantised when it is of a kind that is, and its module is not left out."""
    kinds = ("linear",) if loaded else ("linear", "upcast")
    if quantization is None or spec.kind not in kinds:
        return None
    if spec.sharding == "experts" and quantization.experts is not None:
        return quantization.experts
    return None if is_excluded(quantization, spec.name[: -len(".weight")]) else quantization


def _bytes(
    arch: Architecture, stored: Optional[Quantization], kind: str, shape: Tuple[int, ...], loaded: bool = True
) -> int:
    if stored is not None:
        return int(linear_bytes(stored, shape[0], shape[1], arch.dtype))
    wide = {"float32": 4, "table": 4 if loaded else 8}
    return _size(shape) * (wide.get(kind) or int(BYTES[arch.dtype]))


def checkpoint_bytes(arch: Architecture, precision: str = "checkpoint", mtp: bool = False) -> int:
    """Bytes of all tensors in the model's files, headers not counted."""
    quantization = storage(arch, precision)
    return sum(
        g.count * _bytes(arch, stored_as(quantization, g.spec, False), g.spec.kind, g.spec.shape, False)
        for g in tensor_groups(arch, mtp)
    )


def pipeline_layers(layers: int, stages: int) -> List[range]:
    """Each stage's layers: evenly; what remains goes to the later stages but the last (vLLM's get_pp_indices)."""
    counts = [layers // stages] * stages
    for place in range(2, layers % stages + 2):
        counts[-place] += 1
    starts = [sum(counts[:stage]) for stage in range(stages)]
    return [range(start, start + count) for start, count in zip(starts, counts)]


def rank_shape(arch: Architecture, spec: TensorSpec, where: Parallelism) -> Tuple[int, ...]:
    """The shape that the fullest tensor rank holds of a tensor; of experts, that of one expert."""
    shape, ranks = spec.shape, where.tensor
    if spec.sharding == "vocab":
        return (-(-(-(-shape[0] // VOCAB_PADDING) * VOCAB_PADDING) // ranks), *shape[1:])
    if spec.sharding == "kv":
        return (max(1, arch.kv_heads // ranks) * (shape[0] // arch.kv_heads), *shape[1:])
    if spec.sharding == "sinks":
        return (model_compressed.padded_heads(-(-shape[0] // ranks)),)
    # Shared experts are whole on each rank when the engine splits the sequence before the mixture
    # (use_sequence_parallel_moe: expert parallelism with tensor and data parallelism).
    if spec.sharding == "shared" and where.expert and where.data > 1:
        return shape
    if spec.sharding == "experts":
        # Without expert parallelism each expert is cut over the tensor ranks of all data ranks.
        ranks = 1 if where.expert else where.tensor * where.data
    down = spec.name[: -len(".weight")].endswith(_DOWN)
    row = spec.sharding == "row" or (spec.sharding in ("experts", "shared") and down)
    if row:
        return (shape[0], -(-shape[1] // ranks))
    if spec.sharding in ("column", "experts", "shared"):
        return (-(-shape[0] // ranks), *shape[1:])
    return shape


def _on_stage(arch: Architecture, spec: TensorSpec, stages: List[range], stage: int) -> bool:
    last = stage == len(stages) - 1
    if spec.layer == EVERY_STAGE or (arch.ends_on_all_stages and not spec.name.startswith("model.layers.")):
        return True
    if spec.layer == -1:
        return stage == 0 or (last and arch.tied_embeddings)
    if spec.layer < arch.layers:
        return spec.layer in stages[stage]
    # The draft shares the head; the embedding too, where the first stage is the last (_maybe_share_embeddings).
    if spec.layer > arch.layers or spec.name.startswith(("model.layers.", "mtp.")):
        return (
            last
            and not spec.name.endswith("shared_head.head.weight")
            and (len(stages) > 1 or not spec.name.endswith("embed_tokens.weight"))
        )
    return last


def _stage_bytes(
    arch: Architecture,
    quantization: Optional[Quantization],
    where: Parallelism,
    stages: List[range],
    stage: int,
    mtp: bool,
) -> int:
    total = 0
    for group in tensor_groups(arch, mtp):
        spec = group.spec
        if not _on_stage(arch, spec, stages, stage):
            continue
        stored = stored_as(quantization, spec, True)
        count = group.count
        if spec.sharding == "experts" and where.expert:
            count = -(-count // (where.tensor * where.data))
        shape = rank_shape(arch, spec, where)
        total += count * _bytes(arch, stored, spec.kind, shape)
        if stored is not None and spec.name.endswith("kv_b_proj.weight"):
            # W_UK and W_UV: the same matrix once more, not quantised; of plain weights they are views.
            total += _size(shape) * BYTES[arch.dtype]
    return total


@lru_cache(maxsize=1024)
def weight_bytes_per_gpu(arch: Architecture, precision: str, parallelism: Parallelism, mtp: bool = False) -> int:
    """Bytes of weights on the fullest rank after loading, without what the engine itself puts beside them.

    precision: one of plan_terms.PRECISIONS; mtp: with the layers of multi-token prediction, as speculative decoding
    loads them.
    """
    quantization = storage(arch, precision)
    stages = pipeline_layers(arch.layers, parallelism.pipeline)
    return max(
        _stage_bytes(arch, quantization, parallelism, stages, stage, mtp) for stage in range(parallelism.pipeline)
    )
