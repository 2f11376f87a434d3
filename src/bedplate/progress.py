"""Showing a run while it happens: a live line on a terminal, plain lines with a heartbeat elsewhere, JSON for machines.

Progress goes to stderr and results to stdout, so that `bedplate verify … > report` holds the report only.  With
`--json` stdout is a stream of objects, one to a line, each with `event` and `elapsed` (seconds):

    {"event": "start", "command": …, "site": …, "log": …}
    {"event": "play", "name": …}
    {"event": "task", "status": "ok|changed|skipped|failed|unreachable|ignored", "host": …, "role": …, "task": …,
     "seconds": …, "message": …}
    {"event": "line", "kind": "line|diff|warning|error", "source": …, "text": …}
    {"event": "running", "text": …}                       at least every 15 seconds while nothing else is said
    {"event": "result", "outcome": "ok|failed|could-not-run|interrupted", "exit_code": …, "hosts": {…}, "checks": […],
     "failures": […], "errors": […], "log": …}            always the last one
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from bedplate.activity import Activity, duration
from bedplate.events import Event, PlayStarted, TaskEnded, Text

if TYPE_CHECKING:
    from rich.live import Live

HEARTBEAT = 15.0
_WORTH_A_LINE = ("changed", "failed", "unreachable", "ignored")


class Progress:
    """Base of the three ways to show: follows the activity, and says something when nothing was said for long."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._spoken = clock()
        # Events come from the thread that reads Ansible, lines also from work beside it, heartbeats from a timer.
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._timer = threading.Thread(target=self._tick, daemon=True, name="heartbeat")
        self.activity = Activity(clock())

    # What a way of showing implements.
    def _show_event(self, event: Event) -> bool:
        """True when something was shown."""
        raise NotImplementedError

    def _show_text(self, text: str, source: str) -> None:
        raise NotImplementedError

    def _show_heartbeat(self, text: str) -> None:
        raise NotImplementedError

    def result(self, data: dict[str, Any]) -> None:
        """The final object; only machines are told it in this form."""

    def start(self, data: dict[str, Any]) -> None:
        """The first object; only machines are told it in this form."""

    # What the rest of the CLI calls.
    def event(self, event: Event) -> None:
        with self._lock:
            self.activity.follow(event, self._clock())
            if self._show_event(event):
                self._spoken = self._clock()

    def text(self, text: str, source: str = "") -> None:
        with self._lock:
            self._show_text(text, source)
            self._spoken = self._clock()

    def beside(self, name: str, text: str) -> None:
        """Other work that goes on at the same time, shown in the status line; an empty text ends it."""
        with self._lock:
            if text:
                self.activity.beside[name] = text
            else:
                self.activity.beside.pop(name, None)

    def heartbeat(self) -> None:
        with self._lock:
            if self._clock() - self._spoken >= HEARTBEAT:
                self._show_heartbeat(self.activity.line(self._clock()))
                self._spoken = self._clock()

    def elapsed(self) -> float:
        return self._clock() - self._begun

    def __enter__(self) -> Progress:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._timer.join()

    def _tick(self) -> None:
        while not self._stopped.wait(1.0):
            self.heartbeat()


class PlainProgress(Progress):
    """One line for what changed or failed, and a heartbeat that names the running task."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._stream = stream or sys.stderr

    def _show_event(self, event: Event) -> bool:
        lines = list(event_lines(event))
        for line in lines:
            self._write(line)
        return bool(lines)

    def _show_text(self, text: str, source: str) -> None:
        for line in text.splitlines():
            self._write(f"{source}: {line}" if source else line)

    def _show_heartbeat(self, text: str) -> None:
        self._write(f"… {text}")

    def _write(self, line: str) -> None:
        minutes, seconds = divmod(int(self.elapsed()), 60)
        self._stream.write(f"{minutes:02d}:{seconds:02d}  {line}\n")
        self._stream.flush()


class TerminalProgress(PlainProgress):
    """The same lines, above a live one that says host, role, task and elapsed time."""

    _STYLES: ClassVar = {
        "failed": "red",
        "unreachable": "red",
        "error": "red",
        "changed": "yellow",
        "warning": "yellow",
    }

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, clock)
        from rich.console import Console
        from rich.live import Live
        from rich.spinner import Spinner

        self._console = Console(file=self._stream, highlight=False)
        self._spinner = Spinner("dots")
        self._live: Live = Live(
            console=self._console, get_renderable=self._status, refresh_per_second=8, transient=True
        )

    def __enter__(self) -> Progress:
        self._live.start()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._live.stop()

    def _status(self) -> Any:
        self._spinner.update(text=f"{duration(self.elapsed())}  {self.activity.line(self._clock())}")
        return self._spinner

    def _show_heartbeat(self, text: str) -> None:
        """The live line says it all the time."""

    def _write(self, line: str) -> None:
        from rich.text import Text as Styled

        minutes, seconds = divmod(int(self.elapsed()), 60)
        style = next((style for word, style in self._STYLES.items() if line.startswith(word)), "")
        self._console.print(Styled(f"{minutes:02d}:{seconds:02d}  ", style="dim").append(line, style=style))


class JsonProgress(Progress):
    """One object to a line on stdout; its shapes are in this file's docstring."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._stream = stream or sys.stdout

    def start(self, data: dict[str, Any]) -> None:
        self._write("start", data)

    def result(self, data: dict[str, Any]) -> None:
        self._write("result", data)

    def _show_event(self, event: Event) -> bool:
        if isinstance(event, PlayStarted):
            self._write("play", {"name": event.name})
        elif isinstance(event, TaskEnded):
            shown = ("status", "host", "role", "task", "seconds", "message")
            self._write("task", {name: getattr(event, name) for name in shown})
        elif isinstance(event, Text) and event.kind != "chatter":
            self._write("line", {"kind": event.kind, "source": "ansible", "text": event.text})
        else:
            return False
        return True

    def _show_text(self, text: str, source: str) -> None:
        self._write("line", {"kind": "line", "source": source, "text": text})

    def _show_heartbeat(self, text: str) -> None:
        self._write("running", {"text": text})

    def _write(self, event: str, data: dict[str, Any]) -> None:
        self._stream.write(json.dumps({"event": event, "elapsed": round(self.elapsed(), 2), **data}) + "\n")
        self._stream.flush()


def event_lines(event: Event) -> list[str]:
    """What a person reads of an event; nothing for a task that changed nothing."""
    if isinstance(event, PlayStarted):
        return [f"— {event.name}"]
    if isinstance(event, Text):
        if event.kind == "chatter":
            return []
        prefix = f"{event.kind}: " if event.kind in ("warning", "error") else ""
        return [prefix + line for line in event.text.splitlines()]
    if not isinstance(event, TaskEnded):
        return []
    lines = [f"warning: {event.host}: {warning}" for warning in event.warnings]
    if event.status in _WORTH_A_LINE:
        where = " · ".join(part for part in (event.host, event.role, event.task) if part)
        lines.append(f"{event.status:<8} {where} ({duration(event.seconds)})")
        # What checks do not hold is told at the end, once.
        lines += [f"    {line}" for line in event.message.splitlines() if not event.is_verdict]
    return lines


def progress_for(as_json: bool) -> Progress:
    if as_json:
        return JsonProgress()
    return TerminalProgress() if sys.stderr.isatty() else PlainProgress()
