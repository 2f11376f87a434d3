# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""DeepSeek V4: attention over compressed tokens, residual streams that are mixed, experts chosen by the token's number.

Each layer attends to a window of the last tokens; most also to older tokens, of which `ratio` are pooled into one row
(4: an indexer picks some of the rows; 128: all of them).  The fields are those of config.json; names and shapes are
those of the published checkpoint, and what a rank holds was read in vllm/models/deepseek_v4 (attention.py,
compressor.py, nvidia/model.py, nvidia/mtp.py, nvidia/flashmla.py) of vLLM 0.32; tests/reference compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.model_quantization import ModelError

# What the engine's kernels are made for (CompressorStateCache, DeepseekCompressor, DeepseekV4Attention).
RATIOS = (0, 1, 4, 128)
HEAD_DIM, INDEX_HEAD_DIM, ROPE_DIM = 512, 128, 64
# FlashMLA's kernels take 64 or 128 heads of queries: fewer are padded (get_padded_num_q_heads).
PADDED_HEADS = 64


@dataclass(frozen=True)
class Compressed:
    """ratios: of each layer, those of multi-token prediction not counted; 1 is the window alone.

    streams: of the residual, mixed by hyper-connections; hash_layers: the first ones, whose experts a table gives for
    each token of the vocabulary; o_groups, o_lora_rank: the output projection in two steps.
    """

    ratios: Tuple[int, ...]
    window: int
    q_lora_rank: int
    o_lora_rank: int
    o_groups: int
    head_dim: int
    rope_dim: int
    index_heads: int
    index_head_dim: int
    index_topk: int
    streams: int
    hash_layers: int

    def ratio(self, layer: int) -> int:
        """The layer's ratio; a layer of multi-token prediction has the window alone."""
        return self.ratios[layer] if layer < len(self.ratios) else 1

    @property
    def mixes(self) -> int:
        """Coefficients that the streams are mixed with before and after a layer."""
        return (2 + self.streams) * self.streams


