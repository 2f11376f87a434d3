#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: lab_network
short_description: Make the private network of a lab
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Makes a bridge with the operator's two addresses, and a firewall table of the lab's own that decides whether its
    machines reach the outside. Other tables are never touched.
  - Takes effect on a lab that is up, so that its outside can be switched off and on.
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
  outside:
    description:
      - Whether machines reach the networks beyond the operator's machine, over IPv4 and behind its address.
      - Without it they reach each other, answer the operator, and everything else that they start is refused.
    type: bool
    default: true
attributes:
  check_mode:
    description: Reports what would be made.
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
- name: Cut a running lab off from the internet
  bedplate.llm.lab_network:
    lab: bedplate
    network: 10.87.0.0/24
    network6: fd87:b3d0::/64
    outside: false
"""

RETURN = r"""
changes:
  description: What was, or in check mode would be, made.
  returned: success
  type: list
  elements: str
  sample: [bridge, firewall, forwarding]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import LabError, parse_lab
from ansible_collections.bedplate.llm.plugins.module_utils.lab_network import make_network, network_changes

ARGUMENTS = {
    "lab": {"type": "str", "required": True},
    "network": {"type": "str", "required": True},
    "network6": {"type": "str", "required": True},
    "outside": {"type": "bool", "default": True},
}


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    try:
        lab = parse_lab(params["lab"], params["network"], params["network6"])
        changes = (network_changes if module.check_mode else make_network)(lab, params["outside"])
    except LabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(changes), changes=changes)


if __name__ == "__main__":
    main()
