# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a running engine says of its KV cache, against what the plan said before it was started."""

from __future__ import annotations

import re
from typing import List

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check

# More room than planned is no problem; a little less is what the planner's own error can be.
TOLERANCE = 0.05
_LABEL = re.compile(r'^vllm:cache_config_info\{[^}\n]*\bkv_cache_size_tokens="(\d+)"', re.MULTILINE)


def reported_tokens(metrics: str) -> List[int]:
    """Tokens that the KV cache of each engine holds, from the text of /metrics (vllm:cache_config_info)."""
    return [int(number) for number in _LABEL.findall(metrics)]


def room_check(planned: int, metrics: str) -> Check:
    """Whether the engine has the room that the plan promised; the error is in the reason either way."""
    found = reported_tokens(metrics)
    if not found or not planned:
        return Check(
            "vllm.planned-room",
            False,
            f"The engine does not say how many tokens its KV cache holds; the plan says {planned:,}.",
            "Look for vllm:cache_config_info in what the engine answers to /metrics.",
        )
    least = min(found)
    error = least / planned - 1
    said = f"The KV cache holds {least:,} tokens and the plan says {planned:,} ({error:+.1%})."
    ok = error >= -TOLERANCE
    remedy = "Something else uses the GPU's memory, or the plan is of other GPUs: plan again with this host's GPUs."
    return Check("vllm.planned-room", ok, said, "" if ok else remedy)
