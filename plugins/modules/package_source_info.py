#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: package_source_info
short_description: Whether a host has exactly the package sources that a role wants
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Compares the sources and keyrings of a host with those that a role wants, and says what differs.
  - Never changes anything, and does not fail because of what it finds.
options:
  owner:
    description: Name of the role that wants the sources; the checks have it before their own name.
    type: str
    required: true
  sources:
    description: The sources, as the filter P(bedplate.llm.package_source_resolve#filter) gives them.
    type: list
    elements: dict
    required: true
  proxy:
    description: Address of a proxy for the hosts of these sources.
    type: str
    default: ''
attributes:
  check_mode:
    description: Works the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  platform:
    description: Debian and Ubuntu; RHEL and its rebuilds.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: See whether the sources are as declared
  bedplate.llm.package_source_info:
    owner: nvidia_driver
    sources: "{{ nvidia_driver_repository | bedplate.llm.package_source_resolve }}"
"""

RETURN = r"""
checks:
  description: What holds and what does not, with C(id), C(ok), C(reason) and C(remedy).
  returned: always
  type: list
  elements: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import package_source_host as host
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.package_source import SourceError, parse_all
from ansible_collections.bedplate.llm.plugins.module_utils.package_source_plan import Wish, checks


def main():
    module = AnsibleModule(
        argument_spec={
            "owner": {"type": "str", "required": True},
            "sources": {"type": "list", "elements": "dict", "required": True},
            "proxy": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C", "LANGUAGE": "C"}
    try:
        wish = Wish(module.params["owner"], tuple(parse_all(module.params["sources"])), module.params["proxy"])
        state = host.read_state(wish.sources, 0, module.run_command, time.time())
    except SourceError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, checks=as_dicts(checks(wish, state)))


if __name__ == "__main__":
    main()
