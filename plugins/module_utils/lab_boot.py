# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long a lab machine may boot, when it is made once more, and what is told of a boot that did not come through.
Nothing here looks at or changes a machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Tuple

# A container boots in a second.  An emulated machine takes 20 to 60 s, the slowest one seen 66 s on a computer with
# four times more to do than it has processors.
_PATIENCE = {"container": (180.0,), "vm": (420.0,)}

# The same time for two boots.  An emulated boot can hang that went well a minute ago: QEMU did not get its turn while
# the kernel watched one of its timers.
_EMULATED_AND_NEW = (180.0, 240.0)

_LINES = 15
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_PANIC = "Kernel panic - not syncing"
_END = f"end {_PANIC}"


def patience(action: str, kind: str, emulated: bool) -> Tuple[float, ...]:
    """Seconds for each boot that a machine has.

    Only a machine that this very run has created has a second one: it holds nothing yet, and is made afresh for it.
    """
    return _EMULATED_AND_NEW if action == "create" and kind == "vm" and emulated else _PATIENCE[kind]


def lines(console: str) -> list[str]:
    """What a console shows, without colours and empty lines."""
    text = _COLOUR.sub("", console.replace("\r", "\n"))
    return [line.strip() for line in text.splitlines() if line.strip()]


def panicked(console: str) -> bool:
    """Whether a panic is the last that a kernel has said: it never answers again."""
    return any(_END in line for line in lines(console)[-1:])


def last_lines(console: str) -> list[str]:
    """The end of what a console shows; of a panic, what led to it, and not the list of functions that comes after."""
    shown = lines(console)
    if panicked(console):
        begins = [number for number, line in enumerate(shown) if _PANIC in line and _END not in line]
        shown = shown[: begins[-1] + 1] if begins else shown
    return shown[-_LINES:]


def jobs(listed: str) -> Tuple[str, ...]:
    """The units that `systemctl list-jobs` names, each with what is done with it and whether that has begun."""
    rows = [line.split() for line in listed.splitlines()]
    return tuple(f"{row[1]} ({row[2]}, {row[3]})" for row in rows if len(row) == 4)


@dataclass(frozen=True)
class Boot:
    """A boot that did not come through.

    access: why the operator could not log in or the boot was not complete, in the words of who was asked.
    silence: for how many seconds the console had said nothing.
    jobs: what the machine's systemd still waited for, where it could be asked.
    """

    name: str
    seconds: float
    access: str
    console: str
    console_file: str
    silence: float = 0.0
    jobs: Tuple[str, ...] = ()

    def evidence(self) -> str:
        tail = last_lines(self.console)
        why = "its kernel panicked" if panicked(self.console) else self.access
        return "; ".join(
            [
                f"{self.name} did not come through its boot in {self.seconds:.0f} s: {why}",
                *([f"systemd waits for {', '.join(self.jobs)}"] if self.jobs else []),
                f"its console has been silent for {self.silence:.0f} s"
                + (f" and ends with: {' | '.join(tail)}" if tail else " and shows nothing"),
                f"all of it: {self.console_file}",
            ]
        )


def once_more(boot: Boot) -> str:
    return f"{boot.evidence()}. It held nothing yet and was made once more."


def given_up(boots: Tuple[Boot, ...]) -> str:
    """boots: all that the machine had, in their order."""
    more = "" if len(boots) == 1 else f" It was the second boot; of the first one: {boots[0].evidence()}."
    return f"{boots[-1].evidence()}.{more} `bedplate lab reset` or lab_reset.yml makes it afresh, with empty disks."
