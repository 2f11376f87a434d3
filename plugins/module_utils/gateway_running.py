# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the gateway that runs is the gateway that is wanted, and what to do when it is not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Mapping

# The variable in the unit's environment by which a process says from which release of its files it was started.
RELEASE = "BEDPLATE_RELEASE"
# How the lines begin that the unit's helper writes into the journal.
HELPER = "gateway-control:"


@dataclass(frozen=True)
class Unit:
    """What systemd says about the unit; release is what its main process was started from."""

    loaded: bool
    enabled: bool
    active: bool
    needs_reload: bool
    pid: int = 0
    release: str = ""


def unit_from(properties: Mapping[str, str], environment: str = "") -> Unit:
    """environment: the main process's, as /proc shows it."""
    variables = dict(item.split("=", 1) for item in environment.split("\0") if "=" in item)
    return Unit(
        loaded=properties.get("LoadState") == "loaded",
        enabled=properties.get("UnitFileState") == "enabled",
        active=properties.get("ActiveState") == "active",
        needs_reload=properties.get("NeedDaemonReload") == "yes",
        pid=int(properties.get("MainPID") or 0),
        release=variables.get(RELEASE, ""),
    )


def actions(unit: Unit, release: str) -> list[str]:
    """What systemctl has to do, in this order."""
    wanted = []
    if unit.needs_reload or not unit.loaded:
        wanted.append("daemon-reload")
    if not unit.enabled:
        wanted.append("enable")
    if not unit.active:
        # Not `start`: a unit that systemd is about to try again by itself is to be tried now.
        wanted.append("restart")
    elif unit.release != release:
        wanted.append("restart")
    return wanted


def versions_from(text: str) -> dict[str, str]:
    """By discovery service, the version that Envoy runs: from its text statistics, `lds.version_text: "abc"`."""
    found = {}
    for line in text.splitlines():
        name, separator, value = line.partition(": ")
        if separator and name.endswith(".version_text"):
            found[name[: -len(".version_text")]] = value.strip().strip('"')
    return found


def behind(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """The discovery services whose wanted version does not run, sorted."""
    return sorted(name for name, version in wanted.items() if found.get(name) != version)


def listener_errors(config_dump: str) -> list[str]:
    """Why Envoy refused a listener, in its own words: from `/config_dump?resource=dynamic_listeners`."""
    try:
        listeners = json.loads(config_dump).get("configs", [])
    except ValueError:
        return []
    found = [str(_error(listener)) for listener in listeners]
    return sorted({error for error in found if error})


def _error(listener: Mapping[str, Any]) -> Any:
    return listener.get("error_state", {}).get("details", "")


def log_errors(journal: str) -> list[str]:
    """From the service's journal, the last lines that say what went wrong; the access log, in JSON, is too.

    The helper that waits for the service sums up what Envoy said, so where it spoke nothing else is needed.
    """
    lines = [line.strip() for line in journal.splitlines() if not line.startswith("{")]
    summed_up = [line for line in lines if line.startswith(HELPER)]
    if summed_up:
        return [summed_up[-1][len(HELPER) :].strip()]
    loud = [line for line in lines if any(f"[{level}]" in line for level in ("warning", "error", "critical"))]
    return list(dict.fromkeys(loud))[-3:]
