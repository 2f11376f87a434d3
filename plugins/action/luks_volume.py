# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller half of `bedplate.llm.luks_volume`: decides with the host's answers, and keeps the escrow in step.

What each state does is in `plugin_utils/volume_*.py`; here is what they have in common.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import parse
from ansible_collections.bedplate.llm.plugins.plugin_utils import (
    volume_erase,
    volume_present,
    volume_restore,
    volume_rotate,
)
from ansible_collections.bedplate.llm.plugins.plugin_utils.volume_escrow import EscrowError
from ansible_collections.bedplate.llm.plugins.plugin_utils.volume_session import Session

STATES = {
    "present": volume_present.present,
    "unlocked": volume_present.unlocked,
    "backed_up": volume_present.backed_up,
    "restored": volume_restore.restored,
    "rotated": volume_rotate.rotated,
    "erased": volume_erase.erased,
}
# What only one run may be told, by option: the variable that says it.
CONFIRMATIONS = {"confirm_wipe": "luks_confirm_wipe", "confirm_erase": "luks_confirm_erase"}
# What the host's half is given and the task is not asked for.
_INTERNAL = ("step", "escrow", "uuid", "keyslot", "passphrase", "passphrases", "header", "length", "digest")


class ActionModule(ActionBase):  # type: ignore[misc]
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        self._vars = task_vars or {}
        session = self._session(dict(self._task.args))
        state = str(session.given.get("state", "present"))
        if state not in STATES:
            raise AnsibleActionFail(f"luks_volume: state is one of {', '.join(STATES)}, found {state!r}.")
        try:
            # A check leaves nothing behind, not even a lock.
            with contextlib.nullcontext() if session.check_mode else session.store.locked(session.key):
                STATES[state](session)
        except EscrowError as error:
            raise AnsibleActionFail(f"{session.volume.name}: {error}") from error
        result.update(changed=bool(session.actions), actions=session.actions, uuid=session.uuid)
        return result

    def _session(self, given: dict[str, Any]) -> Session:
        told = [name for name in _INTERNAL if name in given]
        if told:
            raise AnsibleActionFail(f"luks_volume: {told[0]} is not for a task to give.")
        volumes, problems = parse([given.get("volume", {})], given.get("arrays", ()))
        if problems:
            raise AnsibleActionFail(" ".join(problems))
        for name in ("escrow_dir", "escrow_password_file"):
            if not given.get(name):
                raise AnsibleActionFail(
                    f"luks_volume: {name} is missing; a volume without an escrow would be lost with its host."
                )
        if not Path(given["escrow_dir"]).is_absolute():
            raise AnsibleActionFail(f"luks_volume: escrow_dir: give an absolute path, found {given['escrow_dir']!r}.")
        for option, variable in CONFIRMATIONS.items():
            self._require_said_now(variable, str(given.get(option) or ""))
        # Without pipelining Ansible writes a module with its arguments to a file on the host.
        if not self._connection.is_pipelining_enabled(False):
            raise AnsibleActionFail(
                "luks_volume: the connection is not pipelined, and a passphrase would be written to a file on the host;"
                " set ansible_pipelining: true for it (and leave ANSIBLE_KEEP_REMOTE_FILES alone)."
            )
        host = str(self._vars.get("inventory_hostname", ""))
        return Session(volumes[0], host, given, self._ask, self._task.check_mode)

    def _require_said_now(self, variable: str, confirmed: str) -> None:
        """A confirmation that stands in a file would be there for every later run."""
        if confirmed and load_extra_vars(self._loader).get(variable) != confirmed:
            raise AnsibleActionFail(
                f"luks_volume: {variable} is for one run: give it with -e {variable}=SERIAL and nowhere else, found"
                f" {confirmed!r} in the inventory or the play."
            )

    def _ask(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name="bedplate.llm.luks_volume",
            module_args=dict(arguments),
            task_vars=self._vars,
        )
        return answer
