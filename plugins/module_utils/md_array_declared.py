# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a site says about its RAID arrays, and what of it cannot work."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, List, Mapping, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.declared import parse_each, twice, unknown_keys
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import (
    array_device,
    device_problems,
    parse_size,
)

LEVELS = (0, 1)
# By what our arrays are told from others: mdadm's "homehost", the same on every host, so that the stable name is too.
HOMEHOST = "bedplate"
# mdadm leaves the homehost out of a name that would be longer than 31 characters with it.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,21}")
_KEYS = {"name", "level", "devices", "bitmap", "chunk"}
_LEG_KEYS = {"device", "serial", "size"}
_SMALLEST_CHUNK = 4 << 10


@dataclass(frozen=True)
class Leg:
    """One declared member: the three facts of its disk; size in bytes."""

    device: str
    serial: str
    size: int


@dataclass(frozen=True)
class Array:
    """One declared array.

    level: 1 keeps everything on every leg, 0 spreads it over all.  bitmap: whether it notes where the legs may differ,
    so that a leg that was away is brought up to date in seconds.  chunk: bytes, level 0 only; 0 leaves it to mdadm.
    """

    name: str
    level: int
    legs: Tuple[Leg, ...]
    bitmap: bool = True
    chunk: int = 0

    @property
    def label(self) -> str:
        """Its name as it stands on the disks."""
        return f"{HOMEHOST}:{self.name}"

    @property
    def node(self) -> str:
        """The name that mdadm makes it under; everybody else uses `device`."""
        return f"/dev/md/{HOMEHOST}-{self.name}"

    @property
    def device(self) -> str:
        """The stable name, of udev's making."""
        return str(array_device(self.name))

    @property
    def serials(self) -> Tuple[str, ...]:
        return tuple(leg.serial for leg in self.legs)


def parse(
    declared: Sequence[Mapping[str, Any]], volumes: Sequence[Mapping[str, Any]] = ()
) -> Tuple[List[Array], List[str]]:
    """The arrays, and one sentence for everything that is wrong with them.

    volumes: the declared encrypted volumes, of which none may lie on a disk that is an array's.
    """
    arrays, problems = parse_each("md_arrays", declared, _problems_of, _array)
    return arrays, problems + _clashes(arrays, volumes)


def _array(entry: Mapping[str, Any]) -> Array:
    level = int(entry["level"])
    return Array(
        name=str(entry["name"]),
        level=level,
        legs=tuple(Leg(str(leg["device"]), str(leg["serial"]), parse_size(leg["size"])) for leg in entry["devices"]),
        bitmap=level == 1 and bool(entry.get("bitmap", True)),
        chunk=parse_size(entry.get("chunk", 0)),
    )


def _problems_of(entry: Mapping[str, Any]) -> List[str]:
    if not isinstance(entry, Mapping):
        return [f"an array is a mapping of {', '.join(sorted(_KEYS))}, found {entry!r}"]
    found: List[str] = unknown_keys(entry, _KEYS)
    if not _NAME.fullmatch(str(entry.get("name", ""))):
        found.append(
            f"name: give small letters, digits and dashes, at most 22, a letter first, found {entry.get('name')!r}"
        )
    level = str(entry.get("level", ""))
    if level not in map(str, LEVELS):
        found.append(f"level: give 1 (all on every disk) or 0 (spread over all disks), found {entry.get('level')!r}")
    found += _option_problems(entry, level)
    legs = entry.get("devices", ())
    if not isinstance(legs, (list, tuple)) or len(legs) < 2:
        found.append(f"devices: give two disks or more, found {legs!r}")
    else:
        for number, leg in enumerate(legs):
            found += [f"devices[{number}]: {problem}" for problem in _leg_problems(leg)]
    return found


def _option_problems(entry: Mapping[str, Any], level: str) -> List[str]:
    found: List[str] = []
    if not isinstance(entry.get("bitmap", True), bool):
        found.append(f"bitmap: give true or false, found {entry['bitmap']!r}")
    elif level == "0" and entry.get("bitmap"):
        found.append("bitmap: an array of level 0 has none, since its disks are not copies of each other")
    if "chunk" in entry:
        try:
            chunk = parse_size(entry["chunk"])
        except ValueError as error:
            return [*found, f"chunk: {error}"]
        if level != "0":
            found.append("chunk: only an array of level 0 has it")
        elif chunk < _SMALLEST_CHUNK or chunk & (chunk - 1):
            found.append(f"chunk: give a power of two from {_SMALLEST_CHUNK} bytes on, found {chunk}")
    return found


def _leg_problems(leg: object) -> List[str]:
    if not isinstance(leg, Mapping):
        return [f"give device, serial and size, found {leg!r}"]
    return [*unknown_keys(leg, _LEG_KEYS), *device_problems(leg)]


def _clashes(arrays: Sequence[Array], volumes: Sequence[Mapping[str, Any]]) -> List[str]:
    problems: List[str] = []
    for name in twice(array.name for array in arrays):
        problems.append(f"md_arrays: name {name} is given twice; every array has its own.")
    for what in ("device", "serial"):
        values = [getattr(leg, what) for array in arrays for leg in array.legs]
        for value in twice(values):
            problems.append(f"md_arrays: {what} {value} is given twice; a disk belongs to one array, once.")
        taken = {str(entry.get(what)) for entry in volumes if isinstance(entry, Mapping) and entry.get(what)}
        for value in sorted(taken & set(values)):
            problems.append(f"md_arrays: {what} {value} is also that of a volume in luks_volumes; give it to one.")
    return problems
