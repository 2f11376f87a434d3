# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Brings a volume's header back from its backup: where it was destroyed, or where an earlier one is asked for by name.

The header alone makes a disk readable, and writing one over something else makes that unreadable.  So it is written on
the declared device only, over nothing but the same volume's header or what is left of it, and after what lay there has
been kept on the operator's side.
"""

from __future__ import annotations

import hashlib
import os
from typing import List, Optional, Sequence

from ansible_collections.bedplate.llm.plugins.module_utils import luks2_header
from ansible_collections.bedplate.llm.plugins.module_utils.block_device import (
    Device,
    beside_luks,
    identity_problems,
    stranger_problems,
)
from ansible_collections.bedplate.llm.plugins.module_utils.cryptsetup import Cryptsetup, header_file
from ansible_collections.bedplate.llm.plugins.module_utils.luks2_header import Scan
from ansible_collections.bedplate.llm.plugins.module_utils.volume_decision import half_erased
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import Volume
from ansible_collections.bedplate.llm.plugins.module_utils.volume_host import Look, VolumeError, VolumeHost
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import ERASED, ERASING, Escrow, Record


def problems(volume: Volume, device: Device, record: Optional[Record], escrow: Optional[Escrow]) -> List[str]:
    """Why no header may be written on a device."""
    wrong: List[str] = identity_problems(device, volume.serial, volume.size)
    if wrong:
        return wrong
    if record and record.state == ERASING:
        return [half_erased(device)]
    if escrow is None or escrow.erased or not escrow.backups:
        return [f"the escrow has no backup of a header for {device.path}"]
    if record and record.state != ERASED and record.uuid != escrow.uuid:
        return [f"the host remembers {device.path} as volume {record.uuid}, the backup is of {escrow.uuid}"]
    return [*foreign_content(device, [escrow.uuid]), *stranger_problems(device, escrow.uuid)]


def foreign_content(device: Device, ours: Sequence[str]) -> List[str]:
    """What is on the device that is neither one of our volumes nor what may be left of one."""
    found: List[str] = []
    header = device.luks.header
    if header and header.uuid not in ours:
        found.append(
            f"{device.path} holds volume {header.uuid} (label {header.label or 'none'}), not {' or '.join(ours)}"
        )
    if device.luks.version == 1:
        found.append(f"{device.path} holds a LUKS1 volume")
    others = beside_luks(device)
    if others:
        found.append(
            f"{device.path} holds {', '.join(others)}; where that was written over the volume by mistake, take its mark"
            f" away with `wipefs --all --backup {device.path}` and come back"
        )
    if device.array_member and not others:
        found.append(f"{device.path} is a member of a RAID array (`mdadm --examine {device.path}`)")
    return found


def whole(scan: Scan) -> bool:
    """Whether both copies of the header hold, and it has a key."""
    return bool(scan.primary and scan.secondary and not scan.damaged and scan.primary.keyslots)


def proved(look: Look) -> bool:
    """Whether the device or the host says that there is, or was, a volume of this host; the escrow says it of a serial
    number only."""
    return bool(look.device.luks.header or look.record or look.device.mappings)


def allowed(host: VolumeHost) -> Look:
    look = host.look()
    found = problems(host.volume, look.device, look.record, host.escrow)
    if found:
        raise VolumeError(f"{host.volume.name}: {'; '.join(found)}")
    return look


def area(look: Look, length: int) -> bytes:
    """What lies where a header of that many bytes would be written."""
    descriptor = os.open(look.device.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, length, 0)
    finally:
        os.close(descriptor)


def restore(host: VolumeHost, content: bytes, digest: str, passphrases: Sequence[str]) -> None:
    """Write a backup of the header.  digest: SHA-256 of what was kept of the place that it is written to."""
    look = allowed(host)
    name, cryptsetup = host.volume.name, host.cryptsetup(look)
    header = luks2_header.of_backup(content)
    if header is None or host.escrow is None or header.uuid != host.escrow.uuid:
        raise VolumeError(f"{name}: the backup is no header of this volume; nothing was changed")
    with header_file(content) as file:
        if not _opened_by_one_of(Cryptsetup(host.run, file), passphrases):
            raise VolumeError(
                f"{name}: the escrow's passphrase does not open the backup of the header that was made at its change"
                f" {header.sequence}; nothing was changed"
            )
    if hashlib.sha256(area(look, len(content))).hexdigest() != digest:
        raise VolumeError(f"{name}: {look.device.path} was written to since its header was kept; nothing was changed")
    cryptsetup.restore_header(content)
    host.do(["blockdev", "--flushbufs", look.device.path])
    host.settle()
    if area(look, len(content)) != content or not _opened_by_one_of(cryptsetup, passphrases):
        raise VolumeError(f"{name}: the header was written to {look.device.path} and does not open the volume")


def _opened_by_one_of(cryptsetup: Cryptsetup, passphrases: Sequence[str]) -> bool:
    return any(cryptsetup.opens(passphrase) for passphrase in passphrases)
