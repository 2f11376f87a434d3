# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
name: gateway_token
short_description: A short-lived token of the site's own issuer
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Signs an ES256 token with C(token.key) of the site's secrets directory, on the controller, where that key stays.
options:
  _terms:
    description: The site's secrets directory.
    required: true
  issuer:
    description: Value of the claim C(iss).
    type: str
    required: true
  audience:
    description: Value of the claim C(aud).
    type: str
    required: true
  subject:
    description: Value of the claim C(sub), under which the requests are logged.
    type: str
    required: true
  scopes:
    description: Values of the claim C(scope).
    type: list
    elements: str
    default: []
  lifetime:
    description: Seconds until the token expires.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Ask the gateway with a token that is worth nothing a minute later
  bedplate.llm.gateway_probe:
    address: "{{ ansible_host }}"
    port: 8443
    server_name: "{{ inventory_hostname }}"
    token: >-
      {{ lookup('bedplate.llm.gateway_token', bedplate_secrets_dir, issuer='urn:bedplate:site', audience='bedplate',
                subject='bedplate-verify') }}
"""

RETURN = r"""
_raw:
  description: One token for every secrets directory.
  type: list
  elements: str
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.bedplate.llm.plugins.module_utils.gateway_jwt import TokenError, mint


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        names = ("issuer", "audience", "subject", "scopes", "lifetime")
        claims = {name: self.get_option(name) for name in names}
        try:
            return [mint(secrets_dir, **claims) for secrets_dir in terms]
        except TokenError as error:
            raise AnsibleLookupError(f"gateway_token: {error}") from error
