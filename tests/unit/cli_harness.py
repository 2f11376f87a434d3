"""Small sites and playbooks that run on this machine alone, for the tests of the command line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from bedplate.events import Event
from bedplate.report import Report
from bedplate.runlog import RunLog
from bedplate.runner import Interrupts, Run, run

LOCAL_HOST = """
gpu_hosts:
  hosts:
    here:
      ansible_connection: local
      ansible_python_interpreter: "{{ ansible_playbook_python }}"
"""


def local_site(folder: Path, hosts: str = LOCAL_HOST) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hosts.yml").write_text(hosts, encoding="utf-8")
    return folder


def play(
    playbook: Path, site: Path, log_folder: Path, listeners: Sequence = (), extra_vars: Sequence[str] = ()
) -> tuple[Report, list[Event], str]:
    """Run a playbook for real; its report, its events and the text of its log."""
    events: list[Event] = []
    with Interrupts() as interrupts, RunLog("test", "here", log_folder) as log:
        what = Run(str(playbook), site, extra_vars=tuple(extra_vars))
        report = run(what, [events.append, *listeners], log, interrupts)
    return report, events, log.path.read_text(encoding="utf-8")


class Sampler:
    """Calls `look` every few milliseconds for as long as the context lasts."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def _loop(self) -> None:
        while not self._stop.wait(0.05):
            self._look()

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
