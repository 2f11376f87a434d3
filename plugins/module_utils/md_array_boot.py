# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""How an array comes up at boot: its line in mdadm's configuration.

With the line an array is this host's own, and is put together also where the configuration forbids others (AUTO -all).
An array that lacks a leg is started by the role's `mdstart-bedplate.service`.  Other people's lines stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.md_array_declared import Array

# What a host without any configuration gets beside our lines: without it mdadm's own monitor ends with an error.
_NEW = "MAILADDR root\n"


class BootLineError(Exception):
    """Somebody else's line that ours would clash with, as one sentence."""


@dataclass(frozen=True)
class _Entry:
    """A line with those that continue it: they begin with white space."""

    lines: Tuple[str, ...]

    @property
    def words(self) -> List[str]:
        found: List[str] = []
        for line in self.lines:
            found += line.split("#")[0].split()
        return found

    @property
    def uuid(self) -> str:
        for word in self.words:
            if word.lower().startswith("uuid="):
                return word[5:].lower()
        return ""


def line(array: Array, uuid: str) -> str:
    return f"ARRAY {array.node} metadata=1.2 UUID={uuid}"


def merged(text: str, array: Array, uuid: str, path: str) -> str:
    """The configuration with a line for the array; as it is where it has one."""
    entries = _entries(text or _NEW)
    ours = [entry for entry in entries if entry.words[:1] == ["ARRAY"] and entry.uuid == uuid]
    for entry in ours:
        if "<ignore>" in entry.words:
            raise BootLineError(
                f"{path} says that array {uuid} is to be ignored: {entry.lines[0]!r}; take that line out"
            )
    # The node's name is of our making: with another UUID it speaks of an array that was given up.
    kept = [entry for entry in entries if entry in ours or entry.words[:2] != ["ARRAY", array.node]]
    if not ours:
        kept.append(_Entry((line(array, uuid),)))
    return "".join(f"{present}\n" for entry in kept for present in entry.lines)


def _entries(text: str) -> List[_Entry]:
    found: List[_Entry] = []
    for present in text.splitlines():
        if found and present[:1] in (" ", "\t") and present.strip():
            found[-1] = _Entry((*found[-1].lines, present))
        else:
            found.append(_Entry((present,)))
    return found
