# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Makes a volume unreadable for good.

First it is let go of, then the host remembers that it is being erased, then its keys are destroyed.  Until all is done
that record refuses everything but going on, so that nothing half erased is taken for a volume, or for an empty disk.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import nvme, volume_boot, volume_services
from ansible_collections.bedplate.llm.plugins.module_utils.block_device import (
    Device,
    identity_problems,
    stranger_problems,
)
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import Volume
from ansible_collections.bedplate.llm.plugins.module_utils.volume_host import Look, VolumeError, VolumeHost, text_of
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import (
    ERASED,
    ERASING,
    Escrow,
    Record,
    sync_folder,
    write_durably,
)
from ansible_collections.bedplate.llm.plugins.module_utils.volume_restore import foreign_content, proved

# More than any header with its key slots, and the beginning of the data with it.
BEGINNING = 32 << 20
_CHUNK = 1 << 20


def known(record: Optional[Record], escrow: Optional[Escrow]) -> List[str]:
    """UUIDs of what the host and the operator's side know on a device and that is not erased."""
    found: List[str] = [record.uuid] if record and record.state != ERASED else []
    return list(dict.fromkeys([*found, *([escrow.uuid] if escrow and not escrow.erased else [])]))


def problems(volume: Volume, device: Device, record: Optional[Record], escrow: Optional[Escrow]) -> List[str]:
    """Why a device may not be erased; nothing is wrong with one that is erased already."""
    wrong: List[str] = identity_problems(device, volume.serial, volume.size)
    if wrong:
        return wrong
    ours = known(record, escrow)
    if not ours:
        if (record and record.state == ERASED) or (escrow and escrow.erased):
            return []
        return [f"neither the host nor the escrow knows a volume on {device.path}, so that nothing of it is erased"]
    if len(ours) > 1:
        return [f"the host remembers {device.path} as volume {ours[0]} and the escrow as {ours[1]}"]
    found: List[str] = [*foreign_content(device, ours), *stranger_problems(device, ours[0])]
    elsewhere = [mount for mapping in device.mappings for mount in mapping.mounts if mount != volume.mount]
    if elsewhere:
        found.append(f"{volume.mapper} is mounted at {', '.join(elsewhere)}, too; unmount it there")
    return found


def look(host: VolumeHost) -> Dict[str, Any]:
    """Whether it may be erased, and what there is."""
    found = host.look()
    device, record = found.device, found.record
    ours = known(record, host.escrow)
    return {
        "problems": problems(host.volume, device, record, host.escrow),
        "uuid": ours[0] if ours else record.uuid if record else "",
        "at": device.path,
        "size": device.size,
        # All of it on this host: the escrow may still have to go.
        "done": bool(record and record.state == ERASED and not device.luks.traces and not device.holders),
        "proved": proved(found),
        "running": volume_services.running(host.volume, host.ask) if device.path else [],
    }


def close(host: VolumeHost) -> List[str]:
    """Stop what needs the volume, unmount it and lock it; what was done."""
    found, volume, done = _allowed(host), host.volume, []
    running = volume_services.running(volume, host.ask)
    if running:
        host.do(["systemctl", "stop", *running])
        done.append(f"stopped {', '.join(running)}")
    if host.mounted()[0]:
        host.do(["systemctl", "stop", volume_boot.mount_unit(volume.mount)])
        if host.mounted()[0]:
            raise VolumeError(f"{volume.name}: {volume.mount} stays mounted (`fuser --verbose --mount {volume.mount}`)")
        done.append(f"unmounted {volume.mount}")
    # Whatever opened it, systemd must not take it for open afterwards.
    host.ask(["systemctl", "stop", f"systemd-cryptsetup@{volume_boot.unit_name(volume.name)}.service"])
    host.settle()
    for mapping in host.look().device.mappings:
        host.cryptsetup(found).close(mapping.name)
    host.settle()
    if found.device.mappings:
        done.append(f"locked {', '.join(mapping.path for mapping in found.device.mappings)}")
    return done


