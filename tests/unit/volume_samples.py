"""Headers, disks and records that the tests of encrypted volumes share."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from ansible_collections.bedplate.llm.plugins.module_utils.block_device import Device, Signature
from ansible_collections.bedplate.llm.plugins.module_utils.luks2_header import (
    PRIMARY,
    SECONDARY,
    Header,
    Read,
    Scan,
    scan,
)
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import Volume
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import Backup, Escrow, Record

UUID, OTHER = "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7b811-9dad-41d1-80b4-00c04fd430c8"
SERIAL, SIZE = "data0", 256 << 20
VOLUME = Volume("models", "/dev/disk/by-id/virtio-data0", SERIAL, SIZE, "/var/lib/bedplate")
# As a site declares it.
DECLARED = {"name": "models", "device": VOLUME.device, "serial": SERIAL, "size": SIZE, "mount": VOLUME.mount}
COPY = 0x4000
REAL = gzip.decompress((Path(__file__).parent / "volume_headers/luks2.bin.gz").read_bytes())


def metadata(keyslots: tuple[int, ...] = (0,), **more: Any) -> dict[str, Any]:
    """As cryptsetup writes it, as far as anybody here reads it."""
    return {
        "keyslots": {str(slot): {"type": "luks2", "key_size": 64} for slot in keyslots},
        "tokens": {},
        "segments": {"0": {"offset": "16777216", "encryption": "aes-xts-plain64", "sector_size": 4096}},
        "config": {},
        **more,
    }


def one_copy(content: Any, uuid: str = UUID, sequence: int = 3, offset: int = 0, size: int = COPY) -> bytes:
    """One copy of a header with a checksum that holds; `content` is its metadata."""
    magic = SECONDARY if offset else PRIMARY
    fields = (magic, 2, size, sequence, b"models", b"sha256", b"salt", uuid.encode(), b"", offset)
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    whole = bytearray(
        struct.pack(">6sHQQ48s32s64s40s48sQ", *fields).ljust(4096, b"\0") + text.ljust(size - 4096, b"\0")
    )
    whole[448:480] = hashlib.sha256(whole).digest()
    return bytes(whole)


def both_copies(content: Any, uuid: str = UUID, sequence: int = 3, size: int = COPY) -> bytes:
    return one_copy(content, uuid, sequence, 0, size) + one_copy(content, uuid, sequence, size, size)


def reads(content: bytes) -> Read:
    return lambda offset, length: content[offset : offset + length]


def scanned(content: Any = None, uuid: str = UUID, sequence: int = 3) -> Scan:
    return scan(reads(both_copies(content or metadata(), uuid, sequence)))


def header(content: Any = None, sequence: int = 3) -> Header:
    found = scanned(content, sequence=sequence).header
    assert found
    return found


# --- what may be on a disk ---

NO_LUKS = Scan()
OURS = scanned()
OURS_KEYLESS = scanned(metadata(()))
FOREIGN = scanned(uuid=OTHER)
FOREIGN_KEYLESS = scanned(metadata(()), OTHER)
DAMAGED = Scan(version=2, damaged=(0, COPY))
LUKS1 = Scan(version=1)
CRYPTO = (Signature("crypto_LUKS", 0),)
EXT4 = (Signature("ext4", 0x438),)


def device(luks: Scan = NO_LUKS, **changed: Any) -> Device:
    """The declared disk, blank unless something else is said."""
    shown: dict[str, Any] = {"serial": SERIAL, "size": SIZE, "blank_behind": True}
    shown["signatures"] = CRYPTO if luks.traces else ()
    shown["blank"] = None if luks.traces else True
    return Device(VOLUME.device, "/dev/vdb", luks=luks, **{**shown, **changed})


# --- what the host and the operator's side remember ---


def record(state: str, uuid: str = UUID, confirmed: bool = False) -> Record:
    return Record(SERIAL, "models", uuid, state, confirmed)


PREPARED = Escrow(SERIAL, "models", "gpu1", UUID, ("passphrase-1.vault",))
BACKUP = Backup("header-3-20261125T070000Z.vault", "0" * 64, 3, "2026-11-25T07:00:00Z")
KEPT = Escrow(SERIAL, "models", "gpu1", UUID, PREPARED.passphrases, (BACKUP,))
ERASED_ESCROW = Escrow(SERIAL, "models", "gpu1", UUID, erased="2026-11-25T07:00:00Z")
OTHERS_PREPARED = Escrow(SERIAL, "models", "gpu2", OTHER, PREPARED.passphrases)
OTHERS_KEPT = Escrow(SERIAL, "models", "gpu2", OTHER, PREPARED.passphrases, (BACKUP,))
