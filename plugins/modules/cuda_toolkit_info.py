#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cuda_toolkit_info
short_description: Whether a host has the wanted version of CUDA's toolkit
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Asks the compiler itself for its version, and the package manager for the packages.
  - Never changes anything, and does not fail because of what it finds.
options:
  version:
    description: CUDA's version, major and minor; empty when no toolkit is wanted, and then there is no check.
    type: str
    default: ''
  packages:
    description: Names of packages without the version at their end; empty for a toolkit that was brought otherwise.
    type: list
    elements: str
    default: []
  hold:
    description: Whether upgrades leave the packages alone.
    type: bool
    default: true
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
- name: See whether the compiler is there
  bedplate.llm.cuda_toolkit_info:
    version: "13.0"
    packages: [cuda-nvcc, cuda-cudart-dev]
"""

RETURN = r"""
checks:
  description: What holds and what does not, with C(id), C(ok), C(reason) and C(remedy).
  returned: always
  type: list
  elements: dict
refused:
  description: Why this toolkit must not be installed beside the host's driver, or nothing.
  returned: always
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import cuda_toolkit as toolkit
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.cuda_toolkit_host import look
from ansible_collections.bedplate.llm.plugins.module_utils.package_source import SourceError


def main():
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "default": ""},
            "packages": {"type": "list", "elements": "str", "default": []},
            "hold": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C", "LANGUAGE": "C"}
    asked = module.params
    if not asked["version"]:
        module.exit_json(changed=False, checks=[], refused="")
    wanted = toolkit.Wanted(asked["version"], tuple(asked["packages"]), asked["hold"])
    try:
        found = look(wanted, module.run_command, Path("/"))
    except SourceError as error:
        module.fail_json(msg=str(error))
    judged = toolkit.checks(wanted, found) if wanted.packages else [toolkit.by_hand(wanted, found)]
    module.exit_json(changed=False, checks=as_dicts(judged), refused=toolkit.refusal(wanted, found) or "")


if __name__ == "__main__":
    main()
