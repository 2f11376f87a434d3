# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long a lab machine may boot, when it is made once more, and what is told of a boot that did not come through."""

from __future__ import annotations

import re
from typing import List, Optional, Tuple

# A container boots in a second.  An emulated machine takes 20 to 60 s, and five minutes on a computer that has many
# times more to do than it has processors.
_PATIENCE = {"container": (180.0,), "vm": (420.0,)}

# The same time for two boots: one emulated boot of some hundreds hung, of an image that booted before and after.
_EMULATED_AND_NEW = (180.0, 240.0)

_LINES = 15
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_PANIC = "Kernel panic - not syncing"


def patience(action: str, kind: str, emulated: bool) -> Tuple[float, ...]:
    """Seconds for each boot that a machine has.

    Only a machine that this very run has created has a second one: it holds nothing yet, and is made afresh for it.
    """
    return _EMULATED_AND_NEW if action == "create" and kind == "vm" and emulated else _PATIENCE[kind]


def lines(console: str) -> List[str]:
    """What a console shows, without colours and empty lines."""
    text = _COLOUR.sub("", console.replace("\r", "\n"))
    return [line.strip() for line in text.splitlines() if line.strip()]


def tail(console: str) -> str:
    return " | ".join(lines(console)[-_LINES:]) or "nothing"


def panic(console: str) -> Optional[str]:
    """The kernel's last words: what panicked never answers again, and nobody has to wait for it."""
    return next((line for line in lines(console) if _PANIC in line), None)
