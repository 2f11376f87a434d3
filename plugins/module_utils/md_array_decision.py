# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a declared array is there, may be made or mended, or has to be left alone.

The rules above all others: an array is made when every disk is proved to be the declared one, unused and empty, or when
it is proved that making it is what we began; and one that ever ran is never made again, since that would copy whatever
one disk holds over the other.  Whatever is neither is refused, with what was found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import List, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.block_device import (
    Device,
    content_problems,
    identity_problems,
    use_problems,
)
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_declared import Array
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_found import Disk, Member, Running
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_record import CREATING, Record
from ansible_collections.bedplate.llm.plugins.module_utils.md_superblock import Superblock

CREATE = "create"
ASSEMBLE = "assemble"  # all members are there, and the kernel has not put them together
REPAIR = "repair"  # it runs; failed members go, returned or new disks come
KEEP = "keep"
REFUSE = "refuse"

_GIVE_ONE_UP = (
    "each may hold what the other does not. Read both (`mdadm --assemble --readonly --run` with one of them), then give"
    " one up: `blkdiscard --force --zeroout` makes it a new disk"
)


@dataclass(frozen=True)
class Decision:
    """What to do with an array; problems are the sentences of a refusal.

    stop: kernel name of an array that was not started and is in the way.  remove: kernel names of members that failed
    or are gone.
    re_add, add: declared names of disks.
    """

    action: str
    problems: Tuple[str, ...] = ()
    stop: str = ""
    remove: Tuple[str, ...] = ()
    re_add: Tuple[str, ...] = ()
    add: Tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        return "; ".join(self.problems)


def decide(array: Array, disks: Sequence[Disk], running: Sequence[Running], record: Optional[Record]) -> Decision:
    """disks: as declared, in that order.  running: what the kernel has of this name, this UUID or these disks."""
    if record and record.level != array.level:
        return _refuse(
            f"this host remembers {array.name} with level {record.level}, declared is {array.level}: a level is changed"
            " by moving the data to a new array"
        )
    if len(running) > 1:
        found = " and ".join(
            f"{live.path} ({live.name or 'no name'}, UUID {live.uuid or 'unknown'})" for live in running
        )
        return _refuse(f"{found} both have a disk, the name or the UUID of {array.name}; stop the one that is wrong")
    live = running[0] if running else None
    if live and live.active:
        return _running(array, disks, live, record)
    return _stopped(array, disks, live, record)


# --- the kernel has it ---


def _running(array: Array, disks: Sequence[Disk], live: Running, record: Optional[Record]) -> Decision:
    problems = _not_ours(array, live.path, live.name, live.uuid, record)
    if not problems and (live.level, live.places, live.metadata) != (f"raid{array.level}", len(array.legs), "1.2"):
        problems = [
            f"{live.path} is {live.level} of {live.places} disks with metadata {live.metadata}, declared is"
            f" raid{array.level} of {len(array.legs)} with 1.2"
        ]
    if problems:
        return _refuse(*problems)
    declared = {disk.device.path for disk in disks}
    strangers = [member for member in live.members if not member.path or member.path not in declared]
    healthy = [member for member in strangers if member.path and not member.failed]
    if healthy:
        names = ", ".join(map(str, healthy))
        return _refuse(
            f"{names} is a healthy member of {live.path} and not declared; declare it, or take it out yourself:"
            f" `mdadm {live.path} --fail {healthy[0].kernel}`, and roll out again"
        )
    members = {member.path for member in live.members}
    re_add: List[str] = []
    add: List[str] = []
    for leg, disk in zip(array.legs, disks):
        if not disk.device.path or disk.unreadable:
            continue  # it runs without it, which the check says
        problems += identity_problems(disk.device, leg.serial, leg.size)
        if disk.device.path in members or problems:
            continue
        if disk.superblock and disk.superblock.uuid == live.uuid:
            problems += use_problems(disk.device) + _written_apart(disk.superblock, disk.device, live)
            re_add.append(leg.device)
        else:
            problems += _not_empty(disk)
            add.append(leg.device)
    if problems:
        return _refuse(*problems)
    if not (re_add or add):
        return Decision(KEEP)  # also with members that failed: nothing is there to take their place
    if array.level == 0:
        # Unreachable by what the kernel does: it runs with all its disks or not at all.
        return _refuse(f"{live.path} is spread over its disks, of which none can be exchanged")
    remove = tuple(member.kernel for member in strangers)
    return Decision(REPAIR, remove=remove, re_add=tuple(re_add), add=tuple(add))


