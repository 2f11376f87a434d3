"""What ansible-runner reports, as a handful of small types.

ansible-runner hands out one dictionary per Ansible callback.  Everything that knows the shape of those dictionaries is
in this file; the rest of the CLI sees only the types below.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check, from_dict

Status = Literal["ok", "changed", "skipped", "failed", "unreachable", "ignored"]

# A task that fails because checks do not hold: a finding about the host, not an inability to look.
_ASSERT_CHECKS = "bedplate.llm.assert_checks"
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# What Ansible puts in front of the sentence that one of our plugins wrote.
_WRAPPING = re.compile(
    r"^(Task failed: |Action failed: |Module failed: |Finalization of task args for '[^']*' failed: "
    r"|Error while resolving value for '[^']*': |The (filter|lookup) plugin 'bedplate[^']*' failed: )+"
)
_LEVEL = re.compile(r"^\[?ERROR\]?[!:]+\s*")


@dataclass(frozen=True)
class PlayStarted:
    name: str


@dataclass(frozen=True)
class TaskStarted:
    """`host` is empty for the announcement of the task, and set once a host begins with it."""

    role: str
    task: str
    host: str = ""


@dataclass(frozen=True)
class TaskEnded:
    host: str
    role: str
    task: str
    status: Status
    seconds: float = 0.0
    message: str = ""
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()
    action: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_verdict(self) -> bool:
        """Failed because of what the checks say, so everything that had to be looked at was looked at."""
        return self.status == "failed" and self.action == _ASSERT_CHECKS


@dataclass(frozen=True)
class Text:
    """A line that Ansible or an action plugin printed: progress of a transfer, a difference, a warning, an error."""

    text: str
    kind: Literal["line", "diff", "warning", "error", "chatter"] = "line"


@dataclass(frozen=True)
class HostSummary:
    ok: int = 0
    changed: int = 0
    failed: int = 0
    unreachable: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class Summary:
    hosts: Mapping[str, HostSummary]


Event = PlayStarted | TaskStarted | TaskEnded | Text | Summary

_FINISHED: dict[str, Status] = {
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
    "runner_on_skipped": "skipped",
}
# Printed outside any callback: action plugins' own lines, and Ansible's before the first play.
_PRINTED = ("verbose", "display")


def parse(raw: Mapping[str, Any]) -> Event | None:
    """The event behind one dictionary of ansible-runner; None for those that say nothing to a user."""
    name = str(raw.get("event", ""))
    data = raw.get("event_data") or {}
    stdout = plain(str(raw.get("stdout") or "")).strip("\r\n")
    if name in _FINISHED:
        return _ended(_FINISHED[name], data)
    if name == "playbook_on_task_start":
        return TaskStarted(_role(data), _task(data))
    if name == "runner_on_start":
        return TaskStarted(_role(data), _task(data), str(data.get("host", "")))
    if name == "playbook_on_play_start":
        return PlayStarted(str(data.get("name", "")))
    if name == "playbook_on_stats":
        return _summary(data)
    if not stdout:
        return None
    if name == "runner_on_file_diff":
        return Text(stdout, "diff")
    if name == "error" or _LEVEL.match(stdout):
        return Text(_LEVEL.sub("", stdout), "error")
    if name in ("warning", "system_warning", "deprecated"):
        return Text(stdout, "warning")
    if name in _PRINTED:
        return Text(stdout, "chatter" if raw.get("verbosity") else "line")
    return None


def plain(text: str) -> str:
    """Without colours: what goes to logs, to machines, and to our own rendering."""
    return _TERMINAL_CODES.sub("", text).replace("\r\n", "\n")


def message_of(result: Mapping[str, Any]) -> str:
    """What a failed result says, short: the message, the failed items of a loop, else the last words of the command."""
    if "censored" in result:
        return "the details are hidden, since the task handles secrets (the role's _secure_logging: false shows them)"
    items = [item for item in result.get("results") or [] if isinstance(item, Mapping) and item.get("failed")]
    if items:
        return "\n".join(f"{_label(item)}{message_of(item)}" for item in items)
    if result.get("argument_errors"):
        return "\n".join(str(error) for error in result["argument_errors"])
    message = result.get("msg")
    text = "\n".join(map(str, message)) if isinstance(message, list) else _WRAPPING.sub("", str(message or ""))
    for stream in ("stderr", "module_stderr", "stdout", "module_stdout"):
        # `command` and a crashed module put the reason beside a message that says nothing ("non-zero return code").
        words = str(result.get(stream) or "").strip()
        if words and ("rc" in result or stream.startswith("module")) and words not in text:
            return f"{text}: {_tail(words)}" if text else _tail(words)
    return text.strip() or "failed without a message"


def _ended(status: Status, data: Mapping[str, Any]) -> TaskEnded:
    result = data.get("res") or {}
    if status == "ok" and result.get("changed"):
        status = "changed"
    if status == "failed" and data.get("ignore_errors"):
        status = "ignored"
    return TaskEnded(
        host=str(data.get("host", "")),
        role=_role(data),
        task=_task(data),
        status=status,
        seconds=float(data.get("duration") or 0.0),
        message=message_of(result) if status in ("failed", "unreachable", "ignored") else "",
        checks=_checks(result),
        warnings=tuple(str(warning) for warning in result.get("warnings") or ()),
        action=str(data.get("resolved_action") or data.get("task_action") or ""),
        result=result,
    )


def _checks(result: Mapping[str, Any]) -> tuple[Check, ...]:
    """All checks of a result, those of a loop's items included; a malformed one is a bug of a module, shown as such."""
    values = list(result.get("checks") or []) if isinstance(result.get("checks"), list) else []
    for item in result.get("results") or []:
        if isinstance(item, Mapping) and isinstance(item.get("checks"), list):
            values.extend(item["checks"])
    checks = []
    for value in values:
        try:
            checks.append(from_dict(value))
        except ValueError as error:
            checks.append(Check("bedplate.malformed-check", False, str(error), "report this as a bug of the module"))
    return tuple(checks)


def _summary(data: Mapping[str, Any]) -> Summary:
    def count(key: str, host: str) -> int:
        return int((data.get(key) or {}).get(host, 0))

    # `processed` counts every host that was in a play, also those of which nothing else is known.
    return Summary(
        {
            host: HostSummary(
                ok=count("ok", host),
                changed=count("changed", host),
                failed=count("failures", host),
                unreachable=count("dark", host),
                skipped=count("skipped", host),
            )
            for host in sorted(data.get("processed") or {})
        }
    )


def _role(data: Mapping[str, Any]) -> str:
    return str(data.get("role") or "").rpartition(".")[2]


def _task(data: Mapping[str, Any]) -> str:
    # Ansible prefixes a role's tasks with its name, which stands in its own column here.
    name = str(data.get("task") or data.get("name") or "")
    role = str(data.get("resolved_role") or data.get("role") or "")
    for prefix in (f"{role} : ", f"{_role(data)} : "):
        if role and name.startswith(prefix):
            return name[len(prefix) :]
    return name


def _label(item: Mapping[str, Any]) -> str:
    label = item.get("_ansible_item_label", item.get("item", ""))
    return f"{label}: " if isinstance(label, str | int) and str(label) else ""


def _tail(words: str, lines: int = 3) -> str:
    return "\n".join(words.splitlines()[-lines:])
