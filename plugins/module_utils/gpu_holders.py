# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who holds the GPUs: processes that have a device node of the NVIDIA driver open or mapped.

A driver is not unloaded and a host is not restarted under them.  Reads /proc below a root directory, so that a test can
bring its own.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import List, Set, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.processes import parse_command, parse_unit

# /dev/nvidia0, /dev/nvidiactl, /dev/nvidia-uvm, /dev/nvidia-caps/nvidia-cap1, /dev/nvidia-caps-imex-channels/channel0
_DEVICE = re.compile(r"/dev/nvidia(?:\d+|ctl|-[a-z][a-z0-9-]*(?:/[a-z0-9-]+)?)")


@dataclass(frozen=True)
class Holder:
    pid: int
    command: str
    unit: str  # of systemd, such as bedplate-vllm.service or session-4.scope; empty when it is in none
    devices: Tuple[str, ...]

    @property
    def sentence(self) -> str:
        """`process 812 (python3 train.py) of session-4.scope with /dev/nvidia0, /dev/nvidiactl`"""
        where = f" of {self.unit}" if self.unit else ""
        return f"process {self.pid} ({self.command}){where} with {', '.join(self.devices)}"


@dataclass(frozen=True)
class Found:
    """`unseen` are processes that would not let themselves be looked at: none where root looks."""

    holders: Tuple[Holder, ...]
    unseen: Tuple[int, ...] = ()


def holders(root: Path) -> List[Holder]:
    """All holders that can be seen, by number; root sees them all."""
    return list(look(root).holders)


def look(root: Path) -> Found:
    found: List[Holder] = []
    unseen: List[int] = []
    numbers = sorted(int(name) for name in os.listdir(root / "proc") if name.isdigit())
    for pid in numbers:
        folder = root / "proc" / str(pid)
        try:
            devices = _opened(folder) | parse_maps(_text(folder / "maps"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        except PermissionError:
            unseen.append(pid)
            continue
        if devices:
            found.append(_holder(folder, pid, devices))
    return Found(tuple(found), tuple(unseen))


def parse_maps(text: str) -> Set[str]:
    """Devices that are mapped into memory, which they stay when their file is closed."""
    fields = (line.split(None, 5) for line in text.splitlines())  # address, permissions, offset, device, inode, path
    return {name for name in (_device(field[5]) for field in fields if len(field) == 6) if name}


def _device(path: str) -> str:
    """The device's name when the path is one; the kernel marks a node that was made anew since as deleted."""
    name = path[: -len(" (deleted)")] if path.endswith(" (deleted)") else path
    return name if _DEVICE.fullmatch(name) else ""


def _opened(folder: Path) -> Set[str]:
    devices = set()
    for name in os.listdir(folder / "fd"):
        try:
            device = _device(os.readlink(folder / "fd" / name))
        except FileNotFoundError:
            continue  # closed meanwhile
        if device:
            devices.add(device)
    return devices


def _holder(folder: Path, pid: int, devices: Set[str]) -> Holder:
    try:
        command = parse_command(_text(folder / "cmdline"), _text(folder / "comm"))
        unit = parse_unit(_text(folder / "cgroup"))
    except OSError:  # it ended between two looks, and is named with what is known
        command, unit = "ended meanwhile", ""
    return Holder(pid, command, unit, tuple(sorted(devices)))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
