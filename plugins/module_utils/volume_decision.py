# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a declared volume is there, may be made, or has to be left alone.

The rule above all others: a device is formatted when it is proved to be the declared one, unused and empty, or when it
is proved that formatting it is what we began and that nothing can have been stored on it since.  Whatever is neither
is refused, with what was found.  `docs/volumes.md` draws the states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional

from ansible_collections.bedplate.llm.plugins.module_utils.block_device import (
    Device,
    beside_luks,
    content_problems,
    identity_problems,
    use_problems,
)
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import Volume
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import (
    ERASED,
    ERASING,
    FORMATTED,
    FORMATTING,
    MAKING_FILESYSTEM,
    READY,
    Escrow,
    Record,
)

FORMAT = "format"  # make the header: the device is empty, or formatting was begun and never finished
BACK_UP = "back-up"  # the header is ours and whole, its first backup is not on the operator's side yet
MAKE_FILESYSTEM = "make-filesystem"
KEEP = "keep"  # it is there
REFUSE = "refuse"


@dataclass(frozen=True)
class Decision:
    """What to do with a volume; problems are the sentences of a refusal, state is what the host's record should say."""

    action: str
    problems: tuple[str, ...] = ()
    state: str = ""

    @property
    def sentence(self) -> str:
        return "; ".join(self.problems)


def decide(
    volume: Volume, device: Device, record: Optional[Record], escrow: Optional[Escrow], confirmed: bool = False
) -> Decision:
    """What a rollout does.  confirmed: somebody named this device's serial number for this one run."""
    wrong = identity_problems(device, volume.serial, volume.size)
    if wrong:
        return _refuse(wrong)
    if record and record.state == ERASING:
        return _refuse([half_erased(device)])
    if record and record.state == ERASED:
        record = None
    if escrow and escrow.erased:
        escrow = None
    known = [entry.uuid for entry in (record, escrow) if entry]
    if len(set(known)) > 1:
        return _refuse(
            [
                f"the host remembers {device.path} as volume {known[0]} and the escrow as {known[1]}: two sites may"
                " have"
                " the same device declared, or an escrow belongs to another host"
            ]
        )
    if device.luks.header:
        return _with_header(device, record, escrow)
    return _without_header(device, record, escrow, confirmed)


def _with_header(device: Device, record: Optional[Record], escrow: Optional[Escrow]) -> Decision:
    header = device.luks.header
    if header is None:  # never: the caller has seen one
        return Decision(REFUSE)
    ours = {entry.uuid for entry in (record, escrow) if entry}
    if header.uuid not in ours:
        said = (
            f"the volume known here is {', '.join(ours)}" if ours else "and neither this host nor the escrow knows it"
        )
        return _refuse([f"{content_problems(device, confirmed=True)[0]}, {said}; it is left as it is"])
    strangers = [mapping.name for mapping in device.mappings if header.uuid.replace("-", "") not in mapping.uuid]
    if strangers:
        return _refuse([f"{device.path} is held by {', '.join(strangers)}, which is not the volume in its header"])
    if not header.keyslots:
        # Nobody can open it.  Where formatting was begun it never became a volume.
        if record and record.state == FORMATTING:
            return _begun(device, record, escrow)
        return _refuse(
            [
                f"{device.path} has a header without a key: it was erased; bring the header back from its backup or"
                " erase it"
            ]
        )
    if record is None:
        # The host was installed anew; what the escrow knows of is a volume with data on it.
        return Decision(KEEP, state=READY) if escrow and escrow.backups else Decision(BACK_UP, state=FORMATTING)
    if record.state == FORMATTING:
        return Decision(BACK_UP, state=FORMATTING)
    if escrow is None or not escrow.backups:
        return Decision(BACK_UP, state=record.state)
    if record.state in (FORMATTED, MAKING_FILESYSTEM):
        return Decision(MAKE_FILESYSTEM, state=record.state)
    return Decision(KEEP, state=READY)


def _without_header(device: Device, record: Optional[Record], escrow: Optional[Escrow], confirmed: bool) -> Decision:
    if record and record.state == FORMATTING:
        return _begun(device, record, escrow)
    if record or (escrow and escrow.backups):
        who = "this host remembers" if record else "the escrow has a backup of the header of"
        uuid = record.uuid if record else escrow.uuid if escrow else ""
        return _refuse(
            [
                f"{device.path} has no header that can be read, and {who} volume {uuid} on it: its header is damaged or"
                " the disk was exchanged. Bring the header back (bedplate volume restore); if the data are given up,"
                " erase"
                " the volume (bedplate volume erase)"
            ]
        )
    problems = use_problems(device) + content_problems(device, confirmed)
    return _refuse(problems) if problems else Decision(FORMAT)


def _begun(device: Device, record: Record, escrow: Optional[Escrow]) -> Decision:
    """Formatting was begun and did not leave a volume: what may be there is a piece of our own header."""
    if escrow and escrow.backups:
        return _refuse(
            [f"the host says that formatting {device.path} was not finished and the escrow has a backup of its header"]
        )
    problems = use_problems(device)
    if device.luks.version == 1:
        problems.append(f"{device.path} holds a LUKS1 volume")
    others = beside_luks(device)
    if others:
        problems.append(f"{device.path} holds {', '.join(others)}")
    if device.array_member:
        problems.append(f"{device.path} is a member of a RAID array")
    if not device.blank_behind and not record.confirmed:
        problems.append(f"{device.path} holds bytes behind the place of its header")
    return (
        _refuse([f"{problem}, after formatting it was begun" for problem in problems]) if problems else Decision(FORMAT)
    )


def half_erased(device: Device) -> str:
    return (
        f"the volume on {device.path} is being erased, and the run that did so was cut off: complete it (bedplate"
        " volume erase)"
    )


def _refuse(problems: List[str]) -> Decision:
    return Decision(REFUSE, tuple(problems))
