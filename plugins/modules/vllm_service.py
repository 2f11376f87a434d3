#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: vllm_service
short_description: Have the engine's unit run as configured, and say why when it does not start
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Makes the engine's user and directories as C(sysusers.d) and C(tmpfiles.d) declare them, reloads systemd, enables
    and starts the unit; each of these only when it is needed.
  - Restarts a serving engine only when it was started from another release of its unit than the wanted one, and only
    when that is allowed.
  - Returns when the engine is ready, which takes minutes, since the unit counts as started only then. When it does not
    start, the message holds the engine's own reason out of its journal.
options:
  unit:
    description: Name of the unit.
    type: str
    default: bedplate-vllm.service
  release:
    description: Digest of the unit, which the unit itself passes to the engine as E(BEDPLATE_RELEASE).
    type: str
    required: true
  restart:
    description: Whether an engine that serves another release is restarted.
    type: str
    choices: [when_changed, never]
    default: when_changed
  user:
    description: The engine's user.
    type: str
    required: true
  directories:
    description: Directories that C(tmpfiles.d) makes, each with its owner and mode.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path on the host.
        type: path
        required: true
      owner:
        description: Name of the owner.
        type: str
        required: true
      mode:
        description: Octal permissions, quoted.
        type: str
        required: true
  sysusers:
    description: The C(sysusers.d) file that declares the user.
    type: path
    required: true
  tmpfiles:
    description: The C(tmpfiles.d) file that declares the directories.
    type: path
    required: true
attributes:
  check_mode:
    description: Says which steps would be taken and takes none.
    support: full
  diff_mode:
    description: Nothing to show.
    support: none
  platform:
    description: Linux hosts with systemd.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Start the engine and wait until it generates
  bedplate.llm.vllm_service:
    release: 1b4f0e985197
    user: bedplate-vllm
    sysusers: /etc/sysusers.d/bedplate-vllm.conf
    tmpfiles: /etc/tmpfiles.d/bedplate-vllm.conf
"""

RETURN = r"""
steps:
  description: The steps that were, or in check mode would be, taken.
  returned: always
  type: list
  elements: str
  sample: [daemon-reload, restart]
restart_pending:
  description: Whether the engine goes on serving an older release, since a restart was not allowed.
  returned: always
  type: bool
seconds:
  description: How long the engine took until it was ready, in seconds; 0 when it served already.
  returned: always
  type: float
"""

import os
import pwd
import stat
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.processes import parse_show
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_process import engine_pid
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_service import (
    ENABLE,
    RELOAD,
    RESTART,
    START,
    SYSUSERS,
    TMPFILES,
    State,
    decide,
    explain_failure,
    restart_pending,
)

C_LOCALE = {"LC_ALL": "C", "LANGUAGE": "C"}
PROPERTIES = "LoadState,ActiveState,UnitFileState,NeedDaemonReload,MainPID"


def exists(user):
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def is_right(directory):
    """Whether a directory is there with its owner and mode."""
    try:
        status = os.stat(directory["path"])
        owner = pwd.getpwnam(directory["owner"]).pw_uid
    except (OSError, KeyError):
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == owner
        and stat.S_IMODE(status.st_mode) == int(directory["mode"], 8)
    )


def running_release(pid):
    """What the process was started with; empty when there is no process or it tells nothing."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as handle:
            variables = handle.read().split(b"\0")
    except OSError:
        return ""
    mark = b"BEDPLATE_RELEASE="
    return "".join(item[len(mark) :].decode("ascii", "replace") for item in variables if item.startswith(mark))


def look(module):
    given = module.params
    command = ["systemctl", "show", given["unit"], "-p", PROPERTIES]
    shown = parse_show(module.run_command(command, check_rc=True, environ_update=C_LOCALE)[1])
    return State(
        user_exists=exists(given["user"]),
        directories_right=all(is_right(directory) for directory in given["directories"]),
        load_state=shown.get("LoadState", "not-found"),
        active_state=shown.get("ActiveState", "inactive"),
        unit_file_state=shown.get("UnitFileState", ""),
        needs_reload=shown.get("NeedDaemonReload") == "yes",
        running_release=running_release(engine_pid(int(shown.get("MainPID") or 0))),
    )


def journal_since(module, moment):
    """What the unit wrote since then; systemd wants whole seconds."""
    command = ["journalctl", "-u", module.params["unit"], "--since", f"@{int(moment)}", "-o", "cat", "--no-pager"]
    return module.run_command(command, environ_update=C_LOCALE)[1].splitlines()


def take(module, step):
    given = module.params
    argv = {
        SYSUSERS: ["systemd-sysusers", given["sysusers"]],
        TMPFILES: ["systemd-tmpfiles", "--create", given["tmpfiles"]],
        RELOAD: ["systemctl", "daemon-reload"],
        ENABLE: ["systemctl", "enable", "--quiet", given["unit"]],
        START: ["systemctl", "start", given["unit"]],
        RESTART: ["systemctl", "restart", given["unit"]],
    }[step]
    started = time.time()
    code, out, err = module.run_command(argv, environ_update=C_LOCALE)
    if code and step in (START, RESTART):
        reason = explain_failure(journal_since(module, started))
        module.fail_json(
            msg=f"The engine does not start; its reason: {reason} (All it said: `journalctl -u {given['unit']}`.)",
            rc=code,
        )
    elif code:
        module.fail_json(msg=f"`{' '.join(argv)}` failed; it says: {(err.strip() or out.strip())[-1000:]}", rc=code)


def main():
    directory = {
        "path": {"type": "path", "required": True},
        "owner": {"type": "str", "required": True},
        "mode": {"type": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "default": "bedplate-vllm.service"},
            "release": {"type": "str", "required": True},
            "restart": {"type": "str", "choices": ["when_changed", "never"], "default": "when_changed"},
            "user": {"type": "str", "required": True},
            "directories": {"type": "list", "elements": "dict", "default": [], "options": directory},
            "sysusers": {"type": "path", "required": True},
            "tmpfiles": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    release = module.params["release"]
    state = look(module)
    steps = decide(state, release, module.params["restart"] == "when_changed")
    started = time.monotonic()
    if not module.check_mode:
        for step in steps:
            take(module, step)
    waited = {START, RESTART} & set(steps)
    module.exit_json(
        changed=bool(steps),
        steps=steps,
        restart_pending=restart_pending(state, release, steps),
        seconds=round(time.monotonic() - started, 1) if waited and not module.check_mode else 0.0,
    )


if __name__ == "__main__":
    main()
