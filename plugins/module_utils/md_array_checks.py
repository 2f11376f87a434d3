# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has to hold of a RAID array that is in use, as checks: pure functions of what was found on the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_decision import ASSEMBLE, CREATE, Decision
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_declared import Array
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_found import Disk, Running

_ROLE = "md_array"
# In /proc and /sys the kernel counts these sectors.
_SECTOR = 512


@dataclass(frozen=True)
class State:
    """One array as it was found.

    live: as it runs, when it is the declared one.  leads_to: what its stable name leads to; empty without one.
    configuration, configured: mdadm's file, and whether it knows the array.
    """

    decision: Decision
    disks: Tuple[Disk, ...]
    live: Optional[Running]
    leads_to: str = ""
    configuration: str = ""
    configured: bool = True


def of_array(array: Array, state: State) -> List[Check]:
    """Every check of one array; of one that does not run only the first says anything."""
    live = state.live
    if live is None:
        made = {CREATE: f"{array.name} was not made yet", ASSEMBLE: f"{array.name} is not running, its disks are whole"}
        reason = state.decision.sentence or made.get(state.decision.action, f"{array.name} does not run")
        return [Check(_id(array, "there"), False, reason, "do what the reason says, or roll the site out")]
    return [
        Check(
            _id(array, "there"),
            True,
            f"{array.name} runs as {live.path}: raid{array.level} of {len(array.legs)} disks, UUID {live.uuid}",
        ),
        _whole(array, state, live),
        *([_bitmap(array, live)] if array.level == 1 else []),
        _found_by_name(array, state, live),
        _boot(array, state),
        *([_alike(array, live)] if live.mismatches is not None else []),
    ]


def waiting(array: Array, state: State) -> List[str]:
    """Checks that fail for no other reason than that data are still being copied: nobody can do anything but wait."""
    return [_id(array, "whole")] if state.live and state.live.filling else []


def _whole(array: Array, state: State, live: Running) -> Check:
    missing = _missing(state, live)
    if live.filling:
        reason = f"{array.name} reads and writes, and its new disk is being filled{_progress(live)}"
        remedy = "wait; until then the data are on one disk less than declared"
    elif live.degraded or missing:
        what = "; ".join(missing) or f"{live.degraded} of its {live.places} places are empty"
        reason = f"{array.name} reads and writes with {live.places - live.degraded} of {live.places} disks: {what}"
        remedy = (
            "put a new disk in, declare it in md_arrays in place of the failed one (device, serial, size) and roll out;"
            f" was it only unplugged, `mdadm --manage {live.path} --remove failed` and roll out, which takes it back"
        )
    elif live.action == "resync":
        reason, remedy = f"{array.name} is whole, and its disks are made alike for the first time{_progress(live)}", ""
    else:
        reason, remedy = f"all {live.places} disks of {array.name} take part", ""
    return Check(_id(array, "whole"), not (live.degraded or missing), reason, remedy)


def _missing(state: State, live: Running) -> List[str]:
    found = [f"{member} failed" for member in live.failed]
    members = {member.path for member in live.members}
    for disk in state.disks:
        if disk.unreadable and disk.device.path not in members:
            found.append(disk.unreadable)
        elif not disk.device.path:
            found.append(f"{disk.device.given} is not there")
        elif disk.device.path not in members:
            found.append(f"{disk.device.path} (serial number {disk.device.serial}) does not take part")
    return found


def _progress(live: Running) -> str:
    if not live.total:
        return ""
    left = (live.total - live.done) * _SECTOR >> 20
    return f" ({100 * live.done // live.total} %, {left} MiB to go)"


def _bitmap(array: Array, live: Running) -> Check:
    kind = "internal" if array.bitmap else "none"
    return Check(
        _id(array, "bitmap"),
        live.bitmap == array.bitmap,
        f"{array.name} {'notes' if live.bitmap else 'does not note'} where its disks may differ",
        f"`mdadm --grow {live.path} --bitmap={kind}` on the host, once nothing is being copied",
    )


def _found_by_name(array: Array, state: State, live: Running) -> Check:
    return Check(
        _id(array, "found-by-name"),
        state.leads_to == live.path,
        f"{array.device} leads to {state.leads_to or 'nothing'}, the array is {live.path}",
        f"`udevadm trigger {live.path}` on the host; volumes use this name",
    )


def _boot(array: Array, state: State) -> Check:
    return Check(
        _id(array, "comes-up-at-boot"),
        state.configured,
        f"{state.configuration} {'knows' if state.configured else 'does not know'} {array.name} by its UUID",
        "roll the site out, which writes the line",
    )


def _alike(array: Array, live: Running) -> Check:
    mismatches = live.mismatches or 0
    return Check(
        _id(array, "disks-alike"),
        mismatches == 0,
        f"when they were last compared, {mismatches} sectors differed between the disks of {array.name}"
        if mismatches
        else f"no comparison has found a difference between the disks of {array.name}",
        f"look at the disks' health (smartctl); then `echo repair > /sys/block/{live.kernel}/md/sync_action` and later"
        " `echo check`",
    )


def of_host(active: Sequence[Tuple[str, bool]]) -> List[Check]:
    """Whether an array that lacks a disk is started, and told of.  active: units, with whether they run and will."""
    if not active:
        return []
    off = [unit for unit, runs in active if not runs]
    return [
        Check(
            f"{_ROLE}.monitored",
            not off,
            f"{', '.join(off)} does not run, or not at every boot"
            if off
            else f"{', '.join(unit for unit, _runs in active)} runs",
            f"`journalctl -u {off[0] if off else ''}` says why; rolling out starts it",
        )
    ]


def _id(array: Array, statement: str) -> str:
    return f"{_ROLE}.{array.name}-{statement}"
