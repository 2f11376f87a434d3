# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a unit wrote since its start, out of the journal."""

from __future__ import annotations

import os
import subprocess
from typing import Iterator


def since_start(invocation: str) -> Iterator[str]:
    """Line by line, since a long service wrote more than anybody should hold; nothing when the journal has nothing.

    invocation: the unit's InvocationID, another one for each start.  Journald sets the field by the writer's unit, so
    that nobody else's words get in.
    """
    if not invocation:
        return
    command = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"_SYSTEMD_INVOCATION_ID={invocation}"]
    environment = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C"}
    try:
        reader = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return
    with reader:
        try:
            for line in reader.stdout or ():
                yield line.decode("utf-8", "replace")
        finally:
            reader.kill()
