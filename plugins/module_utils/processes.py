# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a process is called, which unit of systemd it belongs to, and what systemd says of units."""

from __future__ import annotations

import re
from typing import Dict

_UNIT = re.compile(r"/([^/\n]+\.(?:service|scope))(?=/|$)", re.MULTILINE)
_LONGEST_COMMAND = 160


def parse_unit(cgroup: str) -> str:
    """The innermost service of a process, else its scope, by its /proc/<pid>/cgroup; empty when it has neither."""
    units = _UNIT.findall(cgroup)
    services = [unit for unit in units if unit.endswith(".service")]
    return str((services or units or [""])[-1])


def parse_command(cmdline: str, comm: str) -> str:
    """The command line, shortened; in brackets the name of a process that has none."""
    words = " ".join(word for word in cmdline.split("\0") if word)
    line = " ".join(words.split())
    if not line:
        return f"[{comm.strip()}]"
    return line if len(line) <= _LONGEST_COMMAND else f"{line[:_LONGEST_COMMAND]}…"


def parse_show(text: str) -> Dict[str, str]:
    """The properties that `systemctl show` and `loginctl show-session` print; empty ones included."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
