"""One command that runs playbooks: its log, its progress, how it is interrupted, and how its result is told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import typer

from bedplate import runner
from bedplate.activity import duration
from bedplate.errors import COULD_NOT_RUN, FAILED, INTERRUPTED, OK, UserError
from bedplate.events import Summary
from bedplate.progress import Progress, progress_for
from bedplate.report import Report
from bedplate.runlog import RunLog

_OUTCOMES = {OK: "ok", FAILED: "failed", COULD_NOT_RUN: "could-not-run", INTERRUPTED: "interrupted"}


@dataclass
class Session:
    command: str
    site: str
    as_json: bool
    log: RunLog
    progress: Progress
    interrupts: runner.Interrupts

    def play(self, what: runner.Run, listeners: Sequence[runner.Listener] = ()) -> Report:
        return runner.run(what, [self.progress.event, *listeners], self.log, self.interrupts)

    def say(self, text: str, source: str = "") -> None:
        """A line of our own, among those of Ansible."""
        self.log.write(f"{source}: {text}" if source else text)
        self.progress.text(text, source)


@dataclass
class Ending:
    """What a session came to; the command fills it in, and the session tells it once the progress display is gone."""

    report: Report
    exit_code: int
    summary: str = ""
    extra: dict[str, Any] | None = None
    quiet: bool = False  # the command prints what it found; that it went well need not be said
    notes: Sequence[str] = ()  # lines below the summary of what went well
    verdicts: bool = True  # whether to say here which checks do not hold


Body = Callable[[Session], Ending]


def run_session(command: str, site: str, as_json: bool, body: Body) -> Ending:
    """Carry out `body` and tell how it ended; the exit code is in the returned ending."""
    with _opened(command, site, as_json) as session:
        session.progress.start({"command": command, "site": site, "log": str(session.log.path)})
        try:
            ending = body(session)
        except UserError as error:
            ending = Ending(Report(errors=[str(error)]), error.exit_code)
        if session.interrupts:
            ending.exit_code = INTERRUPTED
        session.log.write(f"exit code {ending.exit_code}")
        session.progress.result(
            {
                "outcome": _OUTCOMES.get(ending.exit_code, "failed"),
                "exit_code": ending.exit_code,
                **ending.report.as_dict(),
                **(ending.extra or {}),
                "log": str(session.log.path),
            }
        )
    if not as_json:
        for line in _closing_lines(session, ending):
            typer.echo(line, err=True)
    return ending


def leave(ending: Ending) -> None:
    raise typer.Exit(ending.exit_code)


@contextmanager
def _opened(command: str, site: str, as_json: bool) -> Iterator[Session]:
    with RunLog(command, site) as log, runner.Interrupts() as interrupts, progress_for(as_json) as progress:
        yield Session(command, site, as_json, log, progress, interrupts)


def _closing_lines(session: Session, ending: Ending) -> list[str]:
    command, passed = session.command, duration(session.progress.elapsed())
    if ending.exit_code == OK:
        summary = f"{ending.summary or f'{command} of {session.site} is done'} ({passed})"
        return [] if ending.quiet else [summary, *ending.notes]
    if ending.exit_code == INTERRUPTED:
        heading = (
            f"{command} of {session.site} was interrupted after {passed}; everything that it had started has ended."
        )
        return [heading, f"Log: {session.log.path}"]
    verb = "failed" if ending.exit_code == FAILED else "could not run"
    lines = [f"{command} of {session.site} {verb} after {passed}:"]
    lines += [f"  {line}" for text in ending.report.explanation(ending.verdicts) for line in text.splitlines()]
    if len(lines) == 1:
        lines.append(f"  {ending.summary or f'ansible-playbook ended with {ending.report.rc}; the log says more'}")
    return [*lines, f"Log: {session.log.path}"]


def hosts_line(summary: Summary | Report) -> str:
    """`llm1: 12 changed, 40 unchanged`, for each host."""
    return "; ".join(
        f"{host}: {counts.changed} changed, {counts.ok - counts.changed} unchanged"
        for host, counts in summary.hosts.items()
    )


def is_interactive() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()
