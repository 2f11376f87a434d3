# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who is changing a lab right now.  `up` records its playbook's process; a `down` ends that process before it cleans,
and a second `up` is refused.  A process is named by boot, number and start, so that no stranger is ever ended."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Iterable, Mapping


def playbook_process(chain: Iterable[tuple[int, str]]) -> int | None:
    """The process of the playbook that a module runs in: the outermost of the nearest Ansible processes.

    `chain` is the module and its ancestors, nearest first.  Ansible's workers are forks with the same command line.
    """
    found = None
    for process, command in chain:
        if any(PurePath(word).name.startswith("ansible-") for word in command.split()[:2]):
            found = process
        elif found is not None:
            break
    return found


def other_session(record: Mapping[str, Any] | None, alive: bool, own: Iterable[int]) -> int | None:
    """The process of somebody else's live session, or None.

    alive: whether the recorded process still lives.
    own: the numbers of the caller and its ancestors.
    """
    if record is None or not alive:
        return None
    process = int(record["process"])
    return None if process in set(own) else process
