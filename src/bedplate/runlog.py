"""The log of a run: everything, in a file that only the user can read."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from bedplate.events import plain

FOLDER = Path(".bedplate") / "log"


class RunLog:
    """`.bedplate/log/<timestamp>-<command>-<site>.log` in the current folder, mode 0600."""

    def __init__(self, command: str, site: str, folder: Path | None = None) -> None:
        folder = (folder or FOLDER).absolute()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        stamp = datetime.now().astimezone().strftime("%Y%m%dT%H%M%S")
        self.path = folder / f"{stamp}-{command.replace(' ', '-')}-{site}.log"
        number = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._file: TextIO = os.fdopen(number, "a", encoding="utf-8")
        self._started = time.monotonic()
        self.write(f"bedplate {command}, site {site}, process {os.getpid()}")

    def write(self, text: str) -> None:
        """Every line with the seconds since the start; Ansible has censored the results of no_log tasks before."""
        if self._file.closed:
            return
        passed = f"{time.monotonic() - self._started:9.2f}  "
        for line in plain(text).strip("\n").split("\n"):
            self._file.write(passed + line.rstrip() + "\n")
        self._file.flush()

    def raw(self, event: Mapping[str, Any]) -> None:
        data = event.get("event_data") or {}
        if event.get("event") == "runner_on_start":
            self.write(f"start: [{data.get('host')}]")
        if event.get("stdout"):
            duration = data.get("duration")
            self.write(str(event["stdout"]) + (f"  ({duration:.2f} s)" if duration else ""))

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.write(f"ended by {kind.__name__ if kind else ''}: {error}")
        self._file.close()
