# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a running engine says of its memory, from its metrics and from what it wrote while it started."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Iterable, List, Mapping, Optional

from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import GIB

_CACHE = re.compile(r"^vllm:cache_config_info\{([^}\n]*)\}", re.MULTILINE)
# With the place in the engine's source that writes it: a line that only repeats these words does not count.
_LOADED = re.compile(r"model_runner\.py:\d+\] Model loading took ([0-9]+(?:\.[0-9]+)?) GiB")
_SERVES = "Application startup complete"
# An engine that writes more than this before it serves has said it already.
_MOST_LINES = 50_000


@dataclass(frozen=True)
class Reported:
    """What an engine says since its start; None is what it does not say.

    weight_bytes: of the first GPU, to 0.01 GiB.
    weights_of: empty for the start that serves now, else when the earlier start of the same release was read.
    """

    kv_cache_tokens: Optional[int] = None
    max_concurrency: Optional[float] = None
    weight_bytes: Optional[int] = None
    weights_of: str = ""


def _least(metrics: str, label: str) -> Optional[float]:
    """The least value that the engines of a service have for a label; data ranks have an engine each."""
    found: List[float] = []
    for labels in _CACHE.findall(metrics):
        match = re.search(rf'(?:^|,){label}="([0-9]+(?:\.[0-9]+)?)"', labels)
        if match:
            found.append(float(match[1]))
    return min(found) if found else None


def kv_cache_tokens(metrics: str) -> Optional[int]:
    """Tokens that the KV cache holds, from the text of /metrics (vllm:cache_config_info)."""
    found = _least(metrics, "kv_cache_size_tokens")
    return None if found is None else int(found)


def max_concurrency(metrics: str) -> Optional[float]:
    """Requests of the full length that the KV cache holds at the same time, from the same place."""
    return _least(metrics, "kv_cache_max_concurrency")


def weight_bytes(journal: Iterable[str]) -> Optional[int]:
    """Memory that loading took, from what the engine wrote since its start; the most, where several processes say it.

    Reads no further than to where the engine begins to serve.
    """
    found: List[float] = []
    for number, line in enumerate(journal):
        match = _LOADED.search(line)
        if match:
            found.append(float(match[1]))
        if _SERVES in line or number >= _MOST_LINES:
            break
    return int(max(found) * GIB) if found else None


def reported(metrics: str, journal: Iterable[str], invocation: str, earlier: Mapping[str, Any]) -> Reported:
    """What the engine says, and what its release's record keeps of what the journal has lost since.

    The weights of a release are the same at each start; the room is not, and is always the engine's own word of now.
    """
    weights, weights_of = weight_bytes(journal), ""
    kept = (earlier.get("reported") or {}).get("weight_bytes")
    if weights is None and kept is not None:
        same = earlier.get("invocation") == invocation
        weights, weights_of = int(kept), earlier.get("weights_of") or ("" if same else earlier["measured_at"])
    return Reported(kv_cache_tokens(metrics), max_concurrency(metrics), weights, weights_of)
