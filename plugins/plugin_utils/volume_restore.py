# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A volume whose header comes back from the escrow.

What lies in the header's place is kept here first, and the host writes nothing when that has changed since.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from ansible_collections.bedplate.llm.plugins.plugin_utils.volume_present import unlocked
from ansible_collections.bedplate.llm.plugins.plugin_utils.volume_session import Session, decoded


def restored(session: Session) -> None:
    escrow, file = session.known(), Path(str(session.given.get("backup") or "")).name
    content = session.store.backup(escrow, file)
    passphrases = session.store.passphrases(escrow)
    session.uuid = escrow.uuid
    found = session.remote("restore_look")
    session.refuse(found["problems"])
    session.require_own_escrow(found["proved"])
    # A header that is whole is only replaced by somebody who says by which one.
    if file or not found["whole"] or session.remote("which", passphrases=passphrases)["opens"] < 0:
        name = file or (escrow.backup.file if escrow.backup else "")
        if session.check_mode:
            session.actions.append(f"would restore the header of {found['at']} from {name}")
            return
        if _write(session, content, passphrases):
            session.actions.append(f"restored the header of {found['at']} from {name}")
            session.remote("backed_up")
    unlocked(session)


def _write(session: Session, content: bytes, passphrases: list[str]) -> bool:
    """Whether it was another one that lay there."""
    before = decoded(session.remote("restore_area", length=len(content))["header"])
    digest = hashlib.sha256(before).hexdigest()
    if before == content:
        return False
    aside = session.store.keep_aside(session.known(), before)
    session.actions.append(f"kept what lay there as {aside.name}")
    session.remote("restore", header=base64.b64encode(content).decode("ascii"), digest=digest, passphrases=passphrases)
    return True
