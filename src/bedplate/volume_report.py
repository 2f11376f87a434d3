"""Encrypted volumes and disks of a host, for people."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def host_lines(host: str, result: Mapping[str, Any], now: datetime.datetime) -> Iterator[str]:
    """What `bedplate.llm.luks_volume_info` returned of one host: its volumes, what does not hold, its free disks."""
    yield host
    rows = [_row(volume, now) for volume in result["volumes"]]
    widths = [max(len(row[column]) for row in rows) for column in range(4)] if rows else []
    for volume, row in zip(result["volumes"], rows, strict=True):
        padded = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        yield "  " + "  ".join([*padded, row[-1]])
        yield from (f"    {problem}" for problem in volume["problems"])
    # What a refusal says stands there already.
    told = {f"luks_volume.{volume['name']}-there" for volume in result["volumes"] if volume["problems"]}
    for check in result["checks"]:
        if not check["ok"] and check["id"] not in told:
            yield f"  FAIL {check['id']}: {check['reason']}"
            yield f"       → {check['remedy']}"
    yield from _free_disks(result)


def state(volume: Mapping[str, Any]) -> str:
    """In one or two words."""
    if volume["state"] in ("erasing", "erased"):
        return str(volume["state"])
    if volume["decision"] == "refuse":
        return "refused"
    if not volume["uuid"]:
        return "not made yet"
    if volume["decision"] != "keep":
        return "half made"
    return "open" if volume["open"] else "locked"


def _row(volume: Mapping[str, Any], now: datetime.datetime) -> tuple[str, ...]:
    mounted = ", ".join(volume["mounted"]) or "not mounted"
    ways = ", ".join(way["method"] for way in volume["ways"]) or "no way in"
    return (volume["name"], state(volume), mounted, ways, _backup(volume, now))


def _backup(volume: Mapping[str, Any], now: datetime.datetime) -> str:
    backup = volume["backup"]
    if not backup:
        return "no backup of the header"
    made = datetime.datetime.strptime(backup["made"], "%Y-%m-%dT%H:%M:%S%z")
    age = (now - made).days
    when = "today" if age == 0 else "yesterday" if age == 1 else f"{age} days ago"
    current = "" if backup["sequence"] == volume["sequence"] else ", and changed since"
    return f"header backed up {when}{current}"


def _free_disks(result: Mapping[str, Any]) -> Iterator[str]:
    declared = {volume["path"] for volume in result["volumes"]}
    for disk in result["disks"]:
        if disk["path"] in declared or disk["holds"]:
            continue
        known_by = ", ".join(word for word in (_size(disk["size"]), disk["model"]) if word)
        shown = f"  {disk['path']} ({known_by}) holds nothing known"
        if not disk["names"] or not disk["serial"]:
            missing = "serial number" if disk["names"] else "stable name below /dev/disk/by-id"
            yield f"{shown}, and has no {missing}, so that it cannot be declared"
            continue
        yield f"{shown}; to declare it:"
        yield from (f"    {line}" for line in stanza(disk))


def stanza(disk: Mapping[str, Any]) -> Sequence[str]:
    """An entry of luks_volumes, as an inventory has it."""
    return (
        "- name: CHANGE-ME",
        f"  device: {disk['names'][0]}",
        # Quoted, since one of digits alone would be a number.
        f"  serial: {json.dumps(disk['serial'])}",
        f"  size: {disk['size']}",
        "  mount: CHANGE-ME",
        "  unlock: [tpm2]",
    )


def _size(size: int) -> str:
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"
