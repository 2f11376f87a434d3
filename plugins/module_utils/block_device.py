# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is on a disk, and every reason not to write on it.

The reasons are pure functions of what `block_device_host` found, so that each has its row in a table of tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import List, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.luks2_header import Scan

# How much of both ends of a disk has to be zeros before it is taken for empty, in bytes.
BLANK_ENDS = 64 << 20


@dataclass(frozen=True)
class Signature:
    """What wipefs or blkid recognise: ext4, LVM2_member, gpt …; offset in bytes, -1 where it was not said."""

    type: str
    offset: int = -1

    def __str__(self) -> str:
        return self.type if self.offset < 0 else f"{self.type} at byte {self.offset}"


@dataclass(frozen=True)
class Mapping:
    """A device-mapper device above the disk: name, its uuid as the kernel has it, where it is mounted."""

    name: str
    uuid: str
    path: str
    mounts: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Device:
    """A block device as it was found.

    given, path: the declared name and what it leads to; path is empty when there is no such device.
    size: bytes.  holders, children: names of what the kernel has built on it.  exclusive: whether the kernel hands it
    to one user, which it refuses for everything that is mounted, mapped, swapped to or an array's member.
    blank, blank_behind: whether both ends, and what is behind a LUKS header, are zeros; None when nobody looked.
    """

    given: str
    path: str = ""
    serial: str = ""
    size: int = 0
    type: str = "disk"
    read_only: bool = False
    holders: Tuple[str, ...] = ()
    children: Tuple[str, ...] = ()
    mounts: Tuple[str, ...] = ()
    exclusive: bool = True
    signatures: Tuple[Signature, ...] = ()
    array_member: bool = False
    luks: Scan = field(default_factory=Scan)
    blank: Optional[bool] = None
    blank_behind: Optional[bool] = None
    mappings: Tuple[Mapping, ...] = ()


def identity_problems(device: Device, serial: str, size: int) -> List[str]:
    """Why this is not the declared device; size 0 is any."""
    if not device.path:
        return [f"{device.given} is not there: no such device, look with `ls -l /dev/disk/by-id`"]
    found = []
    if device.serial != serial:
        found.append(
            f"{device.given} leads to {device.path} with the serial number {device.serial or '(none)'}, declared is"
            f" {serial}"
        )
    if size and device.size != size:
        found.append(f"{device.given} ({device.path}) has {device.size} bytes, declared are {size}")
    return found


def use_problems(device: Device) -> List[str]:
    """Who uses the device now."""
    found = []
    if device.read_only:
        found.append(f"{device.path} is read-only")
    if device.mounts:
        found.append(f"{device.path} is in use at {', '.join(device.mounts)}")
    if device.children:
        found.append(f"{device.path} carries {', '.join(device.children)}")
    elif device.holders:
        found.append(f"{device.path} is held by {', '.join(device.holders)}")
    if not device.exclusive and not found:
        found.append(f"{device.path} is in use by something that the kernel does not name")
    return found


def stranger_problems(device: Device, uuid: str) -> List[str]:
    """Who uses the device but the volume with that UUID, which may be open."""
    own = [mapping for mapping in device.mappings if uuid.replace("-", "") in mapping.uuid]
    if own and len(own) == len(device.holders) and not device.mounts:
        return [f"{device.path} is read-only"] if device.read_only else []
    return use_problems(device)


def beside_luks(device: Device) -> List[str]:
    """What is recognised on the device but for the LUKS header that we read ourselves."""
    told = device.luks.traces
    return [str(found) for found in device.signatures if not (told and found.type.startswith("crypto_LUKS"))]


def content_problems(device: Device, confirmed: bool) -> List[str]:
    """What is on the device that nobody said may go.  `confirmed` excuses bytes that nothing recognises, and only
    them."""
    found = []
    if device.luks.header:
        header = device.luks.header
        found.append(f"{device.path} holds a LUKS2 volume (UUID {header.uuid}, label {header.label or 'none'})")
    elif device.luks.version == 1:
        found.append(f"{device.path} holds a LUKS1 volume")
    elif device.luks.traces:
        places = ", ".join(map(str, device.luks.damaged)) or "0"
        found.append(
            f"{device.path} holds a damaged LUKS header (byte {places}): its data may be had back with a backup of"
            " the header"
        )
    seen = beside_luks(device)
    if seen:
        found.append(f"{device.path} holds {', '.join(seen)}")
    if device.array_member and not any("raid_member" in text for text in seen):
        found.append(f"{device.path} is a member of a RAID array (`mdadm --examine {device.path}`)")
    if not found and not confirmed and not device.blank:
        ends = BLANK_ENDS >> 20
        found.append(
            f"{device.path} is not empty: its first or last {ends} MiB hold bytes that nothing recognises, which may be"
            " an encrypted volume without a header"
        )
    return found
