# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller half of `bedplate.llm.luks_volume`: decides with the host's answers, and keeps the escrow in step.

The order of every change: what the operator's side needs to undo or to repeat it is on its disk and read back, then the
host changes, then the new header's backup is here, then the host is told that it is.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import uuid
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars
from ansible_collections.bedplate.llm.plugins.module_utils.volume_decision import (
    BACK_UP,
    FORMAT,
    MAKE_FILESYSTEM,
    REFUSE,
)
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import escrow_key, parse
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import Escrow
from ansible_collections.bedplate.llm.plugins.plugin_utils.volume_escrow import EscrowError, Store

CONFIRMATION = "luks_confirm_wipe"
# What the host's half is given and the task is not asked for.
_INTERNAL = ("step", "escrow", "uuid", "method", "passphrase")


class ActionModule(ActionBase):  # type: ignore[misc]
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        self._vars = task_vars or {}
        self._given = dict(self._task.args)
        self._actions: list[str] = []
        try:
            self._prepare()
            # A check leaves nothing behind, not even a lock.
            with contextlib.nullcontext() if self._task.check_mode else self._store.locked(self._key):
                self._uuid = ""
                getattr(self, f"_{self._given.get('state', 'present')}")()
        except EscrowError as error:
            raise AnsibleActionFail(f"{self._volume.name}: {error}") from error
        result.update(changed=bool(self._actions), actions=self._actions, uuid=self._uuid)
        return result

    def _prepare(self) -> None:
        told = [name for name in _INTERNAL if name in self._given]
        if told:
            raise AnsibleActionFail(f"luks_volume: {told[0]} is not for a task to give.")
        volumes, problems = parse([self._given.get("volume", {})], self._given.get("arrays", ()))
        if problems:
            raise AnsibleActionFail(" ".join(problems))
        self._volume = volumes[0]
        self._host = str(self._vars.get("inventory_hostname", ""))
        self._key = escrow_key(self._volume, self._host)
        for name in ("escrow_dir", "escrow_password_file"):
            if not self._given.get(name):
                raise AnsibleActionFail(
                    f"luks_volume: {name} is missing; a volume without an escrow would be lost with its host."
                )
        if not Path(self._given["escrow_dir"]).is_absolute():
            raise AnsibleActionFail(
                f"luks_volume: escrow_dir: give an absolute path, found {self._given['escrow_dir']!r}."
            )
        if self._given.get("confirm_wipe"):
            self._require_said_now()
        # Without pipelining Ansible writes a module with its arguments to a file on the host.
        if not self._connection.is_pipelining_enabled(False):
            raise AnsibleActionFail(
                "luks_volume: the connection is not pipelined, and a passphrase would be written to a file on the host;"
                " set ansible_pipelining: true for it (and leave ANSIBLE_KEEP_REMOTE_FILES alone)."
            )
        self._store = Store(Path(self._given["escrow_dir"]), str(self._given["escrow_password_file"]))

    def _require_said_now(self) -> None:
        """A confirmation that stands in a file would be there for every later run."""
        said = load_extra_vars(self._loader).get(CONFIRMATION)
        if said != self._given["confirm_wipe"]:
            raise AnsibleActionFail(
                f"luks_volume: {CONFIRMATION} is for one run: give it with -e {CONFIRMATION}=SERIAL and nowhere"
                " else, found"
                f" {self._given['confirm_wipe']!r} in the inventory or the play."
            )

    # --- states ---

    def _present(self) -> None:
        found = self._look()
        if found["mount_problems"]:
            raise AnsibleActionFail(f"{self._volume.name}: {found['mount_problems'][0]}.")
        if found["action"] == FORMAT:
            self._require_own_escrow()
        if self._task.check_mode:
            self._foresee(found)
            return
        if found["action"] == FORMAT:
            self._format(found)
            found = self._look()
        elif found["action"] == BACK_UP:
            self._back_up()
            found = self._look()
        self._uuid = found["uuid"]
        for method in found["missing"]:
            self._enroll(method)
        if found["action"] in (BACK_UP, MAKE_FILESYSTEM) and not found["open"]:
            # It was never mounted, so that nothing but this passphrase is proved to open it.
            self._open()
        self._finish(found)
        self._follow(found)

    def _unlocked(self) -> None:
        found = self._existing()
        if self._task.check_mode:
            self._actions += [] if found["open"] else ["would unlock it with the escrow's passphrase"]
            return
        if not found["open"]:
            self._open()
        self._finish(found)
        self._follow(found)

    def _backed_up(self) -> None:
        found = self._existing()
        escrow = self._known()
        if self._task.check_mode:
            changed = escrow.backup is None or escrow.backup.sequence != found["sequence"]
            self._actions += ["would back up the header"] if changed else []
            return
        self._back_up()

    # --- steps ---

    def _look(self) -> dict[str, Any]:
        found = self._remote("look")
        if found["action"] == REFUSE:
            raise AnsibleActionFail(f"{self._volume.name}: {'; '.join(found['problems'])}. Nothing was changed.")
        return found

    def _existing(self) -> dict[str, Any]:
        found = self._look()
        if not found["uuid"]:
            raise AnsibleActionFail(f"{self._volume.name}: there is no volume on {self._volume.device} yet.")
        self._uuid = found["uuid"]
        return found

    def _foresee(self, found: dict[str, Any]) -> None:
        """What a run would do, for check mode."""
        self._uuid = found["uuid"]
        if found["action"] == FORMAT:
            self._actions += [f"would format {found['path']}", *(f"would add {way}" for way in self._volume.unlock)]
        self._actions += [f"would add {way}" for way in found.get("missing", ())]
        if found["action"] in (FORMAT, BACK_UP, MAKE_FILESYSTEM):
            self._actions.append(f"would make {self._volume.filesystem}")
        self._actions += [f"would write {path}" for path in found.get("boot_files", ())]
        if not found.get("mounted"):
            self._actions.append(f"would mount {self._volume.mount}")

    def _require_own_escrow(self) -> None:
        """A serial number may be that of two disks, of virtual machines above all: made with one key and one UUID, the
        volumes would share an escrow in which each one's header takes the other's place."""
        escrow = self._store.read(self._key)
        if escrow and not escrow.erased and escrow.host != self._host:
            raise EscrowError(
                f"The escrow of {self._key} ({self._given['escrow_dir']}) is that of {escrow.host}, and the device on"
                f" {self._host} is empty. If it is the same disk, given up on {escrow.host}, erase the volume first"
                " (bedplate volume erase); two disks with one serial number cannot both carry a volume."
            )

    def _format(self, found: dict[str, Any]) -> None:
        escrow = self._store.read(self._key)
        if escrow and escrow.erased:
            self._store.retire(escrow)
            escrow = None
        if escrow is None:
            escrow = self._store.begin(self._key, self._volume.name, self._host, str(uuid.uuid4()))
            self._actions.append("kept a new recovery passphrase in the escrow")
        answer = self._remote("format", uuid=escrow.uuid, passphrase=self._store.passphrase(escrow))
        self._actions.append(f"formatted {found['path']}")
        self._keep(answer["header"])
        self._remote("backed_up")

    def _back_up(self) -> None:
        if self._keep(self._remote("header")["header"]):
            self._actions.append("backed up the header")
        self._remote("backed_up")

    def _follow(self, found: dict[str, Any]) -> None:
        """Back up a header that was changed, by us (opening writes its flags) or by somebody else since."""
        sequence = self._look()["sequence"] if self._actions else found["sequence"]
        backup = self._known().backup
        if backup is None or backup.sequence != sequence:
            self._back_up()

    def _enroll(self, method: str) -> None:
        answer = self._remote("enroll", method=method, passphrase=self._store.passphrase(self._known()))
        self._actions.append(f"added {method}")
        self._keep(answer["header"])

    def _open(self) -> None:
        if self._remote("open", passphrase=self._store.passphrase(self._known()))["changed"]:
            self._actions.append(f"opened {self._volume.mapper} with the escrow's passphrase")

    def _finish(self, found: dict[str, Any]) -> None:
        needed = found["boot_files"] or not found["mounted"] or not found["recorded"]
        if needed or found["action"] in (BACK_UP, MAKE_FILESYSTEM):
            self._actions += self._remote("finish")["actions"]

    # --- the escrow and the host ---

    def _known(self) -> Escrow:
        escrow = self._store.read(self._key)
        if escrow is None or escrow.erased:
            raise EscrowError(
                f"The escrow knows nothing of {self._key} ({self._given['escrow_dir']}); bring it back from a backup."
            )
        return escrow

    def _keep(self, header: str) -> bool:
        try:
            content = base64.b64decode(header, validate=True)
        except binascii.Error as error:
            raise EscrowError(f"The backup of the header arrived damaged: {error}.") from error
        before = self._known()
        return self._store.keep_backup(before, content) != before

    def _remote(self, step: str, **more: Any) -> dict[str, Any]:
        escrow = self._store.read(self._key)
        arguments = {**self._given, "step": step, "escrow": escrow.as_dict() if escrow else {}, **more}
        answer: dict[str, Any] = self._execute_module(
            module_name="bedplate.llm.luks_volume", module_args=arguments, task_vars=self._vars
        )
        if answer.get("failed"):
            said = str(answer.get("msg") or answer)
            done = f" Done before: {', '.join(self._actions)}." if self._actions else ""
            raise AnsibleActionFail(f"{said}{done}")
        return answer
