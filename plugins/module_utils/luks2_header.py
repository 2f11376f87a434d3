# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads the LUKS2 header of a device or of its backup, and finds what is left of a damaged one.

cryptsetup answers "no" to a volume with a damaged header and to an empty disk alike, and whoever takes that "no" for
"empty" formats a volume whose data could be had back.  So the two copies are looked for and judged one by one.

Source: LUKS2 on-disk format specification, version 1.1.4, sections 2.1 (binary header) and 2.2 (its copies).
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple

# What reads a range of the device: offset and length in bytes; fewer bytes where the device ends.
Read = Callable[[int, int], bytes]

PRIMARY, SECONDARY = b"LUKS\xba\xbe", b"SKUL\xba\xbe"
# Where the second copy may begin; equal to the size of one copy.
SIZES = (0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000, 0x400000)
_BINARY = 4096
# magic, version, size of a copy, sequence, label, checksum's name, salt, uuid, subsystem, offset of this copy
_FIELDS = struct.Struct(">6sHQQ48s32s64s40s48sQ")
_CHECKSUM = slice(448, 512)


@dataclass(frozen=True)
class Header:
    """One copy whose checksum holds.  size: of one copy, which is also where the second one begins."""

    uuid: str
    label: str
    sequence: int
    offset: int
    size: int
    metadata: Mapping[str, Any]

    @property
    def keyslots(self) -> Tuple[int, ...]:
        return tuple(sorted(int(number) for number in self.metadata.get("keyslots", {})))

    @property
    def tokens(self) -> Tuple[Token, ...]:
        found = self.metadata.get("tokens", {})
        return tuple(_token(int(number), found[number]) for number in sorted(found, key=int))

    @property
    def cipher(self) -> str:
        return str(self._segment.get("encryption", ""))

    @property
    def sector_size(self) -> int:
        return int(self._segment.get("sector_size", 512))

    @property
    def data_offset(self) -> int:
        """Where the encrypted data begin, in bytes; the headers and key slots end before."""
        return int(self._segment.get("offset", 0))

    @property
    def key_bits(self) -> int:
        """Of the volume's key, by the first key slot; 0 without one."""
        slots = self.metadata.get("keyslots", {})
        return 8 * int(next(iter(slots.values())).get("key_size", 0)) if slots else 0

    @property
    def flags(self) -> Tuple[str, ...]:
        return tuple(self.metadata.get("config", {}).get("flags", ()))

    @property
    def _segment(self) -> Mapping[str, Any]:
        segments = self.metadata.get("segments", {})
        return segments[min(segments, key=int)] if segments else {}


@dataclass(frozen=True)
class Token:
    """What says how key slots are opened without a passphrase, as clevis and systemd-cryptenroll leave it."""

    number: int
    type: str
    keyslots: Tuple[int, ...]
    content: Mapping[str, Any]


@dataclass(frozen=True)
class Scan:
    """What of LUKS is on a device.

    version: 2, 1 for the older format, 0 for none; of the first copy, else of the second.
    damaged: offsets in bytes that begin like a header and have a wrong checksum or unreadable metadata.
    """

    primary: Optional[Header] = None
    secondary: Optional[Header] = None
    version: int = 0
    damaged: Tuple[int, ...] = ()

    @property
    def header(self) -> Optional[Header]:
        """The newer of the copies that hold."""
        copies = [copy for copy in (self.primary, self.secondary) if copy]
        return max(copies, key=lambda copy: copy.sequence) if copies else None

    @property
    def traces(self) -> bool:
        """Whether anything of LUKS is there, in whatever state."""
        return bool(self.header or self.version or self.damaged)


def scan(read: Read) -> Scan:
    """Look at every place where a copy may begin."""
    damaged: List[int] = []
    start = read(0, _BINARY)
    version = struct.unpack(">H", start[6:8])[0] if start[:6] == PRIMARY else 0
    primary = None
    if version >= 2:
        primary = _parse(read, 0, PRIMARY)
        if primary is None:
            damaged.append(0)
    elif start[:6] == PRIMARY and version != 1:
        damaged.append(0)
    secondary = None
    # A first copy that holds says where the second one is; what begins like one elsewhere is left of another volume.
    for offset in (primary.size,) if primary else SIZES:
        if read(offset, len(SECONDARY)) != SECONDARY:
            continue
        copy = _parse(read, offset, SECONDARY)
        if copy is None or (primary and copy.uuid != primary.uuid):
            damaged.append(offset)
        elif secondary is None or copy.sequence > secondary.sequence:
            secondary = copy
    if secondary is not None and version == 0:
        version = 2
    return Scan(primary, secondary, version, tuple(damaged))


def of_backup(content: bytes) -> Optional[Header]:
    """The header in a backup that cryptsetup made; None when it is not one or is damaged."""
    return scan(lambda offset, length: content[offset : offset + length]).primary


def _parse(read: Read, offset: int, magic: bytes) -> Optional[Header]:
    binary = read(offset, _BINARY)
    if len(binary) < _BINARY or binary[:6] != magic:
        return None
    _magic, version, size, sequence, label, algorithm, _salt, uuid, _subsystem, at = _FIELDS.unpack(
        binary[: _FIELDS.size]
    )
    if version != 2 or size not in SIZES or at != offset:
        return None
    name = _text(algorithm)
    if name not in hashlib.algorithms_available:
        return None
    content = read(offset, size)
    if len(content) < size:
        return None
    try:
        digest = hashlib.new(name, content[: _CHECKSUM.start] + bytes(64) + content[_CHECKSUM.stop :]).digest()
    except (TypeError, ValueError):  # known to Python, and of no fixed length or forbidden on this host
        return None
    if content[_CHECKSUM][: len(digest)] != digest:
        return None
    try:
        metadata = json.loads(content[_BINARY:].split(b"\0", 1)[0])
    except ValueError:
        return None
    if not isinstance(metadata, dict):
        return None
    return Header(_text(uuid), _text(label), sequence, offset, size, metadata)


def _token(number: int, content: Mapping[str, Any]) -> Token:
    slots: Sequence[Any] = content.get("keyslots", ())
    return Token(number, str(content.get("type", "")), tuple(int(slot) for slot in slots), content)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("ascii", "replace")
