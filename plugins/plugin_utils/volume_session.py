# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""One volume of one host as the operator's side deals with it: the host's answers, the escrow, and what was done.

Every state of a volume (`volume_present`, `volume_restore`, `volume_rotate`, `volume_erase`) is a function of this.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.bedplate.llm.plugins.module_utils.volume_decision import BACK_UP, MAKE_FILESYSTEM, REFUSE
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import Volume, escrow_key
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import Escrow
from ansible_collections.bedplate.llm.plugins.plugin_utils.volume_escrow import EscrowError, Store

# Asks the host's half: its arguments, its answer.
Ask = Callable[[Mapping[str, Any]], dict[str, Any]]


class Session:
    """given: the task's arguments.  actions: what was done, or would be; empty where nothing changed."""

    def __init__(self, volume: Volume, host: str, given: Mapping[str, Any], ask: Ask, check_mode: bool) -> None:
        self.volume, self.host, self.given, self.check_mode = volume, host, given, check_mode
        self.key = escrow_key(volume, host)
        self.store = Store(Path(given["escrow_dir"]), str(given["escrow_password_file"]))
        self.actions: list[str] = []
        self.uuid = ""
        self._ask = ask

    # --- the host ---

    def remote(self, step: str, **more: Any) -> dict[str, Any]:
        escrow = self.store.read(self.key)
        answer = self._ask({**self.given, "step": step, "escrow": escrow.as_dict() if escrow else {}, **more})
        if answer.get("failed"):
            said = str(answer.get("msg") or answer)
            done = f" Done before: {', '.join(self.actions)}." if self.actions else ""
            raise AnsibleActionFail(f"{said}{done}")
        return answer

    def look(self) -> dict[str, Any]:
        found = self.remote("look")
        self.refuse(found["problems"] if found["action"] == REFUSE else ())
        return found

    def existing(self) -> dict[str, Any]:
        found = self.look()
        if not found["uuid"]:
            raise AnsibleActionFail(f"{self.volume.name}: there is no volume on {self.volume.device} yet.")
        self.uuid = found["uuid"]
        return found

    def refuse(self, problems: Any) -> None:
        """End here, before the first change, when there is a problem."""
        if problems:
            raise AnsibleActionFail(f"{self.volume.name}: {'; '.join(problems)}. Nothing was changed.")

    def open(self) -> None:
        if self.remote("open", passphrase=self.passphrase())["changed"]:
            self.actions.append(f"opened {self.volume.mapper} with the escrow's passphrase")

    def finish(self, found: Mapping[str, Any]) -> None:
        """Whatever there still is to do on a volume that is open."""
        needed = found["boot_files"] or not found["mounted"] or not found["recorded"]
        if needed or found["action"] in (BACK_UP, MAKE_FILESYSTEM):
            self.actions += self.remote("finish")["actions"]

    # --- the escrow ---

    def known(self) -> Escrow:
        escrow = self.store.read(self.key)
        if escrow is None or escrow.erased:
            raise EscrowError(
                f"The escrow knows nothing of {self.key} ({self.given['escrow_dir']}); bring it back from a backup."
            )
        return escrow

    def require_own_escrow(self, proved: bool = False) -> None:
        """A serial number may be that of two disks, of virtual machines above all: made with one key and one UUID, the
        volumes would share an escrow in which each one's header takes the other's place.

        proved: whether the disk or the host says itself that it is the escrow's volume.
        """
        escrow = self.store.read(self.key)
        if escrow and not escrow.erased and escrow.host != self.host and not proved:
            raise EscrowError(
                f"The escrow of {self.key} ({self.given['escrow_dir']}) is that of {escrow.host}, and the device on"
                f" {self.host} is empty, or holds nothing that says so. If it is the same disk, given up on"
                f" {escrow.host}, erase the volume there first (bedplate volume erase); two disks with one serial"
                " number cannot both carry a volume."
            )

    def passphrase(self) -> str:
        """One that opens the volume now.  While it is being changed the escrow has two, and the header one or both."""
        kept = self.store.passphrases(self.known())
        if len(kept) == 1:
            return kept[0]
        opens = self.remote("which", passphrases=kept)["opens"]
        if opens < 0:
            raise EscrowError(f"None of the {len(kept)} passphrases in the escrow of {self.key} opens the volume.")
        return kept[opens]

    def back_up(self) -> None:
        if self.keep(self.remote("header")["header"]):
            self.actions.append("backed up the header")
        self.remote("backed_up")

    def follow(self, found: Mapping[str, Any]) -> None:
        """Back up a header that was changed, by us (opening writes its flags) or by somebody else since."""
        sequence = self.look()["sequence"] if self.actions else found["sequence"]
        backup = self.known().backup
        if backup is None or backup.sequence != sequence:
            self.back_up()

    def keep(self, header: str) -> bool:
        """Keep a header as the host sent it; whether it was a new one."""
        before = self.known()
        return self.store.keep_backup(before, decoded(header)) != before


def decoded(content: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise EscrowError(f"What the host sent of its header arrived damaged: {error}.") from error
