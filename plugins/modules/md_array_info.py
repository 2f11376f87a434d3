#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: md_array_info
short_description: Tell whether RAID arrays are as declared, and whether a disk is missing
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Looks at every declared array and says what P(bedplate.llm.md_array#module) would do with it, or why
    it would refuse.
  - Returns checks of the arrays and of what watches them. Changes nothing.
options:
  arrays:
    description: The declared arrays, as in the role's C(md_arrays).
    type: list
    elements: dict
    default: []
  configuration:
    description: Where mdadm's configuration belongs on this distribution; one that stands elsewhere is used instead.
    type: path
    default: /etc/mdadm/mdadm.conf
  units:
    description: Units that have to run, also after the next boot, so that a failed disk does no harm and is told of.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Changes nothing in either mode.
    support: full
  diff_mode:
    description: Nothing to show.
    support: none
  platform:
    description: Linux hosts.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: See whether every disk takes part
  bedplate.llm.md_array_info:
    arrays: "{{ md_arrays }}"
  become: true
  register: found
"""

RETURN = r"""
arrays:
  description: The declared arrays as they are, in that order.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: As declared., type: str}
    decision: {description: "What a rollout would do: create, assemble, repair, keep or refuse.", type: str}
    problems: {description: Why it would refuse., type: list, elements: str}
    path: {description: Where it runs; empty when it does not., type: str}
    uuid: {description: Of the array; empty when it does not run., type: str}
    size: {description: Bytes., type: int}
    degraded: {description: How many disks it lacks., type: int}
    action: {description: "What the kernel does with it: idle, resync, recover, check …", type: str}
    done: {description: Sectors of that action that are done., type: int}
    total: {description: Sectors of that action., type: int}
    members:
      description: The disks that the kernel counts to it.
      type: list
      elements: dict
      contains:
        path: {description: Device; empty when it is gone., type: str}
        serial: {description: Serial number., type: str}
        states: {description: As the kernel has them., type: list, elements: str}
waiting:
  description: Ids of checks that fail only as long as data are being copied to a new disk.
  returned: always
  type: list
  elements: str
checks:
  description: Checks of the arrays and of what watches them.
  returned: always
  type: list
  elements: dict
  contains:
    id: {description: Dotted name., type: str}
    ok: {description: Whether it holds., type: bool}
    reason: {description: What was found., type: str}
    remedy: {description: What to do when it does not hold., type: str}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import block_device_host, md_array_checks
from ansible_collections.bedplate.llm.plugins.module_utils.block_device_host import BlockDeviceError
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.cryptsetup import module_runner
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_declared import parse
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_host import ArrayError, ArrayHost, Boot
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import RecordError


def look(host, boot):
    found = host.look()
    return md_array_checks.State(
        decision=found.decision,
        disks=found.disks,
        live=found.live,
        leads_to=os.path.realpath(host.array.device) if os.path.exists(host.array.device) else "",
        configuration=boot.path,
        configured=bool(found.live) and not boot.wanted(host.array, found.live.uuid),
    )


def described(array, state):
    live = state.live
    return {
        "name": array.name,
        "decision": state.decision.action,
        "problems": list(state.decision.problems),
        "path": live.path if live else "",
        "uuid": live.uuid if live else "",
        "size": live.size if live else 0,
        "degraded": live.degraded if live else 0,
        "action": live.action if live else "",
        "done": live.done if live else 0,
        "total": live.total if live else 0,
        "members": [
            {"path": member.path, "serial": member.serial, "states": sorted(member.states)}
            for member in (live.members if live else ())
        ],
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "arrays": {"type": "list", "elements": "dict", "default": []},
            "configuration": {"type": "path", "default": "/etc/mdadm/mdadm.conf"},
            "units": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    arrays, problems = parse(module.params["arrays"])
    if problems:
        module.fail_json(msg=" ".join(problems))
    run = module_runner(module)
    boot = Boot(module.params["configuration"])
    try:
        states = [(array, look(ArrayHost(array, run), boot)) for array in arrays]
    except (ArrayError, BlockDeviceError, RecordError) as error:
        module.fail_json(msg=f"{error}.")
    ask = block_device_host.asking(run)
    units = [
        (unit, all(ask(["systemctl", what, "--quiet", unit])[0] == 0 for what in ("is-active", "is-enabled")))
        for unit in module.params["units"]
    ]
    checks = [check for array, state in states for check in md_array_checks.of_array(array, state)]
    module.exit_json(
        changed=False,
        arrays=[described(array, state) for array, state in states],
        waiting=[identifier for array, state in states for identifier in md_array_checks.waiting(array, state)],
        checks=as_dicts(checks + md_array_checks.of_host(units)),
    )


if __name__ == "__main__":
    main()
