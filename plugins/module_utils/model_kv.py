# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bytes of the key-value cache: per token, per block, and for a request of a given length.

Read in vLLM 0.32: v1/kv_cache_interface.py (page sizes, blocks of a sliding window), v1/core/kv_cache_utils.py (how
layers of two kinds share one pool of blocks) and get_kv_cache_spec of the attention layers; tests/reference compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Dict, Iterator, List, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import model_kv_compressed
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import Architecture, ModelError
from ansible_collections.bedplate.llm.plugins.module_utils.model_quantization import BYTES
from ansible_collections.bedplate.llm.plugins.module_utils.model_weights import pipeline_layers
from ansible_collections.bedplate.llm.plugins.module_utils.plan_terms import KV_DTYPES

# Tokens to a block: the engine's default, that of FlashMLA, that of attention on a CPU.
BLOCK, BLOCK_FLASHMLA, BLOCK_CPU = 16, 64, 128
# DeepSeek's packed rows: fp8 has 512 B latent + 16 B scales + 128 B of 16-bit rotary part; fp4 is for SM100 only.
PACKED = {"fp8_ds_mla": 656, "nvfp4_ds_mla": 352}
# The indexer's keys are fp8 with a 32-bit scale for each 128 numbers.
INDEXER_SCALE_GROUP = 128


def stored_dtype(arch: Architecture, kv_dtype: str) -> str:
    """The layout the engine really uses: sparse attention has no plain fp8 cache and takes the packed rows."""
    if kv_dtype not in KV_DTYPES:
        raise ModelError(f"the cache's type is {kv_dtype!r}; expected one of {', '.join(KV_DTYPES)}.")
    if arch.compressed is not None:
        if kv_dtype != "auto" and not kv_dtype.startswith("fp8"):
            raise ModelError(f"the cache's type is {kv_dtype}; that of {arch.name} has fp8 rows only.")
        return "fp8_ds_mla"
    if kv_dtype in PACKED and (arch.mla is None or arch.mla.latent != 576):
        raise ModelError(
            f"the cache's type {kv_dtype} is that of DeepSeek's latent attention, which {arch.name} lacks."
        )
    return "fp8_ds_mla" if arch.indexer and kv_dtype.startswith("fp8") else kv_dtype


def _number_bytes(arch: Architecture, kv_dtype: str) -> int:
    if kv_dtype == "auto":
        return int(BYTES[arch.dtype])
    return 1 if kv_dtype.startswith("fp8") else 2


