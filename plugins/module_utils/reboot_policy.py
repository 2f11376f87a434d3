# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What forbids a reboot although it is allowed: somebody at work on the host, a lock, a process that holds a GPU.

Nobody is thrown out and nothing is killed: each is named, and the operator decides.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Mapping, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_holders import Found
from ansible_collections.bedplate.llm.plugins.module_utils.processes import parse_show

SESSION_PROPERTIES = ("Id", "Name", "TTY", "Class", "State", "RemoteHost", "Scope", "Timestamp")
_OWN_SCOPE = re.compile(r"/(session-[^/\n]+\.scope)(?=/|$)", re.MULTILINE)


@dataclass(frozen=True)
class Session:
    scope: str
    user: str
    tty: str
    remote: str
    since: str

    @property
    def sentence(self) -> str:
        origin = f" from {self.remote}" if self.remote else ""
        return f"{self.user} on {self.tty}{origin} since {self.since}"


@dataclass(frozen=True)
class Inhibitor:
    who: str
    why: str
    pid: int

    @property
    def sentence(self) -> str:
        return f"{self.who} (process {self.pid}): {self.why or 'it does not say why'}"


def parse_sessions(shown: str) -> Tuple[Session, ...]:
    """People at work: sessions with a terminal, out of `loginctl show-session`, one block each.

    Not those that are closing, nor those without a terminal: transfers, and other runs of Ansible.
    """
    blocks = [parse_show(block) for block in shown.split("\n\n")]
    return tuple(
        Session(block.get("Scope", ""), block.get("Name", ""), block["TTY"], block.get("RemoteHost", ""), _since(block))
        for block in blocks
        if block.get("TTY") and block.get("Class", "").startswith("user") and block.get("State") != "closing"
    )


def _since(block: Mapping[str, str]) -> str:
    return block.get("Timestamp", "") or "an unknown time"


def own_scope(cgroup: str) -> str:
    """The session that brought this module, by its /proc/self/cgroup; empty when it is in none."""
    match = _OWN_SCOPE.search(cgroup)
    return match[1] if match else ""


def parse_inhibitors(reply: str) -> Tuple[Inhibitor, ...]:
    """Locks that block a shutdown, out of logind's ListInhibitors as `busctl --json=short` prints it.

    A lock of mode "delay" only asks for some seconds, which logind itself grants.
    """
    found = []
    for what, who, why, mode, _uid, pid in json.loads(reply)["data"][0]:
        if "shutdown" in what.split(":") and mode.startswith("block"):
            found.append(Inhibitor(who, why, pid))
    return tuple(found)


def others(sessions: Sequence[Session], own: str) -> Tuple[Session, ...]:
    """Sessions of anybody but the operator: the user of our own session, from the same address."""
    mine: Optional[Session] = next((session for session in sessions if own and session.scope == own), None)
    return tuple(
        session for session in sessions if mine is None or (session.user, session.remote) != (mine.user, mine.remote)
    )


def session_check(found: Sequence[Session], problem: str, allowed: bool) -> Check:
    names = "; ".join(session.sentence for session in found)
    if not found and not problem:
        return Check("reboot.nobody-at-work", True, "Nobody else is at work on the host.")
    reason = f"It is not known who is at work: {problem}." if problem else f"A reboot would end the work of {names}."
    return Check(
        "reboot.nobody-at-work",
        allowed,
        f"{reason} (reboot_sessions_allowed permits it.)" if allowed else reason,
        "" if allowed else "ask them to log out, or permit it with reboot_sessions_allowed: true.",
    )


def inhibitor_check(found: Sequence[Inhibitor], problem: str) -> Check:
    if problem:
        return Check(
            "reboot.not-inhibited", False, f"It is not known who forbids a shutdown: {problem}.", "mend logind first."
        )
    if found:
        names = "; ".join(inhibitor.sentence for inhibitor in found)
        return Check(
            "reboot.not-inhibited",
            False,
            f"A lock forbids to shut the host down: {names}.",
            "wait until it is over; `systemd-inhibit --list` on the host shows it.",
        )
    return Check("reboot.not-inhibited", True, "No lock forbids to shut the host down.")


def holder_check(found: Found, excused: Sequence[str]) -> Check:
    """Whether nobody but the excused units holds a GPU."""
    strangers = [holder for holder in found.holders if holder.unit not in excused]
    if strangers:
        return Check(
            "reboot.gpus-free",
            False,
            f"GPUs are in use: {'; '.join(holder.sentence for holder in strangers)}.",
            "end it in its own way, or name a unit that may be ended in reboot_harmless_units; nothing is killed here.",
        )
    if found.unseen:
        pids = ", ".join(map(str, found.unseen[:10]))
        return Check(
            "reboot.gpus-free",
            False,
            f"Whether GPUs are in use is not known: processes {pids} cannot be looked at.",
            "look as root of the host and not of a container.",
        )
    return Check("reboot.gpus-free", True, "No other process holds a GPU.")
