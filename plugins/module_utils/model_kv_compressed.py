# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""DeepSeek V4's caches: the pages that each layer has, and how the engine shares blocks among them.

As in vLLM 0.32: get_kv_cache_spec in models/deepseek_v4 (attention.py, compressor.py) and of DeepseekV4SWACache in
v1/attention/backends/mla/sparse_swa.py, grouped by _get_packed_kv_cache_groups in v1/core/kv_cache_utils.py;
tests/reference compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import Architecture
from ansible_collections.bedplate.llm.plugins.module_utils.model_compressed import Compressed

# Tokens to a block of the compressed rows, the only number that the engine's backends take, and to one of a window.
BLOCK, WINDOW_BLOCK = 256, 64
# Bytes of a row: 448 fp8 numbers, 64 of 16 bits for the position, 8 scales.
ROW_BYTES = 584
# Pages are padded to it, for the kernel's strides.
_ALIGNMENT = 576
# Tokens to a block of a compressor's unfinished sums, and the tokens that it looks back, by ratio.
_STATE_BLOCK = {4: 4, 128: 8}
_STATE_WINDOW = {4: 8, 128: 128}


@dataclass(frozen=True)
class Page:
    """A cache of one layer: bytes of its page, tokens to a block of it, and its window."""

    layer: int
    bytes: int
    block_tokens: int
    window: Optional[int]


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _states(ratio: int, head_dim: int) -> int:
    """Bytes of a block of unfinished sums: 32-bit keys and scores, of 4 tokens in two parts that overlap."""
    return _padded(_STATE_BLOCK[ratio] * 2 * (2 if ratio == 4 else 1) * head_dim * 4)


def _of_layer(parts: Compressed, layer: int) -> List[Page]:
    ratio = parts.ratio(layer)
    found = [Page(layer, _padded(WINDOW_BLOCK * ROW_BYTES), WINDOW_BLOCK, parts.window)]
    if ratio > 1:
        found.append(Page(layer, _padded(BLOCK // ratio * ROW_BYTES), BLOCK, None))
        found.append(Page(layer, _states(ratio, parts.head_dim), _STATE_BLOCK[ratio], _STATE_WINDOW[ratio]))
    if ratio == 4:
        keys = parts.index_head_dim + parts.index_head_dim // 128 * 4
        found.append(Page(layer, _padded(BLOCK // ratio * keys), BLOCK, None))
        found.append(Page(layer, _states(ratio, parts.index_head_dim), _STATE_BLOCK[ratio], _STATE_WINDOW[ratio]))
    return found


def groups(arch: Architecture, parts: Compressed, mtp: bool) -> List[Tuple[Page, ...]]:
    """Pages that share a block table.

    Pages of a kind make a bucket; where each size of page is there equally often, a bucket is split so that about as
    many layers are in each group as in the largest that mixes sizes (which cannot be split).
    """
    kinds: Dict[Tuple[int, Optional[int]], List[Page]] = {}
    for layer in range(arch.layers + (arch.mtp_layers if mtp else 0)):
        for page in _of_layer(parts, layer):
            kinds.setdefault((page.block_tokens, page.window), []).append(page)
    buckets = [_by_size(pages) for pages in kinds.values()]
    even = [sizes for sizes in buckets if len({len(pages) for pages in sizes}) == 1]
    mixed = [len(sizes[0]) for sizes in even if len(sizes) > 1]
    repeats = _repeats([len(sizes[0]) for sizes in even], max(mixed)) if mixed else None
    found = []
    for sizes in buckets:
        count = -(-len(sizes[0]) // repeats) if sizes in even and repeats else 1
        if count == 1:
            found.append(tuple(page for pages in sizes for page in pages))
        else:
            patterns = list(zip(*sizes))
            found += [tuple(page for pattern in patterns[at::count] for page in pattern) for at in range(count)]
    return found


def _by_size(pages: List[Page]) -> List[List[Page]]:
    sizes: Dict[int, List[Page]] = {}
    for page in pages:
        sizes.setdefault(page.bytes, []).append(page)
    return list(sizes.values())


def _repeats(counts: List[int], least: int) -> int:
    """Layers to a group with the least padding, the larger of equals (_approximate_gcd)."""
    return min(range(least, max(counts) + 1), key=lambda size: (sum(-count % size for count in counts), -size))
