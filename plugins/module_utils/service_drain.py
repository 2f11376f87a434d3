# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Taking services out and bringing them back: the decision half of the `service_drain` module.

What was taken out is written down on the host first, so that a run that was cut off anywhere is completed by the next
one, and a service that somebody else stopped stays stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence, Tuple

# On tmpfs: after a reboot, services start by themselves.
MARKER = "/run/bedplate/drained"


@dataclass(frozen=True)
class Unit:
    name: str
    load_state: str
    active_state: str

    @property
    def is_there(self) -> bool:
        return self.load_state not in ("not-found", "masked", "")

    @property
    def is_up(self) -> bool:
        """Also on its way up, or between two attempts: it may take a GPU at any moment."""
        return self.is_there and self.active_state not in ("inactive", "failed")


@dataclass(frozen=True)
class Steps:
    """marked: what the marker has to hold before the first of the other steps."""

    marked: Tuple[str, ...] = ()
    stop: Tuple[str, ...] = ()
    start: Tuple[str, ...] = ()


def parse_marker(text: str) -> Tuple[str, ...]:
    return tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def drain(units: Sequence[Unit], marked: Sequence[str], also: Sequence[str]) -> Steps:
    """Stop what is up, and remember it beside what was stopped before: by the marker, or `also` before a reboot."""
    stop = tuple(unit.name for unit in units if unit.is_up)
    return Steps(marked=tuple(dict.fromkeys([*marked, *also, *stop])), stop=stop)


def admit(units: Sequence[Unit], marked: Sequence[str], also: Sequence[str]) -> Steps:
    """Start what was drained (by the marker, or `also` before a reboot cleared it), and join what is on its way up.

    A unit that somebody else stopped is left alone.  The marker stays until all of them are up.
    """
    wanted = {*marked, *also}
    start = tuple(
        unit.name
        for unit in units
        if unit.is_there and unit.active_state != "active" and (unit.name in wanted or unit.is_up)
    )
    return Steps(marked=tuple(marked), start=start)
