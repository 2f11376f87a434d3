# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads the superblock (metadata 1.2) that Linux's RAID keeps on every member of an array.

Read here and not asked of mdadm, so that a host without mdadm is understood too, and so that what a member says of the
others is known: that is how two halves that were written apart are told from one that only lags behind.

Source: struct mdp_superblock_1 in include/uapi/linux/raid/md_p.h of Linux, and calc_sb_1_csum in drivers/md/md.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Optional, Tuple

OFFSET, LENGTH = 4096, 4096
_MAGIC = 0xA92B4EFC
_BITMAP = 1
# Special roles; every smaller number is a place in the array.
SPARE, FAULTY = 0xFFFF, 0xFFFE
# magic, major version, features, 4 unused bytes, uuid, name, creation, level, layout, size, chunk, members
_ARRAY = struct.Struct("<III4x16s32sQiIQII")
_CHECKSUM = 216
# start of the data in sectors; number of this device; its count of changes; checksum, room for roles
_DATA_OFFSET, _NUMBER, _EVENTS, _END = (
    (128, struct.Struct("<Q")),
    (160, struct.Struct("<I")),
    (200, struct.Struct("<Q")),
    (_CHECKSUM, struct.Struct("<II")),
)
_ROLES = 256


@dataclass(frozen=True)
class Superblock:
    """A superblock whose checksum holds.

    uuid: as mdadm writes it.  name: with the "homehost" before a colon.  number: this device's own; roles: what this
    device knows of every device by its number.  events: the array's count of changes when this device last took part.
    data_offset: bytes.
    """

    uuid: str
    name: str
    level: int
    members: int
    number: int = 0
    roles: Tuple[int, ...] = ()
    events: int = 0
    bitmap: bool = False
    data_offset: int = 0

    def knows_as_failed(self, number: int) -> bool:
        """Whether this device took part in the array after the device of that number had dropped out."""
        return number < len(self.roles) and self.roles[number] in (FAULTY, SPARE)


def parse(block: bytes) -> Optional[Superblock]:
    """The superblock, or None where there is none that holds; other places (1.0, 1.1, 0.90) are wipefs' to find."""
    if len(block) < LENGTH:
        return None
    magic, major, features, uuid, name, _made, level, _layout, _size, _chunk, members = _ARRAY.unpack_from(block)
    checksum, room = _END[1].unpack_from(block, _END[0])
    if magic != _MAGIC or major != 1 or _ROLES + 2 * room > LENGTH or checksum != _sum(block, _ROLES + 2 * room):
        return None
    return Superblock(
        uuid=_written(uuid),
        name=name.split(b"\0")[0].decode("utf-8", "replace"),
        level=level,
        members=members,
        number=_NUMBER[1].unpack_from(block, _NUMBER[0])[0],
        roles=struct.unpack_from(f"<{room}H", block, _ROLES),
        events=_EVENTS[1].unpack_from(block, _EVENTS[0])[0],
        bitmap=bool(features & _BITMAP),
        data_offset=_DATA_OFFSET[1].unpack_from(block, _DATA_OFFSET[0])[0] * 512,
    )


def _written(uuid: bytes) -> str:
    text = uuid.hex()
    return ":".join(text[start : start + 8] for start in range(0, 32, 8))


def _sum(block: bytes, size: int) -> int:
    """The checksum of the first `size` bytes, with zeros in its own place."""
    data = block[:_CHECKSUM] + bytes(4) + block[_CHECKSUM + 4 : size]
    total = sum(struct.unpack(f"<{size // 4}I", data[: size // 4 * 4]))
    if size % 4:
        total += struct.unpack("<H", data[-2:])[0]
    return int((total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF)
