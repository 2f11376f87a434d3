# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which parallelism the engine accepts for a model, and why not.

The rules are vLLM 0.32's: config/model.py and config/parallel.py (heads, decode context, experts), layers/linear.py and
vocab_parallel_embedding.py (what must divide), layers/quantization (fp8_utils.py, auto_awq.py, auto_gptq.py).
A shape that only costs speed is not refused, such as Marlin's tiles of 64, which the engine pads.  Experts in fp8
blocks are refused where a block would be cut, although 0.32 refines their scales for some kernels, by GPU.
"""

from __future__ import annotations

from typing import Dict, Iterator, List, Optional

from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import Architecture
from ansible_collections.bedplate.llm.plugins.module_utils.model_quantization import Quantization
from ansible_collections.bedplate.llm.plugins.module_utils.model_weights import (
    VOCAB_PADDING,
    Parallelism,
    TensorSpec,
    rank_shape,
    storage,
    stored_as,
    tensor_groups,
)

# 4-bit weights are packed eight to a 32-bit word.
PACKED_IN_WORD = 8
# Linear layers that the engine joins with those after them.
_MERGED = ("gate_proj.weight", "q_proj.weight", "k_proj.weight", "q_a_proj.weight", ".wq_a.weight", ".wkv.weight")


def divisors(arch: Architecture, most: int) -> List[int]:
    """Tensor parallel sizes up to a number of GPUs that the engine accepts for unquantised weights."""
    return [size for size in range(1, most + 1) if not problems(arch, "bf16", Parallelism(tensor=size))]


def _attention_problems(arch: Architecture, tensor: int) -> Iterator[str]:
    if arch.heads % tensor:
        yield f"{arch.heads} attention heads cannot be divided over {tensor} GPUs."
    elif arch.compressed is not None:
        if arch.compressed.o_groups % tensor:
            yield f"{arch.compressed.o_groups} groups of the output projection cannot be divided over {tensor} GPUs."
    # Latent attention has one head of keys, which every rank keeps.
    elif arch.mla is None:
        if tensor <= arch.kv_heads and arch.kv_heads % tensor:
            yield f"{arch.kv_heads} key-value heads cannot be divided over {tensor} GPUs."
        elif tensor > arch.kv_heads and tensor % arch.kv_heads:
            yield f"{tensor} GPUs are no multiple of the {arch.kv_heads} key-value heads, of which each takes one."


def _context_problems(arch: Architecture, tensor: int, context: int) -> Iterator[str]:
    """parallel.py and model.py on --decode-context-parallel-size; sliding windows have no such support."""
    if context == 1:
        return
    if tensor % context:
        yield f"{tensor} tensor ranks cannot be divided by a decode context of {context}."
    if arch.compressed is not None or any(window is not None for window in arch.windows):
        yield f"sliding windows, which {arch.name} has, work with a decode context of 1 only."
    if arch.mla is None:
        copies = tensor // arch.kv_heads
        if context > max(1, copies):
            yield (
                f"a decode context of {context} needs as many copies of each key-value head; {tensor} GPUs hold"
                f" {arch.kv_heads} heads, which makes {max(1, copies)}."
            )
        elif (arch.heads // arch.kv_heads) % context:
            yield f"{arch.heads // arch.kv_heads} query heads to a key-value head cannot be divided by {context}."


def _expert_problems(arch: Architecture, where: Parallelism) -> Iterator[str]:
    if arch.moe is None:
        if where.expert:
            yield f"{arch.name} has no experts, so there is nothing to spread by expert parallelism."
        if where.data > 1:
            yield (
                f"{arch.name} has no experts that data-parallel ranks could share; {where.data} independent services"
                " do the same without waiting for one another."
            )
    elif where.expert and where.tensor * where.data > arch.moe.routed_experts:
        yield f"{arch.moe.routed_experts} experts cannot be spread over {where.tensor * where.data} GPUs."


def _linears(arch: Architecture) -> List[TensorSpec]:
    """One of each kind of linear layer: those of the main layers, by the name within the layer."""
    found: Dict[str, TensorSpec] = {}
    for group in tensor_groups(arch):
        # up is as gate is, and values are as keys are.
        twin = group.spec.name.endswith(("up_proj.weight", "v_proj.weight", ".w3.weight"))
        if group.spec.kind == "linear" and not twin:
            found.setdefault(group.spec.within, group.spec)
    return list(found.values())


def _short(spec: TensorSpec) -> str:
    """A layer's name as a sentence can carry it: mlp.down_proj."""
    name: str = spec.within.replace("experts.{}", "experts")
    return name[: -len(".weight")]


