# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which parallelism the engine accepts for a model, and why not."""

from __future__ import annotations

from typing import List

from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import Architecture
from ansible_collections.bedplate.llm.plugins.module_utils.model_weights import Parallelism


def problems(arch: Architecture, precision: str, parallelism: Parallelism, decode_context: int = 1) -> List[str]:
    """One sentence for each reason why the engine refuses; empty when it accepts."""
    raise NotImplementedError
