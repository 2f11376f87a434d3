# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a model's config.json says about its size: layers, heads, experts, windows, quantisation.

The field names are those of Hugging Face's config.json; what vLLM 0.32 makes of each was read in
vllm/model_executor/models/{llama,mistral,qwen2,qwen3,qwen3_moe,gemma3,deepseek_v2}.py.  An architecture that is not
listed here is refused: its tensors would have to be guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

DTYPES = ("bfloat16", "float16", "float32")


class ModelError(ValueError):
    """The model cannot be planned; the message is one sentence for the user."""


@dataclass(frozen=True)
class Mla:
    """Multi-head latent attention: widths in numbers per token or per head; q_lora_rank is None for a plain q_proj."""

    kv_lora_rank: int
    qk_rope_head_dim: int
    qk_nope_head_dim: int
    v_head_dim: int
    q_lora_rank: Optional[int] = None

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def latent(self) -> int:
        """Numbers that the cache keeps for a token and layer."""
        return self.kv_lora_rank + self.qk_rope_head_dim


@dataclass(frozen=True)
class Moe:
    """Mixture of experts.  intermediate_size is that of one expert; a shared expert of DeepSeek has the same.

    correction_bias: the router has a 32-bit bias for each expert (topk_method noaux_tc).
    """

    routed_experts: int
    experts_per_token: int
    shared_experts: int
    intermediate_size: int
    first_dense_layers: int
    layer_frequency: int
    n_group: int
    topk_group: int
    correction_bias: bool = False


@dataclass(frozen=True)
class Indexer:
    """DeepSeek sparse attention: the small attention that picks topk tokens for the real one."""

    heads: int
    head_dim: int
    topk: int


@dataclass(frozen=True)
class Quantization:
    """How the checkpoint's linear layers are stored.  bits: of a weight; group_size: weights to one scale, None for
    one scale per tensor or channel; block_shape: of block-wise fp8; excluded: module names or patterns left as they are;
    zero_points: whether 4-bit groups carry one (AWQ)."""

    method: str
    bits: int
    group_size: Optional[int] = None
    block_shape: Optional[Tuple[int, int]] = None
    excluded: Tuple[str, ...] = ()
    zero_points: bool = False


@dataclass(frozen=True)
class Architecture:
    """windows: each layer's sliding window in tokens, None for full attention; empty when all layers are full.

    intermediate_size is that of dense layers.  v_head_dim is None where values are as wide as keys.
    mtp_layers: layers for multi-token prediction that the checkpoint carries after the main ones.
    """

    name: str
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int
    tied_embeddings: bool
    dtype: str
    v_head_dim: Optional[int] = None
    qkv_bias: bool = False
    qk_norm: bool = False
    mla: Optional[Mla] = None
    moe: Optional[Moe] = None
    windows: Tuple[Optional[int], ...] = ()
    indexer: Optional[Indexer] = None
    mtp_layers: int = 0
    quantization: Optional[Quantization] = None
    o_bias: bool = False
    mlp_bias: bool = False
    norms_per_layer: int = 2

    def is_sparse(self, layer: int) -> bool:
        """Whether a layer's MLP is a mixture of experts; layers for multi-token prediction are as deep layers are."""
        moe = self.moe
        return moe is not None and layer >= moe.first_dense_layers and layer % moe.layer_frequency == 0

    def window(self, layer: int) -> Optional[int]:
        """The layer's sliding window in tokens, None for full attention."""
        return self.windows[layer] if layer < len(self.windows) else None
