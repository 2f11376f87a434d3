#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: container_toolkit_info
short_description: Look whether a host's containers can be given its GPUs
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Looks at the container engine, at NVIDIA's container toolkit with the security faults of its version, and at the CDI
    specification, which must be of the driver that is loaded and of the GPUs that are there.
  - A check that does not hold is a result and not a failure of the module.
options:
  gpus:
    description: The fact C(bedplate_gpus) of P(bedplate.llm.gpu_info#module).
    type: dict
    required: true
  engine:
    description: The container engine.
    type: str
    choices: [podman, docker]
    default: podman
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
- name: Look whether containers can be given the GPUs
  bedplate.llm.container_toolkit_info:
    gpus: "{{ ansible_facts.bedplate_gpus }}"
  register: __container_toolkit_verify
"""

RETURN = r"""
checks:
  description: What holds and what does not, with C(id), C(ok), C(reason) and C(remedy).
  returned: always
  type: list
  elements: dict
  sample: [{id: container_toolkit.cdi-one-spec, ok: true, reason: The GPUs are described in /run/cdi/nvidia.yaml.}]
toolkit:
  description: Version of NVIDIA's container toolkit; empty when the host has none.
  returned: always
  type: str
engine:
  description: Container engine and its version; empty when the host has none.
  returned: always
  type: str
libraries:
  description: Versions of the driver's libraries that the specifications name.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.container_toolkit import evaluate
from ansible_collections.bedplate.llm.plugins.module_utils.container_toolkit_look import gpus_of, look


def main():
    module = AnsibleModule(
        argument_spec={
            "gpus": {"type": "dict", "required": True},
            "engine": {"type": "str", "choices": ["podman", "docker"], "default": "podman"},
        },
        supports_check_mode=True,
    )

    def run(argv):
        return module.run_command(list(argv), environ_update={"LC_ALL": "C", "LANGUAGE": "C"})

    seen = look(run, module.params["engine"])
    module.exit_json(
        changed=False,
        checks=as_dicts(evaluate(seen, gpus_of(module.params["gpus"]))),
        toolkit=seen.toolkit,
        engine=seen.engine,
        libraries=sorted({version for spec in seen.specs for version in spec.libraries}),
    )


if __name__ == "__main__":
    main()
