#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: lab_info
short_description: Tell what of a lab exists
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Reads the records and processes of a lab. Needs no root for a lab that does not exist, and root otherwise.
options:
  lab:
    description: Name of the lab; every bridge, table and folder is named after it.
    type: str
    required: true
  network:
    description: IPv4 network of the lab; the operator has its first address.
    type: str
    required: true
  network6:
    description: IPv6 network of the lab; the operator has its first address.
    type: str
    required: true
attributes:
  check_mode:
    description: Never changes anything.
    support: full
  diff_mode:
    description: Nothing here is text that a reader would compare.
    support: none
  platform:
    description: Runs on the operator's own machine, which is Debian or Ubuntu.
    support: full
    platforms: debian
"""

EXAMPLES = r"""
- name: See which machines of the lab run
  bedplate.llm.lab_info:
    lab: bedplate
    network: 10.87.0.0/24
    network6: fd87:b3d0::/64
  register: lab
"""

RETURN = r"""
exists:
  description: Whether the lab has a network.
  returned: success
  type: bool
outside:
  description: Whether its machines reach the outside.
  returned: success
  type: bool
machines:
  description: The lab's machines as they were declared, with what they are doing.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the machine.
      type: str
    kind:
      description: Kind of the machine.
      type: str
    address:
      description: Its IPv4 address.
      type: str
    running:
      description: Whether it runs.
      type: bool
    reachable:
      description: Whether its ssh server greets.
      type: bool
    console:
      description: File with everything that it has printed since it was made.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.lab_host import read_json, recorded_machines
from ansible_collections.bedplate.llm.plugins.module_utils.lab_machines import answers, runs
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import LabError, parse_lab

ARGUMENTS = {
    "lab": {"type": "str", "required": True},
    "network": {"type": "str", "required": True},
    "network6": {"type": "str", "required": True},
}


def describe(lab, name, record):
    running = runs(lab, name)
    return {
        **record,
        "running": running,
        "reachable": running and "address" in record and answers(record["address"]),
        "console": str(lab.machine_state(name) / "console.log"),
    }


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    try:
        lab = parse_lab(params["lab"], params["network"], params["network6"])
        record = read_json(lab.state / "lab.json")
        machines = [describe(lab, name, found) for name, found in recorded_machines(lab.state).items()]
    except LabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False, exists=record is not None, outside=bool(record and record["outside"]), machines=machines
    )


if __name__ == "__main__":
    main()
