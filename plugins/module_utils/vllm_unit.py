# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Text of the engine's unit: quoting as systemd reads it, and the release that a unit stands for."""

from __future__ import annotations

import hashlib
import re
from typing import Sequence

_PLAIN = re.compile(r"^[A-Za-z0-9_@+=:,./-]+$")


def _quote(text: str, is_command: bool) -> str:
    """systemd.service(5), "Command lines": percent starts a specifier, and in commands a dollar starts a variable."""
    if any(ord(character) < 32 for character in text):
        raise ValueError(f"{text!r} has a control character, which a unit file cannot carry")
    if _PLAIN.match(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if is_command:
        escaped = escaped.replace("$", "$$")
    return f'"{escaped}"'


def exec_line(argv: Sequence[str]) -> str:
    """The value of ExecStart= for exactly these arguments, one to a line for whoever reads the unit or its diff."""
    lines = [_quote(argv[0], True)]
    for argument in argv[1:]:
        word = _quote(argument, True)
        if argument.startswith("-"):
            lines.append(word)
        else:
            lines[-1] += " " + word
    return " \\\n    ".join(lines)


def environment_line(name: str, value: str) -> str:
    """The value of Environment= for one variable."""
    return _quote(f"{name}={value}", False)


def release_of(unit: str) -> str:
    """Digest of what the unit says, its comments left out: a reworded comment is no reason to restart an engine."""
    said = [line for line in unit.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return hashlib.sha256("\n".join(said).encode("utf-8")).hexdigest()[:12]
