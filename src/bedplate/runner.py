"""Running a playbook of the collection with ansible-runner.

Nothing of a run stays on disk but our own log: ansible-runner's folder is a temporary one, 0700, removed afterwards.
Ansible itself censors the results of `no_log` tasks before ansible-runner sees them.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from bedplate import processes
from bedplate.collection import program
from bedplate.errors import INTERRUPTED, UserError
from bedplate.events import Event, parse
from bedplate.report import Report
from bedplate.runlog import RunLog

# How often ansible-runner lets us look whether we were asked to stop.
_POLL = 0.5
# How long Ansible and its workers may take to end on SIGTERM before they are killed.
_GRACE = 10.0

ENDED_BY_SIGNAL = -1

Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Run:
    """What to run: a playbook by its collection name or path, on an inventory."""

    playbook: str
    inventory: Path
    limit: str = ""
    check: bool = False
    diff: bool = False
    tags: str = ""
    extra_vars: Sequence[str] = field(default_factory=tuple)


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP as a flag for as long as the context lasts; the second one asks for an end at once."""

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.count = 0
        self.at = 0.0

    def __enter__(self) -> Interrupts:
        self._before = {number: signal.signal(number, self._caught) for number in self._NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.count > 0

    def _caught(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        self.at = self.at or time.monotonic()


def run(what: Run, listeners: Sequence[Listener], log: RunLog | None, interrupts: Interrupts) -> Report:
    """Run to the end, telling every event to `listeners`; a failed task is in the report, not an exception."""
    variables, files = extra_vars(what.extra_vars)
    from ansible_runner.interface import init_runner  # 0.3 s, so only when a playbook runs

    report = Report()

    def note(text: str) -> None:
        if log is not None:
            log.write(text)

    def handle(raw: dict[str, Any]) -> bool:
        if log is not None:
            log.raw(raw)
        event = parse(raw)
        if event is not None:
            for listener in (report.add, *listeners):
                listener(event)
        return False  # ansible-runner need not write it to its folder

    with tempfile.TemporaryDirectory(prefix="bedplate-") as folder, _ended_with_us() as ender:
        runner = init_runner(
            private_data_dir=folder,
            project_dir=str(Path.cwd()),  # so that ./ansible.cfg counts, as it does for plain ansible-playbook
            playbook=what.playbook,
            inventory=str(what.inventory),
            limit=what.limit or None,
            tags=what.tags or None,
            cmdline=shlex.join(_switches(what, files)),
            extravars=variables,
            envvars=environment(os.environ),
            event_handler=handle,
            cancel_callback=lambda: ender.stop(interrupts),
            status_handler=_forget_environment,
            quiet=True,
            fact_cache_type="memory",
            settings={"pexpect_timeout": _POLL, "suppress_output_file": True},
        )
        # ansible-runner would take the program from PATH.
        runner.config.command[0] = str(program("ansible-playbook"))
        note("$ " + shlex.join(runner.config.command))
        runner.run()
    # No exit status: a signal ended it, ours or somebody else's.
    report.rc = runner.rc if isinstance(runner.rc, int) else ENDED_BY_SIGNAL
    report.interrupted = bool(interrupts)
    note(f"ansible-playbook ended with {report.rc}")
    return report


def ask(what: Run, listener: Listener, interrupts: Interrupts | None = None) -> Report:
    """A run that only looks: without a log or progress; UserError when the user interrupts it."""
    if interrupts is None:
        with Interrupts() as own:
            report = run(what, [listener], None, own)
    else:
        report = run(what, [listener], None, interrupts)
    if report.interrupted:
        raise UserError("Interrupted.", INTERRUPTED)
    return report


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Ansible's settings that the collection counts on; what the user has set stays, except the output's form."""
    wanted = {
        "ANSIBLE_PIPELINING": "True",  # a third of the time of a task, and no module file on the host
        "ANSIBLE_FORKS": "20",
        "ANSIBLE_PYTHON_INTERPRETER": "auto_silent",
        # ansible-runner switches the check of host keys off unless told otherwise.
        "ANSIBLE_HOST_KEY_CHECKING": "True",
    }
    fixed = {"ANSIBLE_NOCOWS": "1", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_STDOUT_CALLBACK": "default"}
    return {name: given.get(name, value) for name, value in wanted.items()} | fixed


def extra_vars(arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """`-e` as Ansible reads it: NAME=VALUE, a JSON object, or @FILE.

    Values go to a file that ansible-runner removes, so that they do not show in the process list a second time.
    """
    variables: dict[str, Any] = {}
    files: list[str] = []
    for argument in arguments:
        if argument.startswith("@"):
            path = Path(argument[1:]).expanduser().absolute()
            if not path.is_file():
                raise UserError(f"-e {argument}: there is no file {path}.")
            files.append(f"@{path}")
        elif argument.lstrip().startswith("{"):
            try:
                variables.update(json.loads(argument))
            except ValueError as error:
                raise UserError(f"-e {argument}: not a JSON object: {error}.") from error
        else:
            name, sign, value = argument.partition("=")
            if not sign or not name.isidentifier():
                raise UserError(f"-e {argument}: expected NAME=VALUE, a JSON object or @FILE.")
            variables[name] = value
    return variables, files


def _forget_environment(status: Mapping[str, Any], runner_config: Any) -> None:
    """ansible-runner writes down the environment (with BEDPLATE_TOKEN) for later; nobody here will read it."""
    if status["status"] == "running":  # written by now, and Ansible not yet started
        (Path(runner_config.artifact_dir) / "command").unlink(missing_ok=True)


def _switches(what: Run, files: Sequence[str]) -> list[str]:
    switches = [word for file in files for word in ("-e", file)]
    return switches + ["--check"] * what.check + ["--diff"] * what.diff


class _Ender:
    """Ends Ansible on an interrupt.

    ansible-runner would kill the process group at once, and Ansible's workers are in groups of their own, with whatever
    they have started.  So: SIGTERM to Ansible, which hands it to its workers; what is left after a while is killed.
    """

    def __init__(self) -> None:
        self._others = set(processes.children(os.getpid()))
        self._tree: list[processes.Process] = []

    def stop(self, interrupts: Interrupts) -> bool:
        """ansible-runner's cancel_callback: True makes it kill."""
        if not interrupts:
            return False
        if not self._tree:
            self.begin()
        return interrupts.count > 1 or time.monotonic() - interrupts.at > _GRACE

    def begin(self) -> None:
        ours = [child for child in processes.children(os.getpid()) if child not in self._others]
        self._tree = [*ours, *(below for child in ours for below in processes.descendants(child.pid))]
        processes.send(ours, signal.SIGTERM)

    def sweep(self) -> None:
        processes.end(self._tree)


@contextmanager
def _ended_with_us() -> Iterator[_Ender]:
    ender = _Ender()
    try:
        yield ender
    except BaseException:
        ender.begin()
        raise
    finally:
        ender.sweep()