def _division_problem(spec: TensorSpec, shape: List[int]) -> Optional[str]:
    for full, part, side in zip(spec.shape, shape, ("outputs", "inputs")):
        if part and full > part and full % part:
            return f"{_short(spec)} has {full} {side}, which cannot be cut into equal parts; choose fewer GPUs."
    return None


def _storage_problem(quantization: Quantization, spec: TensorSpec, shape: List[int], merged: bool) -> Optional[str]:
    """Why a quantised layer cannot be cut so: a block or group of weights that share a scale may not be divided."""
    cut = [part < full for part, full in zip(shape, spec.shape)]
    block = quantization.block_shape
    if block:
        if (cut[0] or merged) and shape[0] % block[0]:
            return (
                f"{_short(spec)} leaves {shape[0]} outputs to a GPU, which is no multiple of fp8 blocks of {block[0]}."
            )
        if cut[1] and shape[1] % block[1]:
            return (
                f"{_short(spec)} leaves {shape[1]} inputs to a GPU, which is no multiple of fp8 blocks of {block[1]}."
            )
        return None
    if quantization.group_size and shape[1] % quantization.group_size:
        return (
            f"{_short(spec)} leaves {shape[1]} inputs to a GPU, which is no multiple of the quantisation's groups of"
            f" {quantization.group_size}."
        )
    if quantization.method in ("awq", "gptq") and shape[0] % PACKED_IN_WORD:
        return f"{_short(spec)} leaves {shape[0]} outputs to a GPU, which is no multiple of {PACKED_IN_WORD}."
    return None


def _layer_problems(arch: Architecture, precision: str, where: Parallelism) -> Iterator[str]:
    quantization = storage(arch, precision)
    for spec in _linears(arch):
        shape = list(rank_shape(arch, spec, where))
        problem = _division_problem(spec, shape)
        stored = stored_as(quantization, spec, True)
        if problem is None and stored is not None:
            # Projections that the engine joins into one must be whole blocks also where nothing is cut.
            merged = spec.name.endswith(_MERGED)
            problem = _storage_problem(stored, spec, shape, merged)
        if problem:
            yield problem


def problems(arch: Architecture, precision: str, parallelism: Parallelism, decode_context: int = 1) -> List[str]:
    """One sentence for each reason why the engine refuses; empty when it accepts.  precision: as for weights."""
    where = parallelism
    for name, size in (
        ("tensor", where.tensor),
        ("pipeline", where.pipeline),
        ("data", where.data),
        ("decode context", decode_context),
    ):
        if size < 1:
            return [f"{name} parallelism is {size}; give 1 or more."]
    found = list(_attention_problems(arch, where.tensor))
    found += _context_problems(arch, where.tensor, decode_context)
    found += _expert_problems(arch, where)
    if where.pipeline > arch.layers:
        found.append(f"{arch.layers} layers cannot be divided over {where.pipeline} pipeline stages.")
    padded = -(-arch.vocab_size // VOCAB_PADDING) * VOCAB_PADDING
    if padded % where.tensor:
        found.append(
            f"a vocabulary of {padded} (padded to {VOCAB_PADDING}) cannot be divided over {where.tensor} GPUs."
        )
    # What the heads refuse, the layers' shapes would only refuse again.
    return found or list(_layer_problems(arch, precision, where))
