#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: assert_checks
short_description: Fail unless every check of a report holds
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Looks at the checks that another module returned and fails with all of those that do not hold,
    each with its reason and remedy.
  - Runs on the controller only; nothing is sent to the host.
options:
  checks:
    description:
      - The checks, as returned in C(checks) by the collection's modules.
      - An empty list fails, since it proves nothing.
    type: list
    elements: dict
    required: true
attributes:
  check_mode:
    description: Works the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  platform:
    description: Any, since it runs on the controller.
    support: full
    platforms: all
"""

EXAMPLES = r"""
- name: Prove the gateway from the outside
  bedplate.llm.gateway_probe:
    url: https://llm1.example:8443
  register: __gateway_verify
  delegate_to: localhost

- name: Require every check of the gateway role
  bedplate.llm.assert_checks:
    checks: "{{ __gateway_verify.checks }}"
"""

RETURN = r"""
msg:
  description: How many checks hold, or those that do not, one to a line.
  returned: always
  type: str
  sample: 9 checks hold.
"""
