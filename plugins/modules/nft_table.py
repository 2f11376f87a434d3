#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nft_table
short_description: Bring the own firewall table into force, with a way back
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Replaces the table C(inet bedplate) in one transaction and touches no other table.
  - A timer on the host puts the former rules back after O(confirm_timeout), unless a new connection from the
    controller, made after the rules came into force, confirms them. Only then are they written for the next boot.
  - Fails, after the host has rolled back, when the new connection is not possible.
  - Meant for connections over the network, such as P(ansible.builtin.ssh#connection);
    others cannot be cut off by the rules and so prove nothing.
options:
  state:
    description: Whether the table, its file and its boot unit exist.
    type: str
    choices: [present, absent]
    default: present
  ruleset:
    description:
      - The script, as rendered by P(bedplate.llm.nft_ruleset#filter). Required when O(state=present).
      - A script that touches any other table, or flushes them, is refused.
    type: str
  denied_users:
    description: Local users that the rules name; without one of them, check mode cannot compare and reports a change.
    type: list
    elements: str
    default: []
  operator_networks:
    description:
      - When given, rules are refused before any change if the ssh connection that brought this module does not come
        from one of these networks.
    type: list
    elements: str
    default: []
  ssh_port:
    description: When given, rules are refused before any change if this ssh connection does not end at this port.
    type: int
  confirm_timeout:
    description: Seconds, 10 or more, until the host rolls back by itself.
    type: int
    default: 60
  phase:
    description: Set by the action plugin; do not set it yourself.
    type: str
    choices: [apply, confirm]
    default: apply
  change:
    description: Names one change, set by the action plugin.
    type: str
attributes:
  check_mode:
    description: Reports whether the rules would change; works on a host without nft.
    support: full
  diff_mode:
    description: Shows the file of the rules before and after.
    support: full
  action:
    description: The controller's part makes the new connection that confirms.
    support: full
  platform:
    description: Linux hosts with systemd.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Bring the declared rules into force
  bedplate.llm.nft_table:
    ruleset: "{{ {'operator_networks': ['192.0.2.0/24']} | bedplate.llm.nft_ruleset }}"
    operator_networks: [192.0.2.0/24]
    ssh_port: 22

- name: Take the table away again
  bedplate.llm.nft_table:
    state: absent
"""

RETURN = r"""
confirmed:
  description: Whether a new connection confirmed the rules in this run.
  returned: when the rules changed
  type: bool
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.nft_host import Host, HostError, find_peer
from ansible_collections.bedplate.llm.plugins.module_utils.nft_state import FILE, would_cut


def diff(state, after):
    return {"before_header": FILE, "after_header": FILE, "before": state.stored or "", "after": after}


def apply(module, host):
    """First half: in force, with the timer running, unless nothing needs to be done or the rules would cut us off."""
    params = module.params
    ruleset = params["ruleset"]
    if host.nft is None and not module.check_mode:
        module.fail_json(msg="nft_table: the program nft is not on this host; install the package nftables.")
    state = host.state(ruleset, params["denied_users"])
    if state.settled(ruleset):
        return {"changed": False, "pending": False}
    peer = find_peer(os.getpid())
    reason = would_cut(peer, params["operator_networks"], params["ssh_port"])
    if reason:
        module.fail_json(msg=f"nft_table: the rules were not applied, since they would lock you out: {reason}.")
    result = {"changed": True, "diff": diff(state, ruleset), "pending": False}
    if module.check_mode:
        return result
    if state.pending:
        host.roll_back_now()
        state = host.state(ruleset, params["denied_users"])
    if state.in_force:
        # The connection that runs this has proved the rules already; only the files were not as they should be.
        host.persist(ruleset)
        return result
    change = {"change": params["change"], "client_port": peer.port if peer else None}
    host.arm_and_apply(ruleset, change, params["confirm_timeout"])
    return dict(result, pending=True)


def confirm(module, host):
    """Second half, over the new connection."""
    params = module.params
    pending = host.pending_change()
    if pending is None or pending["change"] != params["change"]:
        rolled_back = host.rolled_back_change()
        happened = bool(rolled_back and rolled_back["change"] == params["change"])
        return {"changed": False, "confirmed": False, "outcome": "rolled-back" if happened else "unknown"}
    peer = find_peer(os.getpid())
    if peer is not None and peer.port == pending["client_port"]:
        return {"changed": False, "confirmed": False, "outcome": "same-connection"}
    host.stop_timer()
    if not host.state(params["ruleset"], params["denied_users"]).in_force:
        # The timer was faster than we; its service may still be moving the evidence.
        return {"changed": False, "confirmed": False, "outcome": "rolled-back"}
    host.persist(params["ruleset"])
    return {"changed": True, "confirmed": True, "outcome": "confirmed"}


def take_away(module, host):
    state = host.state("", [])
    if not state.gone and not module.check_mode:
        host.take_away()
    return {"changed": not state.gone, "diff": diff(state, ""), "pending": False}


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "ruleset": {"type": "str"},
            "denied_users": {"type": "list", "elements": "str", "default": []},
            "operator_networks": {"type": "list", "elements": "str", "default": []},
            "ssh_port": {"type": "int"},
            "confirm_timeout": {"type": "int", "default": 60},
            "phase": {"type": "str", "choices": ["apply", "confirm"], "default": "apply"},
            "change": {"type": "str"},
        },
        required_if=[("state", "present", ["ruleset"])],
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C", "LANGUAGE": "C"}
    if module.params["confirm_timeout"] < 10:
        module.fail_json(msg=f"confirm_timeout must be at least 10 seconds, found {module.params['confirm_timeout']}.")
    host = Host(module.run_command, module.get_bin_path("nft", opt_dirs=["/usr/sbin", "/sbin"]))
    step = (
        take_away
        if module.params["state"] == "absent"
        else {"apply": apply, "confirm": confirm}[module.params["phase"]]
    )
    try:
        result = step(module, host)
    except HostError as error:
        module.fail_json(msg=f"nft_table: {error}.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
