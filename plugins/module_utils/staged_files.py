# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has to be done so that a set of files is as wanted: the decision half of the `config_files` module."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence


class SpecError(ValueError):
    """The wanted set is not sound; the message is one sentence for the user."""


@dataclass(frozen=True)
class Wanted:
    """One file (`content` set), one directory (`directory`), or a path that must be absent."""

    path: str
    content: Optional[bytes]
    owner: str
    group: str
    mode: int
    directory: bool = False


@dataclass(frozen=True)
class Found:
    """What stands at a path now; kind is one of file, directory, other, absent."""

    kind: str
    content: Optional[bytes] = None
    owner: str = ""
    group: str = ""
    mode: int = 0


def parse_mode(path: str, value: str) -> int:
    try:
        mode = int(value, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise SpecError(f"{path}: mode must be an octal string such as '0644', found {value!r}.")
    return mode


def parse(files: Sequence[Mapping[str, Any]], directories: Sequence[Mapping[str, Any]]) -> List[Wanted]:
    """Directories first, in the given order, so that a parent is fixed before its files."""
    wanted: List[Wanted] = []
    for item, is_directory in [(d, True) for d in directories] + [(f, False) for f in files]:
        path = item["path"]
        if not posixpath.isabs(path) or posixpath.normpath(path) != path:
            raise SpecError(f"paths must be absolute and without '..' or a trailing slash, found {path!r}.")
        absent = not is_directory and item.get("state", "present") == "absent"
        if not is_directory and not absent and item.get("content") is None:
            raise SpecError(f"{path}: content is missing; give content, or state: absent to remove the file.")
        wanted.append(
            Wanted(
                path,
                None if is_directory or absent else item["content"].encode("utf-8"),
                item["owner"],
                item["group"],
                parse_mode(path, item["mode"]),
                is_directory,
            )
        )
    seen = set()
    for item_wanted in wanted:
        if item_wanted.path in seen:
            raise SpecError(f"{item_wanted.path} is listed twice; say what it should be once.")
        seen.add(item_wanted.path)
    return wanted


def is_absent(wanted: Wanted) -> bool:
    return wanted.content is None and not wanted.directory


def needs_change(wanted: Wanted, found: Found) -> bool:
    """SpecError when something of another kind stands in the way: that is never ours to replace."""
    if is_absent(wanted):
        if found.kind == "directory":
            raise SpecError(f"{wanted.path} is a directory; config_files removes files only.")
        return found.kind != "absent"
    expected = "directory" if wanted.directory else "file"
    if found.kind not in ("absent", expected):
        raise SpecError(f"{wanted.path} should be a {expected} but a {found.kind} stands there; move it away first.")
    return found.kind == "absent" or (
        (not wanted.directory and found.content != wanted.content)
        or (found.owner, found.group, found.mode) != (wanted.owner, wanted.group, wanted.mode)
    )


def diff_entry(wanted: Wanted, found: Found) -> Dict[str, str]:
    """A before/after pair as Ansible's --diff shows it; a change of owner or mode alone is shown as such."""

    def header(kind: str, owner: str, group: str, mode: int) -> str:
        return "" if kind == "absent" else f"# {owner}:{group} {mode:04o}\n"

    before = header(found.kind, found.owner, found.group, found.mode)
    after = "" if is_absent(wanted) else header("present", wanted.owner, wanted.group, wanted.mode)
    return {
        "before_header": wanted.path,
        "after_header": wanted.path,
        "before": before + (found.content or b"").decode("utf-8", "replace"),
        "after": after + (wanted.content or b"").decode("utf-8", "replace"),
    }
