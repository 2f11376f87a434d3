# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which process of the unit is the engine: the main one, or in a container the child of the one that watches it."""

from __future__ import annotations

from pathlib import Path

WATCHER = "conmon"


def engine_pid(main_pid: int, proc: Path = Path("/proc")) -> int:
    """The engine's process; 0 when there is none."""
    try:
        if (proc / f"{main_pid}/comm").read_text().strip() != WATCHER:
            return main_pid
        children = (proc / f"{main_pid}/task/{main_pid}/children").read_text().split()
    except OSError:
        return 0
    return int(children[0]) if children else 0
