# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The services that need a volume: which of them run, and which wait for it."""

from __future__ import annotations

from typing import Callable, List, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.processes import parse_show
from ansible_collections.bedplate.llm.plugins.module_utils.service_drain import Unit
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import Volume

# A command's exit code and what it wrote.
Ask = Callable[[Sequence[str]], Tuple[int, str]]


def patterns(volume: Volume) -> List[str]:
    """As systemctl takes them: a drop-in below bedplate-.service.d counts for every unit whose name begins so."""
    return [name.replace("-.service", "-*.service") for name in volume.services]


def running(volume: Volume, ask: Ask) -> List[str]:
    """Those that are up, or on their way, and have to go before the volume does."""
    _code, text = ask(
        ["systemctl", "list-units", "--all", "--plain", "--no-legend", "--type=service", *patterns(volume)]
    )
    return [unit.name for unit in _units(_first_words(text), ask) if unit.is_up]


def waiting(volume: Volume, ask: Ask) -> List[str]:
    """Those that a boot would have started: enabled, and not up."""
    argv = ["systemctl", "list-unit-files", "--plain", "--no-legend", "--type=service", "--state=enabled"]
    _code, text = ask([*argv, *patterns(volume)])
    names = [name for name in _first_words(text) if "@." not in name]
    return [unit.name for unit in _units(names, ask) if unit.is_there and not unit.is_up]


def _units(names: Sequence[str], ask: Ask) -> List[Unit]:
    if not names:
        return []
    _code, text = ask(["systemctl", "show", "--property=Id,LoadState,ActiveState", *names])
    shown = [parse_show(block) for block in text.split("\n\n") if block.strip()]
    return [Unit(one.get("Id", ""), one.get("LoadState", ""), one.get("ActiveState", "")) for one in shown]


def _first_words(text: str) -> List[str]:
    return [line.split()[0] for line in text.splitlines() if line.split()[:1] and ".service" in line.split()[0]]
