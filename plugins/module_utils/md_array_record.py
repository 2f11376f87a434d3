# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the host remembers of an array: which UUID it was given, and whether it ever was whole.

In a folder of its own, since the record of a volume that lies on an array has the array's name (`volume_record`).
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import volume_record
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import RecordError

FOLDER = volume_record.FOLDER / "arrays"

CREATING = "creating"  # the disks were proved empty; superblocks with this UUID may be on some of them; never used
READY = "ready"  # it ran: there may be data on it, so that it is never made again
STATES = (CREATING, READY)


@dataclass(frozen=True)
class Record:
    """serials: of the disks that the array was begun on."""

    name: str
    uuid: str
    level: int
    serials: Tuple[str, ...]
    state: str

    def ready(self) -> Record:
        return replace(self, state=READY)


def new_uuid() -> str:
    """As mdadm writes it."""
    text = uuid.uuid4().hex
    return ":".join(text[start : start + 8] for start in range(0, 32, 8))


def parse(text: str, where: str) -> Record:
    try:
        found = json.loads(text)
        record = Record(
            name=str(found["name"]),
            uuid=str(found["uuid"]),
            level=int(found["level"]),
            serials=tuple(map(str, found["serials"])),
            state=str(found["state"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{where} is no record of an array ({error}): it says whether disks may be written on, so put it right or"
            " bring it back from a backup"
        ) from error
    if record.state not in STATES:
        raise RecordError(f"{where}: state is one of {', '.join(STATES)}, found {record.state!r}")
    return record


def path(name: str, folder: Path = FOLDER) -> Path:
    return folder / f"{name}.json"


def read(name: str, folder: Path = FOLDER) -> Optional[Record]:
    file = path(name, folder)
    return parse(file.read_text(encoding="utf-8"), str(file)) if file.exists() else None


def write(record: Record, folder: Path = FOLDER) -> None:
    volume_record.write_durably(path(record.name, folder), json.dumps(asdict(record), indent=1) + "\n")
