# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Looks at what the kernel has of RAID arrays, in /sys and on their members, and changes nothing."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from pathlib import Path
from typing import List, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import block_device_host, md_superblock, volume_record
from ansible_collections.bedplate.llm.plugins.module_utils.block_device import Device
from ansible_collections.bedplate.llm.plugins.module_utils.block_device_host import BlockDeviceError, Run
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_declared import Array, Leg
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_found import Disk, Member, Running
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_record import CREATING, Record
from ansible_collections.bedplate.llm.plugins.module_utils.md_superblock import Superblock

# Up to here an array's superblock, bitmap and list of bad blocks may lie; its data begin there or later.
METADATA_END = 1 << 20
DEVICES = Path("/dev")


def superblock(path: str) -> Optional[Superblock]:
    """Past the page cache, which does not see what the kernel's RAID writes to its members."""
    try:
        descriptor = _open(path)
    except OSError:
        return None
    try:
        with mmap.mmap(-1, md_superblock.LENGTH) as page:
            length = os.preadv(descriptor, [page], md_superblock.OFFSET)
            found: Optional[Superblock] = md_superblock.parse(page[:length])
            return found
    except OSError:  # a disk that fails is no member to speak of
        return None
    finally:
        os.close(descriptor)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # not every device can do it
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def disk(leg: Leg, record: Optional[Record], records: Path, run: Run) -> Disk:
    """A declared disk with all that decides about it."""
    try:
        device = block_device_host.look(leg.device, run)
    except BlockDeviceError as error:
        return Disk(Device(leg.device, os.path.realpath(leg.device)), unreadable=str(error))
    if not device.path:
        return Disk(device)
    known = volume_record.read(leg.serial, records)
    return Disk(
        device,
        superblock(device.path),
        # It takes time, and counts only where making the array was begun.
        blank_behind=bool(record and record.state == CREATING) and _blank_behind(device.path, device.size),
        volume=known.uuid if known and known.state != volume_record.ERASED else "",
    )


def _blank_behind(path: str, size: int) -> bool:
    with open(path, "rb", buffering=0) as content:
        answer: bool = block_device_host.ends_are_zero(block_device_host.reader(content.fileno()), size, METADATA_END)
        return answer


def running(array: Array, uuid: str, run: Run, sys: Path = Path("/sys")) -> List[Running]:
    """Every array of the kernel's with this name, this UUID, or one of the declared disks."""
    declared = {os.path.realpath(leg.device) for leg in array.legs}
    found = []
    for folder in sorted((sys / "class/block").glob("md*/md")):
        live = _running(folder, run)
        shares = declared & {member.path for member in live.members if member.path}
        if live.name == array.label or (uuid and live.uuid == uuid) or shares:
            found.append(live)
    return found


def _running(folder: Path, run: Run) -> Running:
    members: List[Member] = []
    known: Optional[Superblock] = None
    for entry in sorted(folder.glob("dev-*")):
        member, of_member = _member(entry, run)
        members.append(member)
        if of_member and not member.failed and (known is None or of_member.events > known.events):
            known = of_member
    done, total = _progress(_line(folder / "sync_completed"))
    mismatches = _line(folder / "mismatch_cnt")
    return Running(
        kernel=folder.parent.name,
        state=_line(folder / "array_state"),
        uuid=known.uuid if known else "",
        name=known.name if known else "",
        level=_line(folder / "level"),
        places=int((_line(folder / "raid_disks").split() or ["0"])[0]),
        members=tuple(members),
        metadata=_line(folder / "metadata_version"),
        degraded=int(_line(folder / "degraded") or 0),
        action=_line(folder / "sync_action") or "idle",
        done=done,
        total=total,
        mismatches=int(mismatches) if mismatches else None,
        bitmap=_line(folder / "bitmap/location") not in ("", "none"),
        size=int(_line(folder.parent / "size") or 0) * 512,
    )


def _member(entry: Path, run: Run) -> Tuple[Member, Optional[Superblock]]:
    kernel = entry.name[len("dev-") :]
    node = DEVICES / kernel
    path = str(node) if node.is_block_device() else ""
    states = frozenset(_line(entry / "state").split(","))
    code, text = run(["lsblk", "--nodeps", "--noheadings", "--output", "SERIAL", path]) if path else (0, "")
    found = superblock(path) if path and "faulty" not in states else None
    return Member(kernel, path, text.strip() if code == 0 else "", states, found.number if found else None), found


def _progress(text: str) -> Tuple[int, int]:
    """Of `sync_completed`: "1234 / 5678" in sectors, "none" or "delayed"."""
    words = text.split(" / ")
    return (int(words[0]), int(words[1])) if len(words) == 2 else (0, 0)


def _line(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8").strip()
    return ""
