#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cdi_spec
short_description: Have the host's GPUs described for containers, by the driver that is loaded
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Compares the host's CDI specification of NVIDIA's GPUs with the driver that is loaded, and the GPUs and parts of
    GPUs that it has, and lets NVIDIA's toolkit make the specification anew when they differ.
  - Has systemd watch for changes of MIG, so that the specification is made anew then too.
  - Restarts no container. One that runs keeps the devices that it was given.
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
    description: Says which steps would be taken and takes none.
    support: full
  diff_mode:
    description: Nothing to show.
    support: none
  platform:
    description: Linux hosts with systemd.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Look at the GPUs
  bedplate.llm.gpu_info:
  register: __gpus

- name: Have them described for containers
  bedplate.llm.cdi_spec:
    gpus: "{{ __gpus.ansible_facts.bedplate_gpus }}"
"""

RETURN = r"""
steps:
  description: The steps that were, or in check mode would be, taken.
  returned: always
  type: list
  elements: str
  sample: [generate]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.container_toolkit import decide
from ansible_collections.bedplate.llm.plugins.module_utils.container_toolkit_look import SERVICE, WATCH, gpus_of, look
from ansible_collections.bedplate.llm.plugins.module_utils.processes import parse_show

C_LOCALE = {"LC_ALL": "C", "LANGUAGE": "C"}
ARGV = {
    "daemon-reload": ["systemctl", "daemon-reload"],
    "enable": ["systemctl", "enable", "--quiet", WATCH],
    "start": ["systemctl", "start", WATCH],
    "generate": ["systemctl", "start", SERVICE],
}


def main():
    module = AnsibleModule(
        argument_spec={
            "gpus": {"type": "dict", "required": True},
            "engine": {"type": "str", "choices": ["podman", "docker"], "default": "podman"},
        },
        supports_check_mode=True,
    )

    def run(argv):
        return module.run_command(list(argv), environ_update=C_LOCALE)

    shown = [
        parse_show(run(["systemctl", "show", unit, "-p", "LoadState,ActiveState,UnitFileState,NeedDaemonReload"])[1])
        for unit in (WATCH, SERVICE)
    ]
    steps = decide(
        look(run, module.params["engine"]),
        gpus_of(module.params["gpus"]),
        needs_reload=any(
            unit.get("NeedDaemonReload") == "yes" or unit.get("LoadState") == "not-found" for unit in shown
        ),
        enabled=shown[0].get("UnitFileState") == "enabled",
        active=shown[0].get("ActiveState") == "active",
    )
    for step in [] if module.check_mode else steps:
        code, out, err = run(ARGV[step])
        if code and step == "generate":
            said = run(["journalctl", "-u", SERVICE, "-n", "5", "-o", "cat", "--no-pager"])[1]
            module.fail_json(
                msg=f"NVIDIA's toolkit cannot describe the GPUs; it says: {' '.join(said.split())[-800:]} (Look at the"
                " driver with nvidia-smi.)",
                rc=code,
            )
        elif code:
            module.fail_json(msg=f"`{' '.join(ARGV[step])}` failed; it says: {(err or out).strip()[-500:]}", rc=code)
    module.exit_json(changed=bool(steps), steps=steps)


if __name__ == "__main__":
    main()
