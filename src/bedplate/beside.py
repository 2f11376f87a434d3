"""The bundle of a lab, built while its machines come up: another process, its lines shown among Ansible's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from bedplate import processes

Say = Callable[[str], None]


def command(folder: Path) -> list[str]:
    """A lab's machines have no GPU, and no --model is the tiny one."""
    bedplate = [sys.executable, "-m", "bedplate"]
    return [*bedplate, "bundle", "build", folder.name, "--dir", str(folder), "--device", "cpu"]


class BundleBuild:
    """`bedplate bundle build` for a folder.  A process of its own, so that an interrupt can end it at any moment."""

    def __init__(self, folder: Path, say: Say) -> None:
        self._say = say
        self._last = ""
        self._process = subprocess.Popen(
            command(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C reaches us alone; we end it
        )
        self._reader = threading.Thread(target=self._read, daemon=True, name="bundle")
        self._reader.start()

    def wait(self, stop: Callable[[], bool]) -> str:
        """Until it is done or `stop()`; the sentence that says what went wrong, empty when nothing did."""
        while self._reader.is_alive() and not stop():
            self._reader.join(timeout=0.2)
        if stop():
            self.end()
            return "interrupted"
        code = self._process.wait()
        return "" if code == 0 else (self._last or f"`bedplate bundle build` ended with {code}")

    def end(self) -> None:
        for process in processes.children(os.getpid()):
            if process.pid == self._process.pid:
                processes.end([process, *processes.descendants(process.pid)])
        self._process.wait()

    def _read(self) -> None:
        if self._process.stdout is None:
            return
        for line in self._process.stdout:
            if line.strip():
                self._last = line.strip()
                self._say(self._last)