def _written_apart(superblock: Superblock, device: Device, live: Running) -> List[str]:
    """Whether this disk went on without those that run now: then both hold something that the other does not."""
    known: List[Member] = [member for member in live.members if member.number is not None and not member.failed]
    apart = [member for member in known if superblock.knows_as_failed(member.number or 0)]
    if not apart:
        return []
    return [f"{device.path} was written without {apart[0]}, which runs as {live.path} now: {_GIVE_ONE_UP}"]


# --- the kernel has it not, or has not started it ---


def _stopped(array: Array, disks: Sequence[Disk], held: Optional[Running], record: Optional[Record]) -> Decision:
    problems: List[str] = []
    for leg, disk in zip(array.legs, disks):
        unreadable = [disk.unreadable] if disk.unreadable else []
        problems += unreadable or identity_problems(disk.device, leg.serial, leg.size)
    if problems:
        return _refuse(*problems, *_start_by_hand(array, disks, held, record))
    if held:
        strangers = [member for member in held.members if member.path not in {disk.device.path for disk in disks}]
        if strangers:
            return _refuse(
                f"{held.path} was not started and holds {', '.join(map(str, strangers))}, which is not declared"
            )
        disks = [replace(disk, device=_let_go(disk.device, held)) for disk in disks]
    for disk in disks:
        problems += use_problems(disk.device)
    members = [disk for disk in disks if disk.superblock]
    for disk in members:
        problems += _not_member(array, disk, record)
    if len({disk.superblock.uuid for disk in members if disk.superblock}) > 1:
        problems.append(f"the disks of {array.name} are of more than one array ({_said(members)})")
    if problems:
        return _refuse(*problems)
    stop = held.kernel if held else ""
    if len(members) == len(disks):
        return _whole(disks, stop)
    if members and not (record and record.state == CREATING):
        return _some(array, disks, members, held)
    return _new(array, disks, record, stop)


def _whole(disks: Sequence[Disk], stop: str) -> Decision:
    for one in disks:
        for other in disks:
            if _each_without_the_other(one, other):
                return _refuse(
                    f"{one.device.path} and {other.device.path} were written one without the other: {_GIVE_ONE_UP}"
                )
    return Decision(ASSEMBLE, stop=stop)


def _each_without_the_other(one: Disk, other: Disk) -> bool:
    first, second = one.superblock, other.superblock
    return bool(first and second and first.knows_as_failed(second.number) and second.knows_as_failed(first.number))


def _some(array: Array, disks: Sequence[Disk], members: Sequence[Disk], held: Optional[Running]) -> Decision:
    without = [disk for disk in disks if not disk.superblock]
    problems = [problem for disk in without for problem in _not_empty(disk)]
    if problems:
        return _refuse(*problems)
    return _refuse(
        f"of array {_uuid(members)} only {', '.join(disk.device.path for disk in members)} is there, and"
        f" {', '.join(disk.device.path for disk in without)} is empty. If what is there is the newest, start it with"
        f" that: {_start(array, members, held)}, and roll out again, which fills the empty disk"
    )


