"""Lines about something long: often enough that nobody wonders, seldom enough to be read."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str], None]

SECONDS_BETWEEN_LINES = 2.0


def silent(_line: str) -> None:
    """For what is over before anybody asks."""


class Meter:
    """Counts bytes and says how many of how many there are, at most every two seconds."""

    def __init__(self, label: str, total: int, progress: Progress) -> None:
        self._label, self._total, self._progress = label, total, progress
        self._done = 0
        self._said = time.monotonic()

    def add(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            self._progress(f"{self._label}: {self._done / 1e6:.0f} of {self._total / 1e6:.0f} MB")
