# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every use of apt and dnf on a host shares: their surroundings, and holds."""

from __future__ import annotations

import re
from typing import List, Sequence, Tuple

# Nothing is asked.  needrestart lists only: restarting a container engine, or the driver's own services, would take the
# GPUs from the engine.
QUIET = {
    "LC_ALL": "C",
    "LANGUAGE": "C",
    "DEBIAN_FRONTEND": "noninteractive",
    "APT_LISTCHANGES_FRONTEND": "none",
    "NEEDRESTART_MODE": "l",
}


def hold(manager: str, names: Sequence[str]) -> List[List[str]]:
    if not names:
        return []
    return [["apt-mark", "hold", *names] if manager == "apt" else ["dnf", "--quiet", "versionlock", "add", *names]]


def unhold(manager: str, names: Sequence[str]) -> List[List[str]]:
    if not names:
        return []
    return [["apt-mark", "unhold", *names] if manager == "apt" else ["dnf", "--quiet", "versionlock", "delete", *names]]


def complaint(output: str) -> str:
    """What went wrong, in the manager's own words and one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "Error", "dpkg: error"))] or lines[-3:]
    return " ".join(errors)[:800]


def parse_locks(text: str) -> Tuple[str, ...]:
    """Names of packages in what `dnf versionlock list` prints: "cuda-nvcc-13-0-0:13.0.88-1.*"."""
    return tuple(match.group(1) for match in re.finditer(r"^(\S+)-\d+:\S+$", text, re.MULTILINE))
