# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The file system in an opened volume: made once, when the inside is proved to be empty, and never again."""

from __future__ import annotations

from typing import List, Sequence

from ansible_collections.bedplate.llm.plugins.module_utils.block_device import Signature
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import FORMATTED, MAKING_FILESYSTEM


def make_argv(filesystem: str, mapper: str, label: str) -> List[str]:
    """The emptiness was proved before, so the tool need not ask."""
    if filesystem == "xfs":
        return ["mkfs.xfs", "-q", "-f", "-L", label[:12], mapper]
    return ["mkfs.ext4", "-q", "-F", "-L", label[:16], mapper]


def check_argv(filesystem: str, mapper: str) -> List[str]:
    """Whether a file system is whole, without changing it."""
    return ["xfs_repair", "-n", mapper] if filesystem == "xfs" else ["e2fsck", "-n", "-f", mapper]


def problems(state: str, found: Sequence[Signature], filesystem: str, mapper: str) -> List[str]:
    """Why no file system may be made on the inside of a volume whose record says `state`."""
    if state not in (FORMATTED, MAKING_FILESYSTEM):
        return [f"{mapper} had a file system (its record says {state}); another one is never made over it"]
    # What a mkfs that was interrupted may have left is of the kind that it was making; nothing was ever mounted.
    ours = {filesystem} if state == MAKING_FILESYSTEM else set()
    others = [str(signature) for signature in found if signature.type not in ours]
    return [f"{mapper} holds {', '.join(others)}"] if others else []