def padded_heads(heads: int) -> int:
    """Heads of queries that a rank has buffers for."""
    return -(-heads // PADDED_HEADS) * PADDED_HEADS


def _ratios(read: Any, layers: int) -> Tuple[int, ...]:
    """Each layer's; the published list goes on with a number for each layer of multi-token prediction."""
    value = read.config.get("compress_ratios")
    expected = f"expected 0, 4 or 128 for each of {layers} layers"
    if not isinstance(value, list):
        raise ModelError(f"{read.where}: compress_ratios is {value!r}; {expected}.")
    if len(value) < layers:
        raise ModelError(f"{read.where}: compress_ratios has {len(value)} numbers; {expected}.")
    wrong = next((ratio for ratio in value if ratio not in RATIOS), None)
    if wrong is not None:
        raise ModelError(f"{read.where}: compress_ratios has {wrong!r} in it; {expected}.")
    return tuple(max(1, ratio) for ratio in value[:layers])


def parse(read: Any, layers: int) -> Compressed:
    """From a reader of config.json's fields (model_architecture); ModelError in one sentence."""
    ratios = _ratios(read, layers)
    if read.number("vision_n_layers", 0, 0):
        raise ModelError(f"{read.where}: vision_n_layers is set, and models that see are not planned.")
    found = Compressed(
        ratios=ratios,
        window=read.number("sliding_window"),
        q_lora_rank=read.number("q_lora_rank"),
        o_lora_rank=read.number("o_lora_rank"),
        o_groups=read.number("o_groups"),
        head_dim=read.number("head_dim"),
        rope_dim=read.number("qk_rope_head_dim"),
        index_heads=read.number("index_n_heads"),
        index_head_dim=read.number("index_head_dim"),
        index_topk=read.number("index_topk"),
        streams=read.number("hc_mult"),
        hash_layers=read.number("num_hash_layers", 0, 0),
    )
    for name, value, known in (
        ("head_dim", found.head_dim, HEAD_DIM),
        ("qk_rope_head_dim", found.rope_dim, ROPE_DIM),
        ("index_head_dim", found.index_head_dim, INDEX_HEAD_DIM),
    ):
        if value != known:
            raise ModelError(f"{read.where}: {name} is {value}; the engine's cache of DeepSeek V4 is made for {known}.")
    return found


# name within the layer, shape, kind and sharding, as TensorSpec has them
Tensor = Tuple[str, Tuple[int, ...], str, str]


def attention(parts: Compressed, hidden: int, heads: int, layer: int) -> Iterator[Tensor]:
    """The tensors of a layer's attention: the latent query, one head of keys, the output in groups."""
    queries = heads * parts.head_dim
    yield "attn.attn_sink", (heads,), "float32", "sinks"
    yield "attn.wq_a.weight", (parts.q_lora_rank, hidden), "linear", "replicated"
    yield "attn.q_norm.weight", (parts.q_lora_rank,), "norm", "replicated"
    yield "attn.wq_b.weight", (queries, parts.q_lora_rank), "linear", "column"
    yield "attn.wkv.weight", (parts.head_dim, hidden), "linear", "replicated"
    yield "attn.kv_norm.weight", (parts.head_dim,), "norm", "replicated"
    width = parts.o_groups * parts.o_lora_rank
    yield "attn.wo_a.weight", (width, queries // parts.o_groups), "linear", "column"
    yield "attn.wo_b.weight", (hidden, width), "linear", "row"
    ratio = parts.ratio(layer)
    if ratio > 1:
        yield from _compressor("attn.compressor.", ratio, parts.head_dim, hidden)
    if ratio == 4:
        index = parts.index_heads * parts.index_head_dim
        yield "attn.indexer.wq_b.weight", (index, parts.q_lora_rank), "linear", "replicated"
        yield "attn.indexer.weights_proj.weight", (parts.index_heads, hidden), "plain", "replicated"
        yield from _compressor("attn.indexer.compressor.", ratio, parts.index_head_dim, hidden)


def _compressor(prefix: str, ratio: int, head_dim: int, hidden: int) -> Iterator[Tensor]:
    """What pools tokens into one row; of 4 tokens the rows overlap and have two parts."""
    width = (2 if ratio == 4 else 1) * head_dim
    yield f"{prefix}ape", (ratio, width), "float32", "replicated"
    yield f"{prefix}wkv.weight", (width, hidden), "plain", "replicated"
    yield f"{prefix}wgate.weight", (width, hidden), "plain", "replicated"
    yield f"{prefix}norm.weight", (head_dim,), "norm", "replicated"


def streams(parts: Compressed, hidden: int) -> Iterator[Tensor]:
    """How a layer's attention and its experts read the residual streams and write them."""
    for name in ("attn", "ffn"):
        yield f"hc_{name}_fn", (parts.mixes, parts.streams * hidden), "float32", "replicated"
        yield f"hc_{name}_base", (parts.mixes,), "float32", "replicated"
        yield f"hc_{name}_scale", (3,), "float32", "replicated"


def streams_end(parts: Compressed, hidden: int) -> Iterator[Tensor]:
    """How the streams become one again before the head."""
    yield "hc_head_fn", (parts.streams, parts.streams * hidden), "float32", "replicated"
    yield "hc_head_base", (parts.streams,), "float32", "replicated"
    yield "hc_head_scale", (1,), "float32", "replicated"


def prediction(hidden: int) -> Iterator[Tensor]:
    """What a layer of multi-token prediction has besides; embedding and head are the model's own."""
    for name in ("enorm", "hnorm", "norm"):
        yield f"{name}.weight", (hidden,), "norm", "replicated"
    for name in ("e_proj", "h_proj"):
        yield f"{name}.weight", (hidden, hidden), "linear", "replicated"


def rows(parts: Compressed, layer: int, context: float) -> Tuple[float, float]:
    """(rows that a new token attends to, keys that its indexer reads) with so many tokens before it."""
    ratio = parts.ratio(layer)
    near = min(float(parts.window), context)
    if ratio == 1:
        return near, 0.0
    far = context / ratio
    return (near + min(float(parts.index_topk), far), far) if ratio == 4 else (near + far, 0.0)
