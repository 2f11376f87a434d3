# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller half of `bedplate.llm.nft_table`: applies, opens a new connection, and confirms over it.

Established connections pass the new rules by connection tracking, so only a connection that was opened under the new
rules proves that the operator can still get in.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

MODULE = "bedplate.llm.nft_table"
# After the timer has fired, the host must be reachable under the former rules; this long we look for it.
GRACE_SECONDS = 60
PAUSE_SECONDS = 2


class ActionModule(ActionBase):  # type: ignore[misc]
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args, phase="apply", change=uuid.uuid4().hex)
        started = time.monotonic()
        try:
            applied = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
            if applied.get("failed") or not applied.pop("pending", False):
                return {**result, **applied}
        except AnsibleConnectionFailure as error:
            # The rules may have cut the connection before the answer came back; the next one tells.
            applied = {"changed": True}
            self._display.vv(f"connection lost while the firewall rules were applied: {error}")
        timeout = int(arguments.get("confirm_timeout", 60))
        outcome = self._confirm(arguments, task_vars, started + timeout + GRACE_SECONDS)
        return {**result, **applied, **self._verdict(outcome, timeout)}

    def _confirm(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None, deadline: float) -> dict[str, Any]:
        """Until the host answers: its answer is final, since it rolls back by itself when we come too late."""
        address = (task_vars or {}).get("inventory_hostname", "the host")
        while True:
            self._reset_connection()
            try:
                answer = dict(
                    self._execute_module(MODULE, module_args=dict(arguments, phase="confirm"), task_vars=task_vars)
                )
            except AnsibleConnectionFailure as error:
                self._display.vv(f"no new connection under the new firewall rules yet: {error}")
                answer = {"outcome": "unreachable"}
            if answer.get("outcome") not in ("unreachable", "same-connection") or time.monotonic() > deadline:
                return answer
            self._display.display(
                f"[{address}] no new connection under the new firewall rules ({answer['outcome']});"
                f" trying for another {max(0, deadline - time.monotonic()):.0f} s, the host rolls back by itself"
            )
            time.sleep(PAUSE_SECONDS)

    def _reset_connection(self) -> None:
        reset = getattr(self._connection, "reset", None)
        if reset is not None:
            reset()

    @staticmethod
    def _verdict(answer: dict[str, Any], timeout: int) -> dict[str, Any]:
        outcome = answer.get("outcome")
        if outcome == "confirmed":
            return {"confirmed": True}
        if answer.get("failed"):
            return {"failed": True, "confirmed": False, "msg": answer.get("msg", "the confirmation failed")}
        msg = {
            "rolled-back": (
                f"no new connection was possible under the new firewall rules within {timeout} s, so the host went back"
                " to the former rules and the file for the next boot was not touched; check firewall_operator_networks,"
                " firewall_ssh_port, and that no *_firewall_denied_users names root, as whom sshd answers"
            ),
            "unknown": "the host knows nothing of this change of the firewall rules: it was not applied, or another run"
            " replaced it; run again",
            "same-connection": "no new connection could be opened, only the old one was used again, so the host went"
            " back to the former firewall rules; check the ssh configuration of the controller",
        }.get(
            str(outcome),
            f"the host is not reachable, although its firewall rolled back by itself after {timeout} s; look at the"
            " host's console",
        )
        return {"failed": True, "changed": False, "confirmed": False, "msg": f"nft_table: {msg}."}