def _new(array: Array, disks: Sequence[Disk], record: Optional[Record], stop: str) -> Decision:
    """No disk is a member, or making the array was begun on these disks and never finished."""
    if record and record.state != CREATING:
        return _refuse(
            f"this host remembers array {record.uuid} on the disks of {array.name}, and none of them knows it any more:"
            " their superblocks are damaged or the disks were exchanged. It is not made again. If its data are given"
            f" up, take /var/lib/bedplate-volumes/arrays/{array.name}.json away and roll out"
        )
    begun = record is not None and set(record.serials) == set(array.serials)
    problems = [problem for disk in disks for problem in (_not_ours_alone(disk) if begun else _not_empty(disk))]
    return _refuse(*problems) if problems else Decision(CREATE, stop=stop)


# --- reasons ---


def _not_empty(disk: Disk) -> List[str]:
    """Why a disk may not be given to an array."""
    device = disk.device
    problems: List[str] = use_problems(device) + content_problems(device, confirmed=False)
    if disk.superblock:
        found = disk.superblock
        belongs = f"{device.path} is a member of array {found.name or 'without a name'} (UUID {found.uuid})"
        problems = [*use_problems(device), belongs]
    if not problems and disk.volume:
        problems.append(
            f"this host remembers encrypted volume {disk.volume} on {device.path}: its header is damaged; bring it back"
            " (bedplate volume restore) or erase the volume (bedplate volume erase)"
        )
    return problems


def _not_ours_alone(disk: Disk) -> List[str]:
    """Why there is more on a disk than a piece of the array that was begun on it."""
    device = disk.device
    others = [str(found) for found in device.signatures if found.type != "linux_raid_member"]
    problems = [f"{device.path} holds {', '.join(others)}"] if others else []
    if device.luks.traces:
        problems.append(f"{device.path} holds a LUKS header")
    if not problems and not disk.blank_behind:
        problems.append(f"{device.path} holds bytes behind the place of its superblock")
    return [f"{problem}, after making the array was begun" for problem in problems]


def _not_member(array: Array, disk: Disk, record: Optional[Record]) -> List[str]:
    found = disk.superblock
    if found is None:
        return []
    path = disk.device.path
    problems = _not_ours(array, path, found.name, found.uuid, record)
    if not problems and (found.level, found.members) != (array.level, len(array.legs)):
        problems = [
            f"{path} is a member of an array with level {found.level} of {found.members} disks, declared is level"
            f" {array.level} of {len(array.legs)}"
        ]
    return problems


def _not_ours(array: Array, path: str, name: str, uuid: str, record: Optional[Record]) -> List[str]:
    if name != array.label:
        return [
            f"{path} belongs to array {name or 'without a name'} (UUID {uuid or 'unknown'}), declared is {array.label}"
        ]
    if record and uuid != record.uuid:
        return [f"{path} belongs to array {uuid}, and this host remembers {array.name} as {record.uuid}"]
    return []


def _start(array: Array, members: Sequence[Disk], held: Optional[Running]) -> str:
    if held:
        return f"`mdadm --run {held.path}`"
    return f"`mdadm --assemble --run {array.node} {' '.join(disk.device.given for disk in members)}`"


def _start_by_hand(array: Array, disks: Sequence[Disk], held: Optional[Running], record: Optional[Record]) -> List[str]:
    there = [disk for disk in disks if disk.device.path and disk.superblock]
    if not there or (record and record.state == CREATING) or array.level == 0:
        return []
    return [
        f"{array.name} is not running: if {', '.join(disk.device.path for disk in there)} is the newest of it, start it"
        f" with that ({_start(array, there, held)})"
    ]


def _let_go(device: Device, held: Running) -> Device:
    """The device as it is once the array that was not started is stopped."""
    if device.holders != (held.kernel,):
        return device
    return replace(device, holders=(), children=(), exclusive=True)


def _uuid(members: Sequence[Disk]) -> str:
    return members[0].superblock.uuid if members[0].superblock else ""


def _said(members: Sequence[Disk]) -> str:
    return ", ".join(f"{disk.device.path}: {disk.superblock.uuid}" for disk in members if disk.superblock)


def _refuse(*problems: str) -> Decision:
    return Decision(REFUSE, tuple(problems))
