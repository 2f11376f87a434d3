#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nft_table_info
short_description: Compare a host's firewall with the declared rules
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Compares the table C(inet bedplate) that the kernel holds with what the given script would make there, tried in a
    network namespace of its own, and the files that the next boot loads.
  - Never changes anything.
options:
  ruleset:
    description: The script, as rendered by P(bedplate.llm.nft_ruleset#filter).
    type: str
    required: true
  denied_users:
    description: Local users that the rules name; nft does not accept a rule about a user that does not exist.
    type: list
    elements: str
    default: []
  operator_networks:
    description: When given, it is judged whether the rules admit the ssh connection that brought this module.
    type: list
    elements: str
    default: []
  ssh_port:
    description: When given, it is judged whether this ssh connection ends at this port.
    type: int
  port_forwarding_allowed:
    description: Whether other tables may forward ports, as container engines do for published ports.
    type: bool
    default: false
attributes:
  check_mode:
    description: Works the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  platform:
    description: Linux hosts with systemd.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Compare the firewall with the inventory
  bedplate.llm.nft_table_info:
    ruleset: "{{ {'operator_networks': ['192.0.2.0/24']} | bedplate.llm.nft_ruleset }}"
  register: __firewall_verify
"""

RETURN = r"""
checks:
  description: The statements about this host's firewall, each with C(id), C(ok), C(reason) and C(remedy).
  returned: always
  type: list
  elements: dict
  sample: [{id: firewall.default-deny, ok: true, reason: Input and output drop what no rule accepts., remedy: ''}]
settled:
  description: Whether nothing is left to do; false as well while nothing can be compared.
  returned: always
  type: bool
lockout:
  description: Why the rules would cut the connection that brought this module, empty when they would not.
  returned: always
  type: str
nft:
  description: Path of the program, or nothing when it is not installed.
  returned: always
  type: str
  sample: /usr/sbin/nft
missing_users:
  description: Those of O(denied_users) that the host does not have.
  returned: always
  type: list
  elements: str
other_firewalls:
  description: Other firewall services that are active; a packet must pass theirs as well.
  returned: always
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.nft_host import Host, HostError, find_peer
from ansible_collections.bedplate.llm.plugins.module_utils.nft_state import checks, would_cut


def main():
    module = AnsibleModule(
        argument_spec={
            "ruleset": {"type": "str", "required": True},
            "denied_users": {"type": "list", "elements": "str", "default": []},
            "operator_networks": {"type": "list", "elements": "str", "default": []},
            "ssh_port": {"type": "int"},
            "port_forwarding_allowed": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C", "LANGUAGE": "C"}
    host = Host(module.run_command, module.get_bin_path("nft", opt_dirs=["/usr/sbin", "/sbin"]))
    ruleset = module.params["ruleset"]
    lockout = would_cut(find_peer(os.getpid()), module.params["operator_networks"], module.params["ssh_port"])
    try:
        state = host.state(ruleset, module.params["denied_users"])
    except HostError as error:
        module.fail_json(msg=f"nft_table_info: {error}")
    module.exit_json(
        changed=False,
        checks=as_dicts(checks(state, ruleset, lockout, module.params["port_forwarding_allowed"])),
        lockout=lockout,
        settled=state.settled(ruleset),
        nft=state.nft,
        missing_users=list(state.missing_users),
        other_firewalls=list(state.others),
    )


if __name__ == "__main__":
    main()
