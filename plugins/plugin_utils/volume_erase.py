# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A volume that is made unreadable for good: first on its host, then in the escrow, and a signed record stays.

The host remembers that erasing has begun before a key is destroyed, and the escrow goes last: at whatever point a run
is cut off, the volume is whole or nobody takes it for one, and the next run completes it.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.bedplate.llm.plugins.plugin_utils.volume_erasure import Erasure
from ansible_collections.bedplate.llm.plugins.plugin_utils.volume_session import Session


def erased(session: Session) -> None:
    volume, confirmed = session.volume, str(session.given.get("confirm_erase") or "")
    if confirmed != volume.serial:
        raise AnsibleActionFail(
            f"{volume.name}: to erase it give the serial number of {volume.device}, as it is declared, with -e"
            f" luks_confirm_erase=SERIAL, found {confirmed or 'none'}. Nothing was changed."
        )
    found = session.remote("erase_look")
    session.refuse(found["problems"])
    session.require_own_escrow(found["proved"])
    escrow = session.store.read(session.key)
    session.uuid = found["uuid"] or (escrow.uuid if escrow else "")
    key = str(session.given.get("signing_key") or "")
    erasure = Erasure(session.store.folder(session.key), session.uuid, key)
    gone = escrow is None or bool(escrow.erased)
    if found["done"] and gone and not erasure.is_under_way:
        return
    erasure.require_key()
    if session.check_mode:
        session.actions += [f"would stop {service}" for service in found["running"]]
        session.actions += [f"would erase volume {session.uuid} on {found['at']}", "would destroy its escrow"]
        return
    _erase(session, found, erasure)


def _erase(session: Session, found: dict[str, Any], erasure: Erasure) -> None:
    volume = session.volume
    facts = {"host": session.host, "name": volume.name, "device": volume.device, "serial": volume.serial}
    erasure.begin({**facts, "uuid": session.uuid, "size": found["size"]})

    def did(steps: list[str], **facts: Any) -> None:
        session.actions += steps
        erasure.add(steps, **facts)

    if not found["done"]:
        did(session.remote("erase_close")["actions"])
        answer = session.remote("erase_keys")
        did(answer["actions"], proof=answer["proof"])
        did(session.remote("erase_forget")["actions"])
    escrow = session.store.read(session.key)
    if escrow:
        # Also one whose record says so already: a cut may have left its files.
        session.store.erase(escrow)
        did(["destroyed the recovery passphrase and every backup of the header in the escrow"])
    record = erasure.finish()
    session.actions.append(f"signed {record}")
