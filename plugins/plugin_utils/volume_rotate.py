# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A volume of which one way of unlocking is made anew.

Add, prove, back the header up, take the former one out, back it up again, and only then destroy the former secrets and
the older backups, which open with them.  A run that was cut off is completed by the next.
"""

from __future__ import annotations

from ansible.errors import AnsibleActionFail
from ansible_collections.bedplate.llm.plugins.module_utils.volume_methods import RECOVERY
from ansible_collections.bedplate.llm.plugins.plugin_utils.volume_present import enroll
from ansible_collections.bedplate.llm.plugins.plugin_utils.volume_session import Session


def rotated(session: Session) -> None:
    method, ways = str(session.given.get("method") or ""), (RECOVERY, *session.volume.unlock)
    if method not in ways:
        raise AnsibleActionFail(
            f"{session.volume.name}: method is one of {', '.join(ways)}, the ways that the volume is declared with,"
            f" found {method!r}. Nothing was changed."
        )
    session.existing()
    unfinished = len(session.known().passphrases) > 1
    if unfinished and method != RECOVERY:
        # What is older than the newest is destroyed at the end, and the newest may open nothing yet.
        raise AnsibleActionFail(
            f"{session.volume.name}: its recovery passphrase is being changed, and the run that did so was cut off:"
            " complete that first (bedplate volume rotate --method recovery). Nothing was changed."
        )
    if session.check_mode:
        session.actions.append(f"would make {method} anew and take the former one out")
        return
    if method == RECOVERY:
        _recovery(session)
    else:
        _way(session, method)
    session.store.forget_older(session.known())
    session.actions.append("destroyed the former secrets and backups of the header in the escrow")


def _recovery(session: Session) -> None:
    if len(session.known().passphrases) < 2:
        session.store.add_passphrase(session.known())
        session.actions.append("kept a new recovery passphrase in the escrow")
    passphrases = session.store.passphrases(session.known())
    session.keep(session.remote("add_passphrase", passphrases=passphrases)["header"])
    session.actions.append("added it to the volume and proved it")
    answer = session.remote("drop_passphrases", passphrases=passphrases)
    session.keep(answer["header"])
    session.actions += [f"took out the former one (key slot {slot})" for slot in answer["dropped"]]
    session.actions += [f"left key slot {slot}, which no passphrase of the escrow opens" for slot in answer["unknown"]]


def _way(session: Session, method: str) -> None:
    keyslot = enroll(session, method)
    answer = session.remote("drop_ways", method=method, keyslot=keyslot, passphrase=session.passphrase())
    session.keep(answer["header"])
    session.actions += [f"took out the former one (key slot {slot})" for slot in answer["dropped"]]
