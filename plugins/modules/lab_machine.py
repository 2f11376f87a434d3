#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: lab_machine
short_description: Run a machine of a lab, or remove it
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Creates a machine from its base image and starts it, or starts one again that has ended, with its disks as they are;
    waits until the operator can log in with the pinned host key and the boot is complete.
  - An emulated machine that was created just now and does not come through its first boot is made once more, with a
    warning that says what was found. One that was there before never is.
  - A machine that exists with another declaration is refused, since its disks may hold something of value.
options:
  lab:
    description: Name of the lab; every bridge, table and folder is named after it.
    type: str
    required: true
  network:
    description: IPv4 network of the lab; the operator has its first address.
    type: str
    required: true
  network6:
    description: IPv6 network of the lab; the operator has its first address.
    type: str
    required: true
  name:
    description: Name of the machine, which is its host name.
    type: str
    required: true
  kind:
    description: A systemd container that shares this machine's kernel, or a virtual machine with its own.
    type: str
    choices: [container, vm]
    default: container
  address:
    description: IPv4 address of the machine in O(network). Its IPv6 address has the same place in O(network6).
    type: str
  memory:
    description: Memory of a virtual machine, as a number and C(M) or C(G). A container has this machine's.
    type: str
    default: 1G
  cpus:
    description: Processors of a virtual machine. A container has this machine's.
    type: int
    default: 1
  disks:
    description: Extra disks of a virtual machine, in any order. They start empty and survive its reboots.
    type: list
    elements: dict
    default: []
    suboptions:
      serial:
        description: Serial number, by which the machine finds the disk under C(/dev/disk/by-id/virtio-SERIAL).
        type: str
        required: true
      size:
        description: Size as a number and C(M), C(G) or C(T). Only what is written takes space.
        type: str
        required: true
  tpm:
    description: Whether a virtual machine has a software TPM 2.0.
    type: bool
    default: false
  gpu_profile:
    description:
      - Name or path of a profile of GPUs that the machine wears, to see what the collection makes of hardware
        that is not there. The machine gets a stand-in for the driver's library, which says so. Empty for none.
    type: str
  gpu_source:
    description: Folder with the stand-in's source and the profiles that O(gpu_profile) may name.
    type: path
  peers:
    description: IPv4 addresses of all machines of the lab by name, this one included.
    type: dict
    default: {}
  state:
    description: Whether the machine runs, or does not exist.
    type: str
    choices: [running, absent]
    default: running
  base:
    description: Folder of the base image, as M(bedplate.llm.lab_base) returns it. Needed for a running machine.
    type: path
  secrets:
    description: Folder of the keys, as M(bedplate.llm.lab_keys) fills it. Needed for a running machine.
    type: path
attributes:
  check_mode:
    description: Reports what would be done.
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
- name: Run a virtual machine with an empty disk and a TPM
  bedplate.llm.lab_machine:
    lab: bedplate
    network: 10.87.0.0/24
    network6: fd87:b3d0::/64
    name: store1
    kind: vm
    address: 10.87.0.31
    memory: 2G
    disks:
      - serial: data0
        size: 8G
    tpm: true
    base: "{{ base.image }}"
    secrets: "{{ inventory_dir }}/.secrets"
    peers: {store1: 10.87.0.31}
"""

RETURN = r"""
action:
  description: What was, or in check mode would be, done.
  returned: success
  type: str
  sample: create
seconds:
  description: How long it took until the machine let the operator in.
  returned: success
  type: float
  sample: 2.4
"""

import os
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import lab_gpu
from ansible_collections.bedplate.llm.plugins.module_utils.lab_machines import (
    Access,
    Outcome,
    ensure_running,
    plan,
    remove,
)
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import LabError, parse_lab, parse_machine

ARGUMENTS = {
    "lab": {"type": "str", "required": True},
    "network": {"type": "str", "required": True},
    "network6": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "kind": {"type": "str", "choices": ["container", "vm"], "default": "container"},
    "address": {"type": "str"},
    "memory": {"type": "str", "default": "1G"},
    "cpus": {"type": "int", "default": 1},
    "disks": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"serial": {"type": "str", "required": True}, "size": {"type": "str", "required": True}},
    },
    "tpm": {"type": "bool", "default": False},
    "gpu_profile": {"type": "str"},
    "gpu_source": {"type": "path"},
    "peers": {"type": "dict", "default": {}},
    "state": {"type": "str", "choices": ["running", "absent"], "default": "running"},
    "base": {"type": "path"},
    "secrets": {"type": "path"},
}


def act(params, check_mode):
    lab = parse_lab(params["lab"], params["network"], params["network6"])
    if params["state"] == "absent":
        existed = lab.machine_state(params["name"]).exists() if check_mode else remove(lab, params["name"])
        return Outcome("remove" if existed else "keep")
    base = Path(params["base"])
    gpus = lab_gpu.find(params["name"], params["gpu_profile"] or "", Path(params["gpu_source"] or ""))
    machine = parse_machine(lab, {**params, "base": base.name, "gpus": gpus.label if gpus else ""})
    if check_mode:
        return Outcome(plan(lab, machine))
    os.umask(0o022)
    return ensure_running(lab, machine, base, Access(Path(params["secrets"]), params["peers"]), gpus)


def main():
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
        required_if=[("state", "running", ("address", "base", "secrets"))],
        required_by={"gpu_profile": ["gpu_source"]},
    )
    began = time.monotonic()
    try:
        done = act(module.params, module.check_mode)
    except LabError as error:
        module.fail_json(msg=str(error))
    for warning in done.warnings:
        module.warn(warning)
    module.exit_json(changed=done.action != "keep", action=done.action, seconds=round(time.monotonic() - began, 1))


if __name__ == "__main__":
    main()
