# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a model's config.json says about its size: layers, heads, experts, windows, quantisation.

The field names are those of Hugging Face's config.json; what vLLM 0.32 makes of each was read in
vllm/model_executor/models/{llama,mistral,qwen2,qwen3,qwen3_moe,gemma3,deepseek_v2}.py and vllm/models/deepseek_v4.
An architecture that is not listed here is refused: its tensors would have to be guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import model_compressed, model_quantization
from ansible_collections.bedplate.llm.plugins.module_utils.model_compressed import Compressed
from ansible_collections.bedplate.llm.plugins.module_utils.model_quantization import ModelError, Quantization

__all__ = ["Architecture", "Compressed", "Indexer", "Mla", "ModelError", "Moe", "Quantization", "parse"]

DTYPES = ("bfloat16", "float16", "float32")


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

    correction_bias: the router has a 32-bit bias for each expert (topk_method noaux_tc), but for layers where a table
    chooses (DeepSeek V4).
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
class Architecture:
    """windows: each layer's sliding window in tokens, None for full attention; empty when all layers are full.

    intermediate_size is that of dense layers.  v_head_dim is None where values are as wide as keys.
    mtp_layers: layers for multi-token prediction that the checkpoint carries after the main ones.
    ends_on_all_stages: the engine's class has embedding, last norm and head on every pipeline stage.
    compressed: DeepSeek V4's attention and residual streams; mla, indexer and windows are empty then.
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
    ends_on_all_stages: bool = False
    compressed: Optional[Compressed] = None

    @property
    def one_cache(self) -> bool:
        """Whether all heads share one cache, which every tensor rank then keeps whole."""
        return self.mla is not None or self.compressed is not None

    def is_sparse(self, layer: int) -> bool:
        """Whether a layer's MLP is a mixture of experts; layers for multi-token prediction are as deep layers are."""
        moe = self.moe
        return moe is not None and layer >= moe.first_dense_layers and layer % moe.layer_frequency == 0

    def window(self, layer: int) -> Optional[int]:
        """The layer's sliding window in tokens, None for full attention."""
        return self.windows[layer] if layer < len(self.windows) else None


@dataclass(frozen=True)
class _Reader:
    """Fields of a config.json by name; refusals name the file, the field and the value."""

    config: Mapping[str, Any]
    where: str

    def given(self, name: str) -> bool:
        return self.config.get(name) is not None

    def number(self, name: str, default: Optional[int] = None, least: int = 1) -> int:
        value = self.config.get(name)
        if value is None:
            if default is None:
                raise ModelError(f"{self.where}: {name} is missing; take the model's own config.json.")
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ModelError(f"{self.where}: {name} is {value!r}; expected a whole number, {least} or more.")
        return value

    def switch(self, name: str, default: bool) -> bool:
        value = self.config.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ModelError(f"{self.where}: {name} is {value!r}; expected true or false.")
        return value

    def dtype(self) -> str:
        value = self.config.get("dtype", self.config.get("torch_dtype"))
        if value is None:
            raise ModelError(f"{self.where}: torch_dtype is missing; take the model's own config.json.")
        if value not in DTYPES:
            raise ModelError(f"{self.where}: torch_dtype is {value!r}; expected one of {', '.join(DTYPES)}.")
        return str(value)


@dataclass(frozen=True)
class _Family:
    """What the architecture's name alone decides, as the engine's model class has it."""

    qkv_bias: bool = False
    qk_norm: bool = False
    tied: bool = False
    norms: int = 2
    windows: str = ""
    moe: str = ""
    latent: bool = False
    llama_biases: bool = False
    ends_on_all_stages: bool = False
    compressed: bool = False

    @property
    def deepseek(self) -> bool:
        """Fields of the mixture and of multi-token prediction by DeepSeek's names; a head of its own."""
        return self.latent or self.compressed


# tied: transformers' default where config.json is silent; windows: from layer_types or the field that is named.
KNOWN: Dict[str, _Family] = {
    "LlamaForCausalLM": _Family(llama_biases=True),
    "MistralForCausalLM": _Family(windows="all"),
    "Qwen2ForCausalLM": _Family(qkv_bias=True, windows="refused"),
    "Qwen3ForCausalLM": _Family(qk_norm=True, windows="refused"),
    "Qwen3MoeForCausalLM": _Family(qk_norm=True, windows="refused", moe="num_experts", ends_on_all_stages=True),
    "Gemma3ForCausalLM": _Family(qk_norm=True, tied=True, norms=4, windows="pattern", ends_on_all_stages=True),
    "DeepseekV2ForCausalLM": _Family(latent=True, moe="n_routed_experts"),
    "DeepseekV3ForCausalLM": _Family(latent=True, moe="n_routed_experts"),
    "DeepseekV32ForCausalLM": _Family(latent=True, moe="n_routed_experts"),
    "DeepseekV4ForCausalLM": _Family(compressed=True, moe="n_routed_experts"),
}


def _layer_types(read: _Reader, layers: int) -> Optional[List[str]]:
    types = read.config.get("layer_types")
    if types is None:
        return None
    wrong = None
    if isinstance(types, list) and len(types) == layers:
        wrong = next((kind for kind in types if kind not in ("full_attention", "sliding_attention")), None)
        if wrong is None:
            return types
    found = f"{wrong!r} in it" if wrong is not None else "not a list of all layers"
    raise ModelError(
        f"{read.where}: layer_types has {found}; expected full_attention or sliding_attention for each"
        f" of {layers} layers."
    )


