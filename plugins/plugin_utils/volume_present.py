# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A volume that is there, that is unlocked, that is backed up: the states which nothing is taken away for.

The order of every change: what the operator's side needs to undo or to repeat it is on its disk and read back, then the
host changes, then the new header's backup is here, then the host is told that it is.
"""

from __future__ import annotations

import uuid
from typing import Any

from ansible_collections.bedplate.llm.plugins.module_utils.volume_decision import BACK_UP, FORMAT, MAKE_FILESYSTEM
from ansible_collections.bedplate.llm.plugins.plugin_utils.volume_session import Session


def present(session: Session) -> None:
    if session.check_mode and session.volume.array and not session.remote("look")["at"]:
        # The run that is foreseen has made or started the array by then (role md_array).
        session.actions.append(f"would have the volume on {session.volume.device}, which is not there yet")
        return
    found = session.look()
    session.refuse(found["mount_problems"][:1])
    if found["action"] == FORMAT:
        session.require_own_escrow()
    if session.check_mode:
        _foresee(session, found)
        return
    if found["action"] == FORMAT:
        _format(session, found)
        found = session.look()
    elif found["action"] == BACK_UP:
        session.back_up()
        found = session.look()
    session.uuid = found["uuid"]
    for method in found["missing"]:
        enroll(session, method)
    if found["action"] in (BACK_UP, MAKE_FILESYSTEM) and not found["open"]:
        # It was never mounted, so that nothing but this passphrase is proved to open it.
        session.open()
    session.finish(found)
    session.follow(found)


def unlocked(session: Session) -> None:
    found = session.existing()
    waiting = session.remote("waiting")["services"]
    if session.check_mode:
        session.actions += [] if found["open"] else ["would unlock it with the escrow's passphrase"]
        session.actions += [] if found["mounted"] else [f"would mount {session.volume.mount}"]
        session.actions += [f"would start {service}" for service in waiting]
        return
    if not found["open"]:
        session.open()
    session.finish(found)
    session.follow(found)
    # Asked again: mounting may have brought some of them up.
    session.actions += session.remote("start")["actions"] if waiting else []


def backed_up(session: Session) -> None:
    found = session.existing()
    escrow = session.known()
    if session.check_mode:
        changed = escrow.backup is None or escrow.backup.sequence != found["sequence"]
        session.actions += ["would back up the header"] if changed else []
        return
    session.back_up()


def enroll(session: Session, method: str) -> int:
    """Add one way of unlocking; its key slot."""
    answer = session.remote("enroll", method=method, passphrase=session.passphrase())
    session.actions.append(f"added {method}")
    session.keep(answer["header"])
    return int(answer["keyslot"])


def _foresee(session: Session, found: dict[str, Any]) -> None:
    """What a run would do, for check mode."""
    session.uuid = found["uuid"]
    actions = session.actions
    if found["action"] == FORMAT:
        actions += [f"would format {found['at']}", *(f"would add {way}" for way in session.volume.unlock)]
    actions += [f"would add {way}" for way in found.get("missing", ())]
    if found["action"] in (FORMAT, BACK_UP, MAKE_FILESYSTEM):
        actions.append(f"would make {session.volume.filesystem}")
    actions += [f"would write {path}" for path in found.get("boot_files", ())]
    if not found.get("mounted"):
        actions.append(f"would mount {session.volume.mount}")


def _format(session: Session, found: dict[str, Any]) -> None:
    escrow = session.store.read(session.key)
    if escrow and escrow.erased:
        session.store.retire(escrow)
        escrow = None
    if escrow is None:
        escrow = session.store.begin(session.key, session.volume.name, session.host, str(uuid.uuid4()))
        session.actions.append("kept a new recovery passphrase in the escrow")
    answer = session.remote("format", uuid=escrow.uuid, passphrase=session.store.passphrase(escrow))
    session.actions.append(f"formatted {found['at']}")
    session.keep(answer["header"])
    session.remote("backed_up")
