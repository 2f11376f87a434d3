#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gateway_probe
short_description: Prove from the outside that a gateway lets in who it should, and nobody else
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Connects to a gateway as a client does and returns checks about its certificate, TLS versions, refusals and, with a
    token, about the answers of the model behind it.
  - Never fails because a check does not hold; use M(bedplate.llm.assert_checks) for that.
options:
  address:
    description: Address or name to connect to.
    type: str
    required: true
  port:
    description: TCP port.
    type: int
    required: true
  server_name:
    description: Name that the certificate has to be for, and that requests ask for.
    type: str
    required: true
  authority:
    description: Certificate of the authority to trust, in PEM. Empty means the system's own authorities.
    type: str
    default: ''
  tls_minimum_version:
    description: V(1.3) has the refusal of TLS 1.2 checked too.
    type: str
    choices: ['1.2', '1.3']
    default: '1.3'
  token:
    description: A valid bearer token. Without it, one check fails and the model is not asked.
    type: str
    default: ''
  token_remedy:
    description: How to give a token, said by the check that fails without one.
    type: str
    default: Set token to a valid bearer token.
  model:
    description: Name of a model that has to be listed; empty means any.
    type: str
    default: ''
  timeout:
    description: Seconds to wait for an answer of the gateway itself.
    type: int
    default: 5
  generation_timeout:
    description: Seconds to wait for an answer of the model.
    type: int
    default: 120
attributes:
  check_mode:
    description: It changes nothing, so it does the same.
    support: full
  diff_mode:
    description: Nothing to show.
    support: none
  platform:
    description: Any machine with Python that a client could be.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Ask the gateway from another machine than its own
  bedplate.llm.gateway_probe:
    address: 192.0.2.11
    port: 8443
    server_name: llm1.example.org
    token: "{{ lookup('ansible.builtin.env', 'BEDPLATE_TOKEN') }}"
  delegate_to: localhost
"""

RETURN = r"""
checks:
  description: The checks, each with id, ok, reason and remedy.
  returned: always
  type: list
  elements: dict
  sample:
    - {id: gateway.health, ok: true, reason: /healthz answers 200., remedy: ''}
"""

import ssl

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.gateway_checks import Expectation, probe
from ansible_collections.bedplate.llm.plugins.module_utils.gateway_client import Target


def main():
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "server_name": {"type": "str", "required": True},
            "authority": {"type": "str", "default": ""},
            "tls_minimum_version": {"type": "str", "choices": ["1.2", "1.3"], "default": "1.3"},
            "token": {"type": "str", "default": "", "no_log": True},
            "token_remedy": {
                "type": "str",
                "default": "Set token to a valid bearer token.",
                "no_log": False,
            },
            "model": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 5},
            "generation_timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    given = module.params
    target = Target(given["address"], given["port"], given["server_name"], given["authority"], given["timeout"])
    expected = Expectation(
        given["tls_minimum_version"],
        given["token"],
        given["token_remedy"],
        given["model"],
        given["generation_timeout"],
    )
    try:
        checks = probe(target, expected)
    except ssl.SSLError as error:
        module.fail_json(msg=f"gateway_probe: authority is not a certificate in PEM: {error}.")
    module.exit_json(changed=False, checks=as_dicts(checks))


if __name__ == "__main__":
    main()
