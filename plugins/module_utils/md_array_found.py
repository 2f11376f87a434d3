# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What of an array was found: its disks and, when the kernel has it, what it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import FrozenSet, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.block_device import Device
from ansible_collections.bedplate.llm.plugins.module_utils.md_superblock import Superblock

# An array that was put together and not started, for want of members.
_STOPPED = ("inactive", "clear")


@dataclass(frozen=True)
class Disk:
    """A declared disk.  blank_behind: whether both ends are zeros without what an array's first MiB may hold.
    volume: UUID of an encrypted volume that the host remembers on it.
    unreadable: why nothing is known of what is on it."""

    device: Device
    superblock: Optional[Superblock] = None
    blank_behind: bool = False
    volume: str = ""
    unreadable: str = ""


@dataclass(frozen=True)
class Member:
    """A device that the kernel counts to an array; path is empty when the device itself is gone.

    states: as the kernel has them (in_sync, faulty, spare …).  number: that of its superblock.
    """

    kernel: str
    path: str
    serial: str
    states: FrozenSet[str]
    number: Optional[int] = None

    @property
    def failed(self) -> bool:
        return "faulty" in self.states

    def __str__(self) -> str:
        return f"{self.path or self.kernel} (serial number {self.serial or 'not known'})"


@dataclass(frozen=True)
class Running:
    """An array as the kernel has it.  kernel: md127 …  degraded: how many places are empty or not filled yet.

    action: idle, resync (first filling), recover (filling a new leg), check …  done, total: of that, in sectors.
    mismatches: sectors that differed between legs when they were last compared, None where there is nothing to compare.
    """

    kernel: str
    state: str
    uuid: str
    name: str
    level: str
    places: int
    members: Tuple[Member, ...]
    metadata: str = "1.2"
    degraded: int = 0
    action: str = "idle"
    done: int = 0
    total: int = 0
    mismatches: Optional[int] = None
    bitmap: bool = False
    size: int = 0

    @property
    def path(self) -> str:
        return f"/dev/{self.kernel}"

    @property
    def active(self) -> bool:
        return self.state not in _STOPPED

    @property
    def failed(self) -> Tuple[Member, ...]:
        return tuple(member for member in self.members if member.failed)

    @property
    def filling(self) -> bool:
        """Whether every place has a member and data are being copied to the last of them."""
        return self.degraded > 0 and len(self.members) - len(self.failed) >= self.places
