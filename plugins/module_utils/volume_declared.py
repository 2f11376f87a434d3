# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a site says about its encrypted volumes, and what of it cannot work.

A device is named by three facts that have to agree on the host: a stable name, its serial number and its size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import cipher_profiles, volume_record
from ansible_collections.bedplate.llm.plugins.module_utils.declared import parse_each, twice, unknown_keys

FILESYSTEMS = ("ext4", "xfs")
# How a volume is unlocked without anybody at the keyboard; the recovery passphrase comes on top of these.
TPM2, TANG, BOTH = "tpm2", "tang", "tpm2+tang"
UNLOCKS = (TPM2, TANG, BOTH)

# The smallest that ext4 and a LUKS2 header make sense on.
SMALLEST = 64 << 20
_STABLE = "/dev/disk/by-id/"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,80}")
_OPTION = re.compile(r"[A-Za-z0-9_.=:/@+-]+")
_UNIT = re.compile(r"[A-Za-z0-9:_.@-]+\.service")
_SIZE = re.compile(r"(\d+)\s*([KMGT]?)i?B?", re.IGNORECASE)
_POWER = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_KEYS = {"name", "device", "serial", "size", "array", "mount", "filesystem", "cipher", "unlock", "options", "services"}

# Mount points that the rest of a host needs to boot; a data volume is never one of them.
_SYSTEM = re.compile(r"/|/(boot|dev|etc|home|opt|proc|root|run|srv|sys|tmp|usr|var)")
_SYSTEM_BELOW = ("/boot/", "/dev/", "/etc/", "/proc/", "/run/", "/sys/", "/usr/")


@dataclass(frozen=True)
class Volume:
    """One declared volume.

    device, serial, size: the three facts of its device; size in bytes.  With an array they are the array's: its name
    below /dev/disk/by-id, `md-<name>` as serial, and size 0 for "whatever it has".
    unlock: of UNLOCKS.  options: for mount.  services: units that must not run without the volume; a name that ends
    in "-.service" stands for every unit whose name begins so.
    """

    name: str
    device: str
    serial: str
    size: int
    mount: str
    filesystem: str = "ext4"
    cipher: str = cipher_profiles.DEFAULT
    unlock: Tuple[str, ...] = (TPM2,)
    options: Tuple[str, ...] = ()
    services: Tuple[str, ...] = ("bedplate-.service",)
    array: str = ""

    @property
    def mapper(self) -> str:
        return f"/dev/mapper/{self.name}"


def parse_size(value: object) -> int:
    """Bytes of a number or of text such as 8G (powers of 1024); ValueError says what is wrong."""
    if isinstance(value, bool):
        raise ValueError(f"give bytes, or a number with K, M, G or T, found {value!r}")
    if isinstance(value, int):
        return value
    match = _SIZE.fullmatch(str(value).strip())
    if not match:
        raise ValueError(f"give bytes, or a number with K, M, G or T, found {value!r}")
    return int(match.group(1)) << _POWER[match.group(2).upper()]


def array_device(name: str) -> str:
    return f"{_STABLE}md-name-bedplate:{name}"


def array_serial(name: str) -> str:
    """By what an array is told from others where a disk has its serial number."""
    return f"md-{name}"


def escrow_key(volume: Volume, host: str) -> str:
    """By what the operator's side knows a device: arrays of one name are on many hosts, a serial number is on one
    disk."""
    return f"{host}.{volume.serial}" if volume.array else volume.serial


def parse(declared: Sequence[Mapping[str, Any]], arrays: Sequence[str] = ()) -> Tuple[List[Volume], List[str]]:
    """The volumes, and one sentence for everything that is wrong with them; arrays are the names of declared arrays."""
    volumes, problems = parse_each("luks_volumes", declared, lambda entry: _problems_of(entry, arrays), _volume)
    return volumes, problems + _clashes(volumes)


def _volume(entry: Mapping[str, Any]) -> Volume:
    array = str(entry.get("array") or "")
    more: Dict[str, Any] = {key: str(entry[key]) for key in ("filesystem", "cipher") if key in entry}
    more.update({key: tuple(entry[key]) for key in ("unlock", "options", "services") if key in entry})
    return Volume(
        name=str(entry["name"]),
        device=array_device(array) if array else str(entry["device"]),
        serial=array_serial(array) if array else str(entry["serial"]),
        size=0 if array else parse_size(entry["size"]),
        mount=str(entry["mount"]),
        array=array,
        **more,
    )