def kv_bytes_per_token_per_layer(arch: Architecture, kv_dtype: str, tensor: int = 1) -> int:
    """Bytes of one layer and token on one tensor rank.

    Latent attention: kv_lora_rank + qk_rope_head_dim numbers, the same on every rank.  Other attention: keys and values
    of max(1, kv_heads // tensor) heads.  Sparse attention: the indexer's head_dim bytes and its scales besides.
    """
    kind = stored_dtype(arch, kv_dtype)
    if arch.mla is None:
        width = arch.head_dim + (arch.v_head_dim or arch.head_dim)
        return int(max(1, arch.kv_heads // tensor) * width * _number_bytes(arch, kind))
    size = int(PACKED.get(kind) or arch.mla.latent * _number_bytes(arch, kind))
    if arch.indexer:
        size += arch.indexer.head_dim + arch.indexer.head_dim // INDEXER_SCALE_GROUP * 4
    return size


def kv_bytes_per_token_per_gpu(
    arch: Architecture, kv_dtype: str, tensor: int, pipeline: int, decode_context: int = 1, mtp: bool = False
) -> int:
    """Bytes that one token of context takes on the fullest pipeline stage, all layers counted as full attention.

    decode_context: ranks over which a request's tokens are spread, so that each keeps its part (rounded up).
    Compressed attention: what a request grows by; its windows and unfinished sums do not grow.
    """
    if arch.compressed is not None:
        stored_dtype(arch, kv_dtype)
        cache = pool(arch, kv_dtype, tensor, pipeline, block_size=model_kv_compressed.BLOCK, mtp=mtp)
        return -(-cache.block_bytes // cache.block_tokens)
    layers = max(_stage_layers(arch, pipeline, mtp))
    return -(-layers * kv_bytes_per_token_per_layer(arch, kv_dtype, tensor) // decode_context)


def _stage_layers(arch: Architecture, pipeline: int, mtp: bool) -> List[int]:
    """Layers with a cache on each stage; multi-token prediction adds its own to the last."""
    counts = [len(stage) for stage in pipeline_layers(arch.layers, pipeline)]
    counts[-1] += arch.mtp_layers if mtp else 0
    return counts


@dataclass(frozen=True)
class _LayerGroup:
    """Layers that share a block table.  window: None for full attention; layers: their numbers."""

    window: Optional[int]
    layers: Tuple[int, ...]


@dataclass(frozen=True)
class Pool:
    """The cache of one rank: blocks that any group of layers may take.

    block_bytes: of one block, on the fullest stage; block_tokens: that a block of one rank holds; ranks: over which
    tokens are spread (decode_context); windows: of each group of layers, None for full attention; window_tokens: that a
    block of each group holds, where groups differ.
    """

    block_bytes: int
    block_tokens: int
    ranks: int
    windows: Tuple[Optional[int], ...]
    window_tokens: Tuple[int, ...] = ()

    @property
    def slides(self) -> bool:
        """Whether a request holds more than its tokens take: some layers keep a window."""
        return any(window is not None for window in self.windows)

    def _groups(self) -> Iterator[Tuple[Optional[int], int]]:
        return zip(self.windows, self.window_tokens or (self.block_tokens,) * len(self.windows))

    def request_blocks(self, tokens: int, in_flight: int = 0) -> int:
        """Blocks that a request of so many tokens holds at most; in_flight: tokens of a step not yet settled.

        A full group holds all tokens.  A window holds min(window - 1 + in_flight, tokens) and one block more, since it
        need not begin at a block's edge (SlidingWindowSpec.max_admission_blocks_per_request).
        """
        blocks = 0
        for window, size in self._groups():
            if window is None:
                blocks += -(-tokens // (size * self.ranks))
            else:
                blocks += -(-min(window - 1 + max(in_flight, 1), tokens) // size) + 1
        return blocks

    def requests(self, memory: int, tokens: int, in_flight: int) -> int:
        """Requests of so many tokens that are worked on at the same time.

        The tokens of steps that are not settled take blocks of windows besides, once for all requests together.
        """
        passing = sum(-(-in_flight // size) for window, size in self._groups() if window is not None)
        return max(0, self.blocks(memory) - passing) // self.request_blocks(tokens)

    def blocks(self, memory: int) -> int:
        """Blocks in so many bytes; the engine keeps one of them as the null block."""
        return memory // self.block_bytes


def _layer_groups(arch: Architecture, mtp: bool) -> List[_LayerGroup]:
    """Full and sliding layers, split into groups of about equal size (_get_kv_cache_groups_uniform_page_size)."""
    kinds: Dict[Optional[int], List[int]] = {}
    for layer in range(arch.layers + (arch.mtp_layers if mtp else 0)):
        kinds.setdefault(arch.window(layer), []).append(layer)
    sizes = [len(layers) for layers in kinds.values()]
    size = max(sizes) if max(sizes) < min(sizes) * 1.5 else min(sizes)
    groups = []
    for window, layers in kinds.items():
        count = -(-len(layers) // size)
        groups += [_LayerGroup(window, tuple(layers[start::count])) for start in range(count)]
    return groups


@lru_cache(maxsize=1024)
def pool(
    arch: Architecture,
    kv_dtype: str,
    tensor: int,
    pipeline: int,
    decode_context: int = 1,
    block_size: int = BLOCK,
    mtp: bool = False,
) -> Pool:
    """How the engine divides the cache into blocks: one block has the widest group's layers of a stage."""
    stages = pipeline_layers(arch.layers, pipeline)
    last = stages[-1]
    stages[-1] = range(last.start, last.stop + (arch.mtp_layers if mtp else 0))
    if arch.compressed is not None:
        tables = model_kv_compressed.groups(arch, arch.compressed, mtp)
        fullest = max(sum(page.bytes for page in table if page.layer in stage) for stage in stages for table in tables)
        windows, sizes = tuple(table[0].window for table in tables), tuple(table[0].block_tokens for table in tables)
        return Pool(fullest, model_kv_compressed.BLOCK, decode_context, windows, sizes)
    groups = _layer_groups(arch, mtp)
    widest = max(len([layer for layer in group.layers if layer in stage]) for stage in stages for group in groups)
    page = kv_bytes_per_token_per_layer(arch, kv_dtype, tensor) * block_size
    return Pool(page * widest, block_size, decode_context, tuple(group.window for group in groups))


def kv_bytes_for_request(
    arch: Architecture,
    tokens: int,
    kv_dtype: str,
    tensor: int,
    pipeline: int,
    decode_context: int = 1,
    block_size: int = BLOCK,
    in_flight: int = 0,
    mtp: bool = False,
) -> int:
    """Bytes that a request of so many tokens takes on the fullest stage: whole blocks, windows counted as windows."""
    cache = pool(arch, kv_dtype, tensor, pipeline, decode_context, block_size, mtp)
    return cache.request_blocks(tokens, in_flight) * cache.block_bytes
