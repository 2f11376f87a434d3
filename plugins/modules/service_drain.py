#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: service_drain
short_description: Take services out of a host in their own way, and bring them back
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Stops units that are up, each by its own stop commands, which take the engine out of its gateway and let it finish
    what it has begun; nothing is killed here.
  - Writes down first what it stops (C(/run/bedplate/drained)), so that a run that was cut off is completed by the next
    one, and a unit that somebody else stopped stays stopped.
  - Brings back what was drained, and waits until it is ready.
options:
  units:
    description: Names of the units; those that the host does not have are passed over.
    type: list
    elements: str
    required: true
  state:
    description: Whether the units are taken out or brought back.
    type: str
    choices: [drained, admitted]
    required: true
  also:
    description: >-
      Units that this run has taken out before, and that are to come back although a reboot has cleared what was written
      down about them.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Says which units would be stopped or started and touches none.
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
- name: Take the engine out
  bedplate.llm.service_drain:
    units: [bedplate-vllm.service]
    state: drained

- name: Bring the engine back and wait until it generates
  bedplate.llm.service_drain:
    units: [bedplate-vllm.service]
    state: admitted
"""

RETURN = r"""
units:
  description: The units that were, or in check mode would be, stopped or started.
  returned: always
  type: list
  elements: str
  sample: [bedplate-vllm.service]
drained:
  description: The units that are out since this run or an earlier one.
  returned: always
  type: list
  elements: str
seconds:
  description: How long that took, in seconds.
  returned: always
  type: float
"""

import contextlib
import os
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import service_drain
from ansible_collections.bedplate.llm.plugins.module_utils.processes import parse_show
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_service import explain_failure

C_LOCALE = {"LC_ALL": "C", "LANGUAGE": "C"}


def marked():
    try:
        with open(service_drain.MARKER, encoding="utf-8") as handle:
            return service_drain.parse_marker(handle.read())
    except FileNotFoundError:
        return ()


def mark(units):
    """Before anything is stopped, and by a rename: what is out is always written down."""
    folder = os.path.dirname(service_drain.MARKER)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".drained-", dir=folder)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write("".join(f"{unit}\n" for unit in units))
    os.replace(temporary, service_drain.MARKER)


def unmark():
    with contextlib.suppress(FileNotFoundError):
        os.unlink(service_drain.MARKER)


def look(module, name):
    command = ["systemctl", "show", "--property", "LoadState,ActiveState", "--", name]
    shown = parse_show(module.run_command(command, check_rc=True, environ_update=C_LOCALE)[1])
    return service_drain.Unit(name, shown.get("LoadState", ""), shown.get("ActiveState", ""))


def journal_since(module, unit, moment):
    command = ["journalctl", "-u", unit, "--since", f"@{int(moment)}", "-o", "cat", "--no-pager"]
    return module.run_command(command, environ_update=C_LOCALE)[1].splitlines()


def stop(module, unit):
    code, out, err = module.run_command(["systemctl", "stop", "--", unit], environ_update=C_LOCALE)
    state = look(module, unit)
    if code or state.is_up:
        said = err.strip() or out.strip() or f"it is {state.active_state}"
        module.fail_json(
            msg=f"{unit} does not stop: {said[-500:]}. Nothing was killed; `journalctl -u {unit}` says more."
        )


def start(module, unit):
    moment = time.time()
    if module.run_command(["systemctl", "start", "--", unit], environ_update=C_LOCALE)[0]:
        reason = explain_failure(journal_since(module, unit, moment))
        module.fail_json(
            msg=f"{unit} was taken out and does not come back; its reason: {reason} (All it said:"
            f" `journalctl -u {unit}`.) It stays out of service until it starts; the next run tries again."
        )


def main():
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": ["drained", "admitted"], "required": True},
            "also": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    before = marked()
    units = [look(module, name) for name in dict.fromkeys([*given["units"], *given["also"], *before])]
    draining = given["state"] == "drained"
    decide = service_drain.drain if draining else service_drain.admit
    steps = decide(units, before, given["also"])
    started = time.monotonic()
    if not module.check_mode:
        if draining and steps.marked != before:
            mark(steps.marked)
        for unit in steps.stop:
            stop(module, unit)
        for unit in steps.start:
            start(module, unit)
        if not draining:
            unmark()
    module.exit_json(
        changed=bool(steps.stop or steps.start),
        units=list(steps.stop or steps.start),
        drained=list(steps.marked) if draining else [],
        seconds=round(time.monotonic() - started, 1),
    )


if __name__ == "__main__":
    main()