def _problems_of(entry: Mapping[str, Any], arrays: Sequence[str]) -> List[str]:
    if not isinstance(entry, Mapping):
        return [f"a volume is a mapping of {', '.join(sorted(_KEYS))}, found {entry!r}"]
    found: List[str] = unknown_keys(entry, _KEYS)
    if not _NAME.fullmatch(str(entry.get("name", ""))):
        found.append(
            f"name: give small letters, digits and dashes, at most 31, a letter first, found {entry.get('name')!r}"
        )
    found += _device_problems(entry, arrays)
    found += _mount_problems(str(entry.get("mount", "")))
    if entry.get("filesystem", "ext4") not in FILESYSTEMS:
        found.append(f"filesystem: give {' or '.join(FILESYSTEMS)}, found {entry['filesystem']!r}")
    if entry.get("cipher", cipher_profiles.DEFAULT) not in cipher_profiles.PROFILES:
        found.append(f"cipher: give {' or '.join(cipher_profiles.PROFILES)}, found {entry['cipher']!r}")
    found += _list_problems(entry)
    return found


def _device_problems(entry: Mapping[str, Any], arrays: Sequence[str]) -> List[str]:
    array = entry.get("array")
    if array:
        both = [key for key in ("device", "serial", "size") if key in entry]
        if both:
            return [f"{both[0]}: leave it out where array is given, the array says it"]
        if array not in arrays:
            known = ", ".join(arrays) or "none"
            return [f"array: {array!r} is not declared in md_arrays (declared: {known})"]
        return []
    return device_problems(entry)


def device_problems(entry: Mapping[str, Any]) -> List[str]:
    """What is wrong with the three facts by which a disk is named."""
    found: List[str] = []
    device = str(entry.get("device", ""))
    if not device.startswith(_STABLE) or "/" in device[len(_STABLE) :] or len(device) == len(_STABLE):
        found.append(
            f"device: give a name below {_STABLE}, which stays the same when disks are added or swapped, found"
            f" {entry.get('device')!r}"
        )
    if not _SERIAL.fullmatch(str(entry.get("serial", ""))):
        found.append(
            f"serial: give the device's serial number (`lsblk -do NAME,SERIAL`), found {entry.get('serial')!r}"
        )
    try:
        size = parse_size(entry.get("size", ""))
    except ValueError as error:
        found.append(f"size: {error} (`lsblk -bdo NAME,SIZE`)")
    else:
        if size < SMALLEST:
            found.append(f"size: give {SMALLEST} bytes or more, found {size}")
    return found


def _mount_problems(mount: str) -> List[str]:
    if not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", mount) or "/." in mount:
        return [f"mount: give an absolute path of letters, digits, dots, dashes and underscores, found {mount!r}"]
    if _SYSTEM.fullmatch(mount) or mount.startswith(_SYSTEM_BELOW):
        return [f"mount: the host itself needs {mount}, give a path of the service's own such as /var/lib/bedplate"]
    records = str(volume_record.FOLDER)
    if f"{mount}/".startswith(f"{records}/") or records.startswith(f"{mount}/"):
        return [f"mount: {mount} would hide {records}, where the host remembers its volumes"]
    return []


def _list_problems(entry: Mapping[str, Any]) -> List[str]:
    found: List[str] = []
    unlock = entry.get("unlock", [TPM2])
    listed = isinstance(unlock, (list, tuple)) and all(method in UNLOCKS for method in unlock)
    if not listed or not unlock or len(set(unlock)) < len(unlock):
        found.append(
            f"unlock: give one or more of {', '.join(UNLOCKS)}, each once; the recovery passphrase comes by itself,"
            " found"
            f" {unlock!r}"
        )
    elif TPM2 in unlock and BOTH in unlock:
        # The weaker way would make the stronger one pointless.
        found.append(f"unlock: {TPM2} opens the volume without the network that {BOTH} asks for; give one of them")
    elif TANG in unlock and BOTH in unlock:
        found.append(f"unlock: {TANG} opens the volume without the TPM that {BOTH} asks for; give one of them")
    for key, pattern in (("options", _OPTION), ("services", _UNIT)):
        values = entry.get(key, ())
        if not isinstance(values, (list, tuple)) or any(not pattern.fullmatch(str(value)) for value in values):
            found.append(f"{key}: found {values!r}, give a list of {'mount options' if key == 'options' else 'units'}")
    return found


def _clashes(volumes: Sequence[Volume]) -> List[str]:
    problems: List[str] = []
    for what in ("name", "device", "serial", "mount"):
        for value in twice(getattr(volume, what) for volume in volumes):
            problems.append(f"luks_volumes: {what} {value} is given twice; every volume has its own.")
    return problems
