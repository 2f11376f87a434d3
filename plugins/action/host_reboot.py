# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller half of `bedplate.llm.host_reboot`: all of it, since the host is away in the middle."""

from __future__ import annotations

import re
import shlex
import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

BOOT_ID = "/proc/sys/kernel/random/boot_id"
PAUSE_SECONDS = 2
REPORT_SECONDS = 60


class ActionModule(ActionBase):  # type: ignore[misc]
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _result, given = self.validate_argument_spec(
            {
                "boot_id": {"type": "str", "required": True},
                "timeout": {"type": "int", "default": 1800},
                "reason": {"type": "str", "default": ""},
            }
        )
        before = given["boot_id"]
        if self._task.check_mode:
            return {**result, "changed": True, "msg": "The host would be restarted."}
        now = self._boot_id()
        if now != before:
            raise AnsibleActionFail(
                f"host_reboot: the host is in boot {now or 'unknown'} and was looked at in {before}: somebody else"
                " restarted it meanwhile. Nothing was done; run again."
            )
        started = time.monotonic()
        self._restart(given["reason"])
        name = (task_vars or {}).get("inventory_hostname", "the host")
        after = self._wait(before, started, given["timeout"], name)
        seconds = round(time.monotonic() - started, 1)
        said = f"The host was restarted and is back after {seconds:.0f} s."
        self._display.display(f"[{name}] {said}")  # Ansible shows no result of a task that went well
        return {**result, "changed": True, "boot_id": after, "seconds": seconds, "msg": said}

    def _restart(self, reason: str) -> None:
        """By a timer of the host, so that the answer is here before the connection goes."""
        argv = ["systemd-run", "--quiet", "--collect", "--on-active=1", "--timer-property=AccuracySec=100ms"]
        argv += [f"--description=bedplate restarts this host: {' '.join(reason.split())[:300]}"]
        done = self._low_level_execute_command(shlex.join([*argv, "systemctl", "reboot"]))
        if done["rc"]:
            said = (done.get("stderr") or done.get("stdout") or "").strip()
            raise AnsibleActionFail(f"host_reboot: the host could not be told to restart: {said[-500:]}")

    def _wait(self, before: str, started: float, timeout: int, name: str) -> str:
        state, report = "still in the former boot", started + REPORT_SECONDS
        while time.monotonic() - started < timeout:
            time.sleep(PAUSE_SECONDS)
            self._reset_connection()
            try:
                now = self._boot_id()
            except AnsibleConnectionFailure as error:
                state = "not reachable"
                self._display.vv(f"[{name}] not back yet: {error}")
            else:
                if now and now != before:
                    return now
                # Without an answer it is going down or coming up, and lets nobody in.
                state = "still in the former boot" if now else "not letting anybody in"
            if time.monotonic() > report:
                report += REPORT_SECONDS
                self._display.display(f"[{name}] restarting for {time.monotonic() - started:.0f} s, {state}")
        hint = (
            "something keeps it from shutting down: `systemctl list-jobs` there says what"
            if state == "still in the former boot"
            else "look at its console; if it only needs longer, raise reboot_timeout"
        )
        raise AnsibleActionFail(f"host_reboot: after {timeout} s the host is {state}; {hint}.")

    def _boot_id(self) -> str:
        """Empty when the host answers with anything else, as while it lets nobody in."""
        done = self._low_level_execute_command(f"cat {BOOT_ID}")
        said = (done.get("stdout") or "").strip()
        return said if done["rc"] == 0 and re.fullmatch(r"[0-9a-f-]{36}", said) else ""

    def _reset_connection(self) -> None:
        reset = getattr(self._connection, "reset", None)
        if reset is not None:
            reset()