def destroy(host: VolumeHost) -> Tuple[List[str], Dict[str, Any]]:
    """Destroy the keys and the beginning of the data; what was done, and the proof."""
    found = _allowed(host)
    device, volume = found.device, host.volume
    if device.holders or not device.exclusive:
        raise VolumeError(f"{volume.name}: {device.path} is in use by {', '.join(device.holders) or 'something'}")
    host.remember(Record(volume.serial, volume.name, known(found.record, host.escrow)[0], ERASING))
    header, done = device.luks.header, []
    if header and header.keyslots:
        host.cryptsetup(found).erase()
        left = host.look().device.luks.header
        if left and left.keyslots:
            raise VolumeError(f"{volume.name}: cryptsetup luksErase left key slots {left.keyslots} on {device.path}")
        done.append(f"destroyed key slots {', '.join(map(str, header.keyslots))} (cryptsetup luksErase)")
    length = min(device.size, max(BEGINNING, header.data_offset if header else 0))
    write_over(device.path, length)
    host.do(["wipefs", "--all", "--quiet", device.path])
    done.append(f"overwrote the first {length} bytes with random bytes and then with zeros")
    done.append(nvme.secure_erase(device.path, host.ask))
    host.do(["blockdev", "--flushbufs", device.path])
    return done, _proof(host)


def forget(host: VolumeHost) -> List[str]:
    """Take out what brought the volume up at boot, and remember that it is erased; what was done."""
    found, volume, done = _allowed(host), host.volume, []
    if found.device.luks.traces:
        raise VolumeError(f"{volume.name}: {found.device.path} still has a header")
    for name, field in ((volume_boot.CRYPTTAB, volume.name), (volume_boot.FSTAB, volume.mapper)):
        path = host.path(name)
        text = text_of(path)
        if any(line.split()[:1] == [field] for line in text.splitlines()):
            write_durably(path, volume_boot.without(text, field), 0o644)
            done.append(f"took {field} out of {name}")
    for name in volume_boot.drop_in_paths(volume):
        path = host.path(name)
        if path.exists():
            path.unlink()
            sync_folder(path.parent)
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
            done.append(f"removed {name}")
    if done:
        host.do(["systemctl", "daemon-reload"])
    mount = host.path(volume.mount)
    if mount.is_dir() and not host.mounted()[0]:
        host.do(["chattr", "-i", str(mount)])
    host.remember(Record(volume.serial, volume.name, known(found.record, host.escrow)[0], ERASED))
    return done


def write_over(path: str, length: int) -> None:
    """Random bytes, which no device can store in less room, and then zeros, which look like nothing."""
    try:
        for make in (os.urandom, bytes):
            descriptor = os.open(path, os.O_WRONLY | os.O_EXCL | os.O_CLOEXEC)
            try:
                for begin in range(0, length, _CHUNK):
                    _write_whole(descriptor, make(min(_CHUNK, length - begin)), begin)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise VolumeError(f"{path} cannot be written to: {error.strerror}") from error


def _write_whole(descriptor: int, content: bytes, offset: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written


def _proof(host: VolumeHost) -> Dict[str, Any]:
    """Read anew: no header, so no key slot, and nothing that anybody recognises."""
    device = host.look().device
    seen: Sequence[str] = [str(signature) for signature in device.signatures]
    if device.luks.traces or seen:
        raise VolumeError(f"{host.volume.name}: after erasing {device.path} holds {', '.join(seen) or 'a header'}")
    return {"header": "none", "key slots": 0, "recognised by wipefs and blkid": "nothing"}


def _allowed(host: VolumeHost) -> Look:
    found = host.look()
    wrong = problems(host.volume, found.device, found.record, host.escrow)
    if wrong:
        raise VolumeError(f"{host.volume.name}: {'; '.join(wrong)}")
    if not known(found.record, host.escrow):
        raise VolumeError(f"{host.volume.name}: nothing is left to erase on {found.device.path}")
    return found
