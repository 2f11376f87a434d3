# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The catalogue: models that can be planned without having their files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import Architecture


@dataclass(frozen=True)
class Recipe:
    """A quantised variant.  precision: of model_weights.PRECISIONS; model: where it is published, or empty when the
    engine quantises while it loads; flags: of the engine, without dashes."""

    precision: str
    model: str
    flags: Mapping[str, Any]
    note: str


@dataclass(frozen=True)
class Entry:
    """One model.  sampling: what its makers recommend, by the names of OpenAI's interface; engine_minimum: the first
    vLLM release that serves it well; config_sha256: of its config.json, empty when not known."""

    name: str
    aliases: Tuple[str, ...]
    model: str
    architecture: Architecture
    config: Mapping[str, Any]
    source: str
    config_sha256: str
    engine_minimum: str
    reasoning_parser: str
    tool_parser: str
    sampling: Mapping[str, Any]
    recipes: Tuple[Recipe, ...]


def load(own: Optional[str] = None) -> List[Entry]:
    """All entries, sorted by name; own: a folder of further files, whose names win."""
    raise NotImplementedError


def find(name: str, entries: Sequence[Entry]) -> Entry:
    """The entry of this name or alias; ModelError names the nearest."""
    raise NotImplementedError
