# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads what is on the host's disks, with lsblk, wipefs, blkid and mdadm, and changes nothing."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import luks2_header
from ansible_collections.bedplate.llm.plugins.module_utils.block_device import BLANK_ENDS, Device, Signature
from ansible_collections.bedplate.llm.plugins.module_utils.block_device import Mapping as Mapped

# Exit code and standard output; (-1, "") when the host does not have the command.
Run = Callable[[Sequence[str]], Tuple[int, str]]

_COLUMNS = "NAME,KNAME,PATH,TYPE,SIZE,SERIAL,MODEL,RO,MOUNTPOINTS"
_CHUNK = 4 << 20
_HEADER_END = 16 << 20


class BlockDeviceError(Exception):
    """A question that the host's own tools could not answer, as one sentence."""


def asking(run: Callable[[Sequence[str], Optional[bytes], Sequence[int]], Tuple[int, str, str]]) -> Run:
    """The questions of this module, by a runner that can do more."""

    def ask(argv: Sequence[str]) -> Tuple[int, str]:
        try:
            code, output, _said = run(argv, None, ())
        except FileNotFoundError:
            return -1, ""
        return code, output

    return ask


def look(given: str, run: Run, sys: Path = Path("/sys"), ends: bool = True) -> Device:
    """All that is known of a device, by its stable name.  ends: whether to read both ends of it for zeros."""
    path = os.path.realpath(given)
    if not Path(path).is_block_device():
        return Device(given)
    try:
        return _look(given, path, run, sys, ends)
    except OSError as error:
        raise BlockDeviceError(f"{path} cannot be read: {error}") from error


def _look(given: str, path: str, run: Run, sys: Path, ends: bool) -> Device:
    tree = _lsblk(path, run)
    kernel = str(tree["kname"])
    holders = _names(sys / "class/block" / kernel / "holders")
    children = [str(child["name"]) for child in tree.get("children", ())]
    with open(path, "rb", buffering=0) as content:
        read = reader(content.fileno())
        size = int(tree["size"])
        luks = luks2_header.scan(read)
        found = signatures(path, run)
        empty = not luks.traces and not found
        return Device(
            given,
            path,
            serial=_serial(given, path, tree, run, sys),
            size=size,
            type=str(tree["type"]),
            read_only=bool(tree["ro"]),
            holders=tuple(holders),
            children=tuple(children),
            mounts=tuple(_mounts(tree)),
            exclusive=exclusive(path),
            signatures=tuple(found),
            array_member=_array_member(path, run),
            luks=luks,
            blank=ends_are_zero(read, size) if ends and empty else None,
            blank_behind=ends_are_zero(read, size, _HEADER_END) if ends and (luks.traces or empty) else None,
            mappings=tuple(_mappings(tree, holders, sys)),
        )


def disks(run: Run) -> List[Dict[str, Any]]:
    """Every disk with what an inventory says of it: stable names, serial number, size in bytes, model, what is on
    it."""
    names = stable_names()
    found = []
    for entry in _parse_lsblk(_run(run, ["lsblk", "--json", "--bytes", "--output", f"{_COLUMNS},FSTYPE,PTTYPE"])):
        if entry["type"] != "disk" or not entry.get("size"):
            continue
        holds = [str(entry[key]) for key in ("fstype", "pttype") if entry.get(key)]
        holds += [str(child["name"]) for child in entry.get("children", ())]
        found.append(
            {
                "path": entry["path"],
                "names": names.get(str(entry["path"]), []),
                "serial": entry.get("serial") or "",
                "size": int(entry["size"]),
                "model": (entry.get("model") or "").strip(),
                "holds": holds,
            }
        )
    return found


def stable_names(folder: Path = Path("/dev/disk/by-id")) -> Dict[str, List[str]]:
    """The names below /dev/disk/by-id, by the device that they lead to; those made of serial numbers first."""
    found: Dict[str, List[str]] = {}
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    for link in sorted(
        entries, key=lambda entry: (entry.name.startswith(("wwn-", "nvme-eui", "dm-", "lvm-")), entry.name)
    ):
        found.setdefault(os.path.realpath(link), []).append(str(link))
    return found


