"""`pip download` of a lock file for a host's Python and architecture, whatever machine this is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bedplate.bundles.progress import SECONDS_BETWEEN_LINES, Progress
from bedplate.errors import UserError

# The oldest C library among supported hosts is that of Enterprise Linux 9: glibc 2.34.  pip wants every tag by name.
NEWEST_GLIBC, OLDEST_GLIBC = 34, 5
OLD_NAMES = ("manylinux2014", "manylinux2010", "manylinux1", "linux")
RELOCK = "lock a list of your own as requirements/engine-cpu.in says, and name it with --engine-lock"


@dataclass(frozen=True)
class Target:
    """The hosts that wheels are for: their Python, such as "3.11", and architecture, such as "x86_64"."""

    python: str
    architecture: str

    @property
    def platforms(self) -> list[str]:
        manylinux = [f"manylinux_2_{minor}" for minor in range(NEWEST_GLIBC, OLDEST_GLIBC - 1, -1)]
        return [f"{name}_{self.architecture}" for name in (*manylinux, *OLD_NAMES)]


def command(lock: Path, target: Target, folder: Path) -> list[str]:
    """The operator's own pip, so that mirrors and certificates are those that this machine is configured with."""
    argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    argv += ["--disable-pip-version-check", "--no-input", "--progress-bar=raw"]
    argv += ["--implementation=cp", f"--python-version={target.python}"]
    argv += [f"--platform={platform}" for platform in target.platforms]
    return [*argv, f"--dest={folder}", f"--requirement={lock}"]


def download(lock: Path, target: Target, folder: Path, total: int, progress: Progress) -> None:
    # pip unpacks where TMPDIR points; /tmp may be memory, and a move to another file system is a copy.
    scratch = folder.parent / "tmp"
    scratch.mkdir()
    counter = Counter(lock.stem, total, progress)
    said: list[str] = []
    with subprocess.Popen(
        command(lock, target, folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"},
    ) as process:
        for line in process.stdout or ():
            said.append(line.rstrip())
            counter.read(line)
    if process.returncode:
        raise UserError(reason(lock.name, target, said))


class Counter:
    """Turns pip's lines into ours."""

    def __init__(self, label: str, total: int, progress: Progress) -> None:
        self._label, self._total, self._progress = label, total, progress
        self._wheels = self._before = self._now = 0
        self._current = ""
        self._said = 0.0

    def read(self, line: str) -> None:
        bar = re.match(r"Progress (\d+) of \d+", line)
        if bar:
            self._now = int(bar.group(1))
        elif line.startswith(("Collecting ", "Processing ")):
            self._wheels += 1
            self._before += self._now
            self._now = 0
            self._current = line.split()[1].rpartition("/")[2]
        elif line.startswith("Saved ") and self._current:
            self._current = ""
            self._progress(f"{self._label}: {self._wheels} wheels are here, being checked")
        now = time.monotonic()
        if self._current and now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            megabytes = (self._before + self._now) / 1e6
            self._progress(
                f"{self._label}: wheel {self._wheels} of {self._total}, {megabytes:.0f} MB downloaded: {self._current}"
            )


def reason(lock: str, target: Target, said: Sequence[str]) -> str:
    """What went wrong and what to do, from pip's output."""
    text = "\n".join(said)
    where = f"Python {target.python} on {target.architecture}"
    missing = re.search(r"No matching distribution found for (\S+)", text)
    if missing:
        wheel = missing.group(1)
        if "+cpu" in wheel:
            return (
                f"pip finds no wheel of {wheel} for {where}: it is a CPU build, which is on no default index; "
                "name an index or a folder that has it in PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS and build again."
            )
        return (
            f"pip finds no wheel of {wheel} for {where}; name an index or a folder that has it in PIP_INDEX_URL or "
            "PIP_FIND_LINKS and build again."
        )
    # pip says "<requirement> from <address>:" and then what it expected and got.
    other = re.search(r"DO NOT MATCH THE HASHES.*?\n\s+(\S+) from ", text, re.DOTALL)
    if other:
        return (
            f"the wheel of {other.group(1)} that pip finds for {where} is not one of those that {lock} locks; "
            f"if your hosts have a Python that it was not made for, {RELOCK}."
        )
    errors = [line.partition("ERROR: ")[2] for line in said if line.startswith("ERROR: ")]
    last = errors[-1] if errors else next((line for line in reversed(said) if line), "pip said nothing")
    return f"pip could not fetch the wheels of {lock} for {where}: {last.rstrip('.')}; put that right and build again."
