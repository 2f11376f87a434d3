"""Ending what we started: a process and everything below it, read from /proc."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    pid: int
    started: str  # clock ticks since boot: tells a process from a later one with the same number

    def is_alive(self) -> bool:
        found = _read(self.pid)
        return found is not None and found[1] == self.started and found[2] != "Z"


def children(pid: int) -> list[Process]:
    return [process for process, parent in _all() if parent == pid]


def descendants(pid: int) -> list[Process]:
    """All processes below `pid`, nearest first; without `pid` itself."""
    below: dict[int, list[Process]] = {}
    for process, parent in _all():
        below.setdefault(parent, []).append(process)
    found: list[Process] = []
    queue = [pid]
    while queue:
        for process in below.get(queue.pop(0), []):
            found.append(process)
            queue.append(process.pid)
    return found


def send(processes: Iterable[Process], number: signal.Signals) -> None:
    for process in processes:
        if process.is_alive():
            try:
                os.kill(process.pid, number)
            except (ProcessLookupError, PermissionError):
                continue  # gone in between, or a program that became another user: it is not ours to end


def end(processes: Iterable[Process], grace: float = 5.0) -> None:
    """SIGTERM, then SIGKILL for what is left after `grace` seconds."""
    processes = list(processes)
    send(processes, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and any(process.is_alive() for process in processes):
        time.sleep(0.05)
    send(processes, signal.SIGKILL)


def _all() -> Iterable[tuple[Process, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            found = _read(int(entry.name))
            if found:
                yield Process(int(entry.name), found[1]), found[0]


def _read(pid: int) -> tuple[int, str, str] | None:
    """(parent, start time, state); None when the process is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name in parentheses may hold spaces and parentheses of its own, so count from the last one.
    fields = stat.rpartition(")")[2].split()
    return int(fields[1]), fields[19], fields[0]
