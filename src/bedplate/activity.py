"""What is running now, as one short line: the state behind the live status and the heartbeat."""

from __future__ import annotations

from bedplate.events import Event, PlayStarted, Summary, TaskEnded, TaskStarted

_MOST_HOSTS = 4


class Activity:
    """Follows the events of a run; `line(now)` says host, role, task and elapsed time."""

    def __init__(self, now: float = 0.0) -> None:
        self._role = ""
        self._task = "starting"
        self._since = now
        self._hosts: dict[str, float] = {}
        self.beside: dict[str, str] = {}  # other work going on, by name: its latest line

    def follow(self, event: Event, now: float) -> None:
        if isinstance(event, PlayStarted):
            self._begin("", event.name, now)
        elif isinstance(event, TaskStarted) and not event.host:
            self._begin(event.role, event.task, now)
        elif isinstance(event, TaskStarted):
            self._hosts[event.host] = now
        elif isinstance(event, TaskEnded):
            self._hosts.pop(event.host, None)
        elif isinstance(event, Summary):
            self._begin("", "finishing", now)

    def line(self, now: float) -> str:
        where = " · ".join(part for part in (self._who(), self._role, self._task) if part)
        since = min(self._hosts.values(), default=self._since)
        parts = [f"{where}, {duration(now - since)}", *(f"{name}: {text}" for name, text in self.beside.items())]
        return " | ".join(parts)

    def _begin(self, role: str, task: str, now: float) -> None:
        self._role, self._task, self._since = role, task, now
        self._hosts.clear()

    def _who(self) -> str:
        names = list(self._hosts)
        if len(names) > _MOST_HOSTS:
            return f"{', '.join(names[:_MOST_HOSTS])} and {len(names) - _MOST_HOSTS} more"
        return ", ".join(names)


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