def exclusive(path: str) -> bool:
    """Whether the kernel gives the device to one user.  Opening it so changes nothing and is over at once."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True


def reader(descriptor: int) -> luks2_header.Read:
    return lambda offset, length: os.pread(descriptor, length, offset)


def ends_are_zero(read: luks2_header.Read, size: int, start: int = 0) -> bool:
    """Whether BLANK_ENDS bytes from start, and as many at the end, are zeros."""
    first = (start, min(start + BLANK_ENDS, size))
    last = (max(first[1], size - BLANK_ENDS), size)
    return all(_is_zero(read, begin, end) for begin, end in (first, last))


def _is_zero(read: luks2_header.Read, begin: int, end: int) -> bool:
    zeros = bytes(_CHUNK)
    while begin < end:
        chunk = read(begin, min(_CHUNK, end - begin))
        if not chunk or chunk != zeros[: len(chunk)]:
            return False
        begin += len(chunk)
    return True


def _lsblk(path: str, run: Run) -> Dict[str, Any]:
    found = _parse_lsblk(_run(run, ["lsblk", "--json", "--bytes", "--output", _COLUMNS, path]))
    if len(found) != 1:
        raise BlockDeviceError(f"lsblk tells of {len(found)} devices for {path}")
    return found[0]


def _parse_lsblk(text: str) -> List[Dict[str, Any]]:
    try:
        found: List[Dict[str, Any]] = json.loads(text)["blockdevices"]
    except (ValueError, KeyError) as error:
        raise BlockDeviceError(f"lsblk answered what is not its JSON: {text[:80]!r}") from error
    return found


def _run(run: Run, argv: Sequence[str], allowed: Iterable[int] = (0,)) -> str:
    code, text = run(argv)
    if code not in allowed:
        raise BlockDeviceError(
            f"`{' '.join(argv)}` ended with {code} on this host" if code >= 0 else f"{argv[0]} is missing"
        )
    return text


def _mounts(tree: Mapping[str, Any]) -> List[str]:
    """Of the device itself; those of what stands on it come with its children."""
    return [str(mount) for mount in tree.get("mountpoints") or () if mount]


def _serial(given: str, path: str, tree: Mapping[str, Any], run: Run, sys: Path) -> str:
    array = re.fullmatch(r".*/md-name-[^:/]*:([^/]+)", given)
    if array:
        return f"md-{array.group(1)}"
    if tree.get("serial"):
        return str(tree["serial"])
    # A partition has its disk's.
    parent = Path(os.path.realpath(sys / "class/block" / os.path.basename(path))).parent
    if tree["type"] == "part" and (Path("/dev") / parent.name).exists():
        return str(_lsblk(f"/dev/{parent.name}", run).get("serial") or "")
    return ""


def signatures(path: str, run: Run) -> List[Signature]:
    """By wipefs, which names them all, and by blkid, which has a second opinion on file systems."""
    text = _run(run, ["wipefs", "--no-act", "--json", path])
    try:
        entries = json.loads(text).get("signatures", []) if text.strip() else []
        found = [Signature(str(entry["type"]), int(str(entry["offset"]), 0)) for entry in entries]
    except (ValueError, KeyError) as error:
        raise BlockDeviceError(f"wipefs answered what is not its JSON: {text[:80]!r}") from error
    # 2: nothing known; 8: it holds several things at once, which is more than nothing.
    code, said = run(["blkid", "--probe", "--output", "export", path])
    if code not in (0, 2, 8):
        raise BlockDeviceError(f"`blkid --probe {path}` ended with {code} on this host")
    values = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    known = {signature.type for signature in found}
    found += [Signature(values[key]) for key in ("TYPE", "PTTYPE") if values.get(key) and values[key] not in known]
    if code == 8 and not found:
        found.append(Signature("several file systems at once"))
    return found


def _array_member(path: str, run: Run) -> bool:
    code, text = run(["mdadm", "--examine", "--brief", path])
    # Without mdadm wipefs has said it: it knows the superblocks of Linux's arrays too.
    return code == 0 and "ARRAY" in text


def _mappings(tree: Mapping[str, Any], holders: Sequence[str], sys: Path) -> List[Mapped]:
    found = []
    children = {str(child["kname"]): child for child in tree.get("children", ())}
    for kernel in holders:
        folder = sys / "class/block" / kernel / "dm"
        if folder.is_dir():
            name = _line(folder / "name")
            mounts = _mounts(children.get(kernel, {}))
            found.append(Mapped(name, _line(folder / "uuid"), f"/dev/mapper/{name}", tuple(mounts)))
    return found


def mapped_uuids(sys: Path = Path("/sys")) -> Dict[str, str]:
    """The kernel's device-mapper uuid of every mapping, by /dev/dm-N and by /dev/mapper/NAME."""
    found = {}
    for folder in (sys / "class/block").glob("dm-*"):
        uuid = _line(folder / "dm/uuid")
        found[f"/dev/{folder.name}"] = found[f"/dev/mapper/{_line(folder / 'dm/name')}"] = uuid
    return found


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _names(folder: Path) -> List[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []
