# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What lists of things in an inventory have in common: which entry a sentence speaks of, unknown keys, doubles."""

from __future__ import annotations

from typing import AbstractSet, Any, Callable, Iterable, List, Mapping, Sequence, Tuple, TypeVar

_Made = TypeVar("_Made")


def parse_each(
    variable: str,
    declared: Sequence[Mapping[str, Any]],
    problems_of: Callable[[Mapping[str, Any]], List[str]],
    make: Callable[[Mapping[str, Any]], _Made],
) -> Tuple[List[_Made], List[str]]:
    """What is made of the entries that are sound, and a sentence for each problem of the others."""
    made: List[_Made] = []
    problems: List[str] = []
    for index, entry in enumerate(declared):
        where = f"{variable}[{index}]"
        if isinstance(entry, Mapping) and entry.get("name"):
            where += f" ({entry['name']})"
        found = problems_of(entry)
        problems += [f"{where}: {problem}." for problem in found]
        if not found:
            made.append(make(entry))
    return made, problems


def unknown_keys(entry: Mapping[str, Any], known: AbstractSet[str]) -> List[str]:
    """A problem when there are any; none otherwise."""
    unknown = sorted(set(map(str, entry)) - known)
    return [f"unknown key {', '.join(unknown)}; known are {', '.join(sorted(known))}"] if unknown else []


def twice(values: Iterable[str]) -> List[str]:
    """Those that stand there more than once, sorted."""
    listed = list(values)
    return sorted({value for value in listed if listed.count(value) > 1})
