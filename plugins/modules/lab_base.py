#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: lab_base
short_description: Build the base image of lab machines once
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Builds a minimal system of this machine's own distribution and release from this machine's own package mirrors, and
    keeps it in a cache under the digest of its recipe.
  - With the image in the cache the network is not needed.
options:
  kind:
    description: The kind of machine that the image is for.
    type: str
    choices: [container, vm]
    default: container
  packages:
    description: Packages to add to those that every lab machine has.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Reports whether an image would be built.
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
- name: Have a base image for containers that also holds a compiler
  bedplate.llm.lab_base:
    packages: [gcc]
"""

RETURN = r"""
image:
  description: Folder of the image.
  returned: success
  type: str
  sample: /var/cache/bedplate/lab/container-0123456789ab
seconds:
  description: How long the build took.
  returned: success
  type: float
  sample: 41.7
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.lab_build import build, image, recipe_here
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import LabError


def main():
    module = AnsibleModule(
        argument_spec={
            "kind": {"type": "str", "choices": ["container", "vm"], "default": "container"},
            "packages": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    began = time.monotonic()
    try:
        recipe = recipe_here(module.params["kind"], module.params["packages"])
        changed = not image(recipe).exists() if module.check_mode else build(recipe)
    except LabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, image=str(image(recipe)), seconds=round(time.monotonic() - began, 1))


if __name__ == "__main__":
    main()
