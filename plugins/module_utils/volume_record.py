# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""How far a volume has come, as the host remembers it and as the operator's side does.

Both records are written before the step that they speak of, so that whoever comes after a crash knows what may have
begun and what cannot have happened yet.  They hold no secret.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

# The record may not lie on the volume that it speaks of, and /var/lib/bedplate is a volume's mount point.
FOLDER = Path("/var/lib/bedplate-volumes")

# In this order, and never back but to be erased.
FORMATTING = "formatting"  # the device was proved empty; a header with our UUID may or may not be there
FORMATTED = "formatted"  # the header is there, and its backup is on the operator's side
MAKING_FILESYSTEM = "making-filesystem"  # the inside was proved empty; a file system may be half there; never mounted
READY = "ready"  # a file system is there: data may be, too
ERASING = "erasing"  # somebody wished its end: its keys may be gone, or about to go
ERASED = "erased"  # the keys are gone, by somebody's wish
STATES = (FORMATTING, FORMATTED, MAKING_FILESYSTEM, READY, ERASING, ERASED)


class RecordError(Exception):
    """A record that is there and cannot be understood, as one sentence."""


@dataclass(frozen=True)
class Record:
    """What the host remembers of one device."""

    serial: str
    name: str
    uuid: str
    state: str
    confirmed: bool = False

    def after(self, state: str) -> Record:
        return Record(self.serial, self.name, self.uuid, state, self.confirmed)


@dataclass(frozen=True)
class Backup:
    """One backup of a header on the operator's side; sequence is the header's own count of its changes."""

    file: str
    sha256: str
    sequence: int
    made: str


@dataclass(frozen=True)
class Escrow:
    """What the operator's side keeps of one device: the recovery passphrase and the header's backups, newest last.

    passphrases: encrypted files, newest last; there is more than one only while they are being changed.
    """

    serial: str
    name: str
    host: str
    uuid: str
    passphrases: Tuple[str, ...] = ()
    backups: Tuple[Backup, ...] = ()
    erased: str = ""

    @property
    def backup(self) -> Optional[Backup]:
        return self.backups[-1] if self.backups else None

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)


def parse_record(text: str, where: str) -> Record:
    try:
        found = json.loads(text)
        record = Record(**{key: found[key] for key in ("serial", "name", "uuid", "state", "confirmed")})
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{where} is no record of a volume ({error}): it says whether a device may be formatted, so put it right or"
            " bring it back from a backup"
        ) from error
    if record.state not in STATES:
        raise RecordError(f"{where}: state is one of {', '.join(STATES)}, found {record.state!r}")
    return record


def parse_escrow(found: Mapping[str, Any], where: str) -> Escrow:
    try:
        return Escrow(
            serial=str(found["serial"]),
            name=str(found["name"]),
            host=str(found["host"]),
            uuid=str(found["uuid"]),
            passphrases=tuple(map(str, found["passphrases"])),
            backups=tuple(Backup(**entry) for entry in found["backups"]),
            erased=str(found.get("erased", "")),
        )
    except (KeyError, TypeError) as error:
        raise RecordError(
            f"{where} is no record of an escrow ({error}): it says whether a device may be formatted, so put it"
            " right or"
            " bring it back from a backup"
        ) from error


def file_name(serial: str) -> str:
    return f"{serial}.json"


def read(serial: str, folder: Path = FOLDER) -> Optional[Record]:
    path = folder / file_name(serial)
    return parse_record(path.read_text(encoding="utf-8"), str(path)) if path.exists() else None


def read_all(folder: Path = FOLDER) -> List[Record]:
    """Of every device that this host has or had."""
    return [parse_record(path.read_text(encoding="utf-8"), str(path)) for path in sorted(folder.glob("*.json"))]


def write(record: Record, folder: Path = FOLDER) -> None:
    write_durably(folder / file_name(record.serial), json.dumps(asdict(record), indent=1) + "\n")


def write_durably(path: Path, content: str, mode: int = 0o600) -> None:
    """On the disk, whole or not at all, before this returns: power may go at any moment after."""
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.part")
    # A crash may have left one, and where it is read-only nobody but root could write into it.
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """With those above it; for its owner only, and on the disk before anything in it is."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
