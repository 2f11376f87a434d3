# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What to do so that the engine's unit runs as configured: the decision half of the `vllm_service` module.

The decision rests on what is found on the host and never on whether an earlier task reported a change, so that a run
that was cut off anywhere is completed by the next one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import List, Sequence

SYSUSERS = "sysusers"
TMPFILES = "tmpfiles"
RELOAD = "daemon-reload"
ENABLE = "enable"
START = "start"
RESTART = "restart"


@dataclass(frozen=True)
class State:
    """What was found. `running_release` is what the serving process was started with, empty when none serves."""

    user_exists: bool
    directories_right: bool
    load_state: str
    active_state: str
    unit_file_state: str
    needs_reload: bool
    running_release: str = ""


def decide(state: State, wanted_release: str, restart_when_changed: bool) -> List[str]:
    """The steps, in the order in which they have to be taken; an empty list when all is as wanted."""
    steps = []
    if not state.user_exists:
        steps.append(SYSUSERS)
    if not state.directories_right:
        steps.append(TMPFILES)
    # Not without need: a daemon-reload re-applies device rules and can take a GPU away from a running container.
    if state.load_state == "not-found" or state.needs_reload:
        steps.append(RELOAD)
    if state.unit_file_state not in ("enabled", "enabled-runtime"):
        steps.append(ENABLE)
    if state.active_state == "active":
        if state.running_release != wanted_release and restart_when_changed:
            steps.append(RESTART)
    elif state.active_state == "activating" and state.needs_reload and restart_when_changed:
        # It is on its way up with the old settings: waiting for it would waste minutes.
        steps.append(RESTART)
    else:
        steps.append(START)
    return steps


def restart_pending(state: State, wanted_release: str, steps: Sequence[str]) -> bool:
    """Whether an engine goes on serving with older settings than those on the disk."""
    return state.active_state == "active" and state.running_release != wanted_release and RESTART not in steps


# The end of a traceback: "ValueError: To serve at least one request ...", with vLLM's log prefix or without.
_EXCEPTION = re.compile(r"\b(?:[a-z_]\w*\.)*([A-Z]\w*(?:Error|Exception|Exit))(?:\(|: )\s*(.+)")
_PARSER = re.compile(r"^(?:vllm(?: serve)?|api_server\.py).*?: error: (.+)")
_PREVENTED = re.compile(
    r"^bedplate-vllm\.service: (Failed (?:to(?! start bedplate)|at) .+|.*(?:oom-kill|OOM killer).*)"
)
# Podman's own, before there is an engine.
_PODMAN = re.compile(r"^(?:Error|error): (.+)")
_NOT_READY = re.compile(r"^vllm-endpoint: not ready: (?!the engine ended)(.+)")
_EXITED = re.compile(r"^bedplate-vllm\.service: (Main process exited, .+)")
# Said by a process about another one that failed first; it explains nothing.
_ECHO = ("Engine core initialization failed", "Engine core proc", "See stack trace", "See root cause")


def explain_failure(journal: Sequence[str]) -> str:
    """The engine's own reason for not starting, as one sentence out of its last lines of journal.

    The first real exception is the cause, later ones are echoes of it in other processes.  Without one, it is what
    the argument parser or podman said, what systemd or the kernel did, what the helper that waits for the engine saw,
    and at last how the process ended.
    """
    for pattern in (_EXCEPTION, _PARSER, _PODMAN, _PREVENTED, _NOT_READY, _EXITED):
        for line in journal:
            match = pattern.search(line)
            if match and not any(echo in line for echo in _ECHO):
                return ": ".join(part.strip() for part in match.groups())[:600]
    last = [line.strip() for line in journal if line.strip()]
    return last[-1][:600] if last else "it wrote nothing to the journal"
