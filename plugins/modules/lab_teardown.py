#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: lab_teardown
short_description: Take a whole lab down and leave nothing of it behind
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Ends a playbook that is raising the lab at this moment, then removes every process, mount, namespace, interface,
    firewall table, control group, route and record of the lab, and gives the forwarding switch back its old value once
    no lab is left.
  - Goes by the lab's records, not by an inventory, so that it also finds what an interrupted run made or what the
    inventory no longer names.
  - Keeps the cache of base images, and the keys.
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
    description: Reports whether there is anything to remove.
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
- name: Take the lab down
  bedplate.llm.lab_teardown:
    lab: bedplate
    network: 10.87.0.0/24
    network6: fd87:b3d0::/64
"""

RETURN = r"""
ended:
  description: Number of the playbook's process that was ended first, or nothing.
  returned: success
  type: int
  sample: 4711
machines:
  description: Names of the machines that were, or in check mode would be, removed.
  returned: success
  type: list
  elements: str
  sample: [client1, llm1]
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.lab_host import (
    is_alive,
    machine_names,
    parents,
    read_session,
)
from ansible_collections.bedplate.llm.plugins.module_utils.lab_machines import take_down
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import LabError, parse_lab
from ansible_collections.bedplate.llm.plugins.module_utils.lab_session import other_session

ARGUMENTS = {
    "lab": {"type": "str", "required": True},
    "network": {"type": "str", "required": True},
    "network6": {"type": "str", "required": True},
}


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    try:
        lab = parse_lab(params["lab"], params["network"], params["network6"])
        record = read_session(lab.state)
        other = other_session(record, is_alive(record), [number for number, _command in parents(os.getpid())])
        machines = machine_names(lab.state)
        changed = lab.state.exists() if module.check_mode else take_down(lab, other)
    except LabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, ended=other, machines=machines)


if __name__ == "__main__":
    main()