def _windows(read: _Reader, family: _Family, layers: int) -> Tuple[Optional[int], ...]:
    """Each layer's window.  Gemma 3 without layer_types: every sixth layer is full (sliding_window_pattern)."""
    types = _layer_types(read, layers)
    if family.windows == "refused" and not read.switch("use_sliding_window", False):
        return ()
    if types is None and family.windows == "pattern":
        step = read.number("sliding_window_pattern", 6)
        types = ["full_attention" if (layer + 1) % step == 0 else "sliding_attention" for layer in range(layers)]
    if types is None and family.windows == "all" and read.given("sliding_window"):
        types = ["sliding_attention"] * layers
    if family.windows == "refused":
        raise ModelError(
            f"{read.where}: use_sliding_window is true, which is not planned for {read.config['architectures'][0]}."
        )
    if types is None or "sliding_attention" not in types:
        return ()
    window = read.number("sliding_window")
    return tuple(window if kind == "sliding_attention" else None for kind in types)


def _moe(read: _Reader, family: _Family) -> Optional[Moe]:
    if not family.moe or not read.given(family.moe):
        return None
    moe = Moe(
        routed_experts=read.number(family.moe),
        experts_per_token=read.number("num_experts_per_tok"),
        shared_experts=read.number("n_shared_experts", 0, 0) if family.deepseek else 0,
        intermediate_size=read.number("moe_intermediate_size"),
        first_dense_layers=read.number("first_k_dense_replace", 0, 0) if family.latent else 0,
        layer_frequency=read.number("moe_layer_freq", 1) if family.latent else 1,
        n_group=read.number("n_group", 1),
        topk_group=read.number("topk_group", 1),
        correction_bias=read.config.get("topk_method") == "noaux_tc",
    )
    if moe.experts_per_token > moe.routed_experts:
        raise ModelError(
            f"{read.where}: num_experts_per_tok is {moe.experts_per_token}, more than the {moe.routed_experts} experts."
        )
    if not family.deepseek and (read.config.get("mlp_only_layers") or read.number("decoder_sparse_step", 1) != 1):
        raise ModelError(f"{read.where}: mlp_only_layers and decoder_sparse_step other than 1 are not planned.")
    return moe


def _mla(read: _Reader) -> Mla:
    return Mla(
        kv_lora_rank=read.number("kv_lora_rank"),
        qk_rope_head_dim=read.number("qk_rope_head_dim"),
        qk_nope_head_dim=read.number("qk_nope_head_dim"),
        v_head_dim=read.number("v_head_dim"),
        q_lora_rank=read.number("q_lora_rank") if read.given("q_lora_rank") else None,
    )


def _indexer(read: _Reader, family: _Family, mla: Optional[Mla]) -> Optional[Indexer]:
    if family.compressed or not read.given("index_topk"):
        return None
    if mla is None or mla.q_lora_rank is None or read.config.get("index_topk_freq", 1) != 1:
        raise ModelError(f"{read.where}: index_topk is set with a q_lora_rank or index_topk_freq that is not planned.")
    return Indexer(read.number("index_n_heads"), read.number("index_head_dim"), read.number("index_topk"))


def parse(config: Mapping[str, Any], where: str) -> Architecture:
    """The architecture of a config.json; where names the file in refusals.  ModelError in one sentence."""
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise ModelError(f"{where}: architectures is {names!r}; expected a list with the name of the model's class.")
    family = KNOWN.get(names[0])
    if family is None:
        raise ModelError(
            f"{where}: {names[0]} is not an architecture that can be planned; known are {', '.join(sorted(KNOWN))}."
        )
    read = _Reader(config, where)
    layers, hidden, heads = (read.number(n) for n in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
    kv_heads = read.number("num_key_value_heads", heads)
    mla = _mla(read) if family.latent else None
    compressed = model_compressed.parse(read, layers) if family.compressed else None
    if heads % kv_heads:
        raise ModelError(f"{where}: num_attention_heads is {heads}, no multiple of num_key_value_heads {kv_heads}.")
    # Qwen2's class in the engine takes hidden/heads whatever head_dim says.
    stated = read.given("head_dim") and names[0] != "Qwen2ForCausalLM"
    if mla is None and not stated and hidden % heads:
        raise ModelError(f"{where}: hidden_size {hidden} is no multiple of {heads} heads and head_dim is missing.")
    moe = _moe(read, family)
    if family.compressed and moe is None:
        raise ModelError(f"{where}: n_routed_experts is missing; take the model's own config.json.")
    quantization = model_quantization.parse(config, where)
    if family.compressed:
        quantization = model_quantization.deepseek_v4(quantization, config, where)
    qkv_bias = read.switch("attention_bias", False) if not (family.qkv_bias or mla) else family.qkv_bias
    return Architecture(
        name=names[0],
        layers=layers,
        hidden_size=hidden,
        # A model of experts only need not say how wide a dense layer would be.
        intermediate_size=read.number("intermediate_size", moe.intermediate_size if moe else None),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=mla.qk_head_dim if mla else read.number("head_dim") if stated else hidden // heads,
        v_head_dim=mla.v_head_dim if mla else None,
        vocab_size=read.number("vocab_size"),
        max_positions=read.number("max_position_embeddings"),
        # The engine's DeepSeek classes have a head of their own whatever is said.
        tied_embeddings=read.switch("tie_word_embeddings", family.tied) and not family.deepseek,
        dtype=read.dtype(),
        qkv_bias=qkv_bias,
        qk_norm=family.qk_norm,
        mla=mla,
        moe=moe,
        windows=_windows(read, family, layers),
        indexer=_indexer(read, family, mla),
        mtp_layers=read.number("num_nextn_predict_layers", 0, 0) if family.deepseek else 0,
        quantization=quantization,
        o_bias=family.llama_biases and qkv_bias,
        mlp_bias=family.llama_biases and read.switch("mlp_bias", False),
        norms_per_layer=family.norms,
        ends_on_all_stages=family.ends_on_all_stages,
        compressed=compressed,
    )
