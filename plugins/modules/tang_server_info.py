#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: tang_server_info
short_description: Look at a host's tang server and its keys
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Looks where the tang server listens, how it is confined, and which keys it has, and returns checks.
  - Of keys only the public part leaves the host.
  - A check that does not hold is a result and not a failure of the module.
options:
  addresses:
    description: Addresses on which it has to listen.
    type: list
    elements: str
    required: true
  port:
    description: TCP port on which it has to listen.
    type: int
    required: true
attributes:
  check_mode:
    description: Works the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  platform:
    description: Linux hosts with systemd and C(ss).
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Look at the tang server
  bedplate.llm.tang_server_info:
    addresses: ["0.0.0.0", "::"]
    port: 7654
  register: __tang_server_verify
"""

RETURN = r"""
checks:
  description: What holds and what does not, with C(id), C(ok), C(reason) and C(remedy).
  returned: always
  type: list
  elements: dict
  sample: [{id: tang_server.sandboxed, ok: true, reason: tangd runs without network and with a read-only system.}]
installed:
  description: Whether the host has tang.
  returned: always
  type: bool
settled:
  description: Whether systemd has nothing to load or to start again.
  returned: always
  type: bool
keys:
  description: Every key, with its C(use), C(thumbprint), whether it is C(hidden), and its C(public) part.
  returned: always
  type: list
  elements: dict
  sample: [{use: signing, thumbprint: HHgp5m0INKNP4rgFAyjP82MbqcISzDvY-cUDE3e7PtU, hidden: false, public: {crv: P-521}}]
ansible_facts:
  description: What clients of the server have to know.
  returned: always
  type: dict
  contains:
    bedplate_tang:
      description: The C(port), and the thumbprints of the C(signing), C(exchange) and C(hidden) keys.
      type: dict
      sample: {port: 7654, signing: [HHgp5m0INKNP4rgFAyjP82MbqcISzDvY-cUDE3e7PtU], exchange: [], hidden: []}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.tang import EXCHANGE, SIGNING, TangError, advertised
from ansible_collections.bedplate.llm.plugins.module_utils.tang_checks import evaluate, settled
from ansible_collections.bedplate.llm.plugins.module_utils.tang_host import look


def main():
    module = AnsibleModule(
        argument_spec={
            "addresses": {"type": "list", "elements": "str", "required": True},
            "port": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    port = module.params["port"]
    try:
        server = look(lambda argv: module.run_command(list(argv), environ_update={"LC_ALL": "C", "LANGUAGE": "C"}))
        checks = evaluate(server, module.params["addresses"], port)
    except (TangError, ValueError) as error:
        module.fail_json(msg=f"tang_server_info: {error}.")
    module.exit_json(
        changed=False,
        checks=as_dicts(checks),
        installed=server.folder is not None,
        settled=server.folder is not None and settled(checks),
        keys=[key.as_dict() for key in server.keys],
        ansible_facts={
            "bedplate_tang": {
                "port": port,
                "signing": [key.thumbprint for key in advertised(server.keys, SIGNING)],
                "exchange": [key.thumbprint for key in advertised(server.keys, EXCHANGE)],
                "hidden": [key.thumbprint for key in server.keys if key.hidden],
            }
        },
    )


if __name__ == "__main__":
    main()
