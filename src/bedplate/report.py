"""The result of a run, collected from its events, and what it means as an exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check

from bedplate.errors import COULD_NOT_RUN, FAILED, INTERRUPTED, OK
from bedplate.events import Event, HostSummary, Summary, TaskEnded, Text


@dataclass
class Report:
    """Listens to a run (`add` for every event) and holds what it came to once `finish` was called."""

    failures: list[TaskEnded] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    hosts: Mapping[str, HostSummary] = field(default_factory=dict)
    checks: dict[str, dict[str, Check]] = field(default_factory=dict)
    rc: int = 0
    interrupted: bool = False

    def add(self, event: Event) -> None:
        if isinstance(event, TaskEnded):
            if event.status in ("failed", "unreachable"):
                self.failures.append(event)
            for check in event.checks:
                # By id: a role's checks appear once more when a second task asserts them.
                self.checks.setdefault(event.host, {})[check.id] = check
        elif isinstance(event, Summary):
            self.hosts = event.hosts
        elif isinstance(event, Text) and event.kind == "error":
            self.errors.append(event.text)
        elif isinstance(event, Text) and event.text.startswith("Origin: ") and self.errors:
            self.errors[-1] += f" ({event.text})"

    @property
    def unreachable(self) -> list[str]:
        return sorted({failure.host for failure in self.failures if failure.status == "unreachable"})

    @property
    def failing_checks(self) -> list[tuple[str, Check]]:
        return [(host, check) for host, checks in self.checks.items() for check in checks.values() if not check.ok]

    @property
    def changed(self) -> int:
        return sum(summary.changed for summary in self.hosts.values())

    def rollout_exit_code(self) -> int:
        """0 done, 1 a task or check failed on a host, 2 it could not be carried out (host unreachable, nothing ran)."""
        if self.interrupted:
            return INTERRUPTED
        if self.unreachable or not self.hosts:
            return COULD_NOT_RUN
        if self.rc != 0:
            return FAILED if self.failures else COULD_NOT_RUN
        return OK

    def verify_exit_code(self) -> int:
        """0 all checks hold, 1 some do not, 2 the report is not complete, so it says nothing either way."""
        if self.interrupted:
            return INTERRUPTED
        could_not_look = [failure for failure in self.failures if not failure.is_verdict]
        without_checks = set(self.hosts) - set(self.checks)
        if could_not_look or not self.checks or without_checks:
            return COULD_NOT_RUN
        if self.failing_checks:
            return FAILED
        return OK if self.rc == 0 else COULD_NOT_RUN

    def explanation(self, verdicts: bool = True) -> list[str]:
        """Why it did not go well: a line for each failure (host, role, task, message), else Ansible's own errors.

        verdicts: whether to name the checks that do not hold, too; `verify` shows them in its table.
        """
        failures = [failure for failure in self.failures if verdicts or not failure.is_verdict]
        lines = [failure_sentence(failure) for failure in failures]
        if not self.failures:
            lines = list(self.errors)
        if not self.failures and not lines and self.rc < 0 and not self.interrupted:
            lines = ["Ansible was ended from outside (`bedplate lab down` ends a `lab up` that is still running)."]
        if not lines and self.rc == 0 and not self.hosts:
            lines = ["No host was selected: the site has nobody in the group gpu_hosts, or --limit took all away."]
        return lines

    def as_dict(self) -> dict[str, Any]:
        return {
            "hosts": {host: vars(summary) for host, summary in self.hosts.items()},
            "checks": [
                {"host": host, **check.as_dict()} for host, checks in self.checks.items() for check in checks.values()
            ],
            "failures": [
                {"host": end.host, "role": end.role, "task": end.task, "status": end.status, "message": end.message}
                for end in self.failures
            ],
            "errors": self.errors,
        }


def failure_sentence(failure: TaskEnded) -> str:
    if failure.status == "unreachable":
        return f"{failure.host}: not reachable over ssh: {_one_line(failure.message)}"
    where = " · ".join(part for part in (failure.host, failure.role, failure.task) if part)
    return f"{where}: {failure.message}"


def _one_line(message: str) -> str:
    return " ".join(message.split())
