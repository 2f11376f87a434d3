#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: lab_check
short_description: Check a lab machine's declaration and the machine that shall carry it
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Refuses a declaration that cannot be raised, and a machine of the operator's that cannot raise it, before anything
    is changed.
  - Says which system packages are missing for the declared kind.
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
    required: true
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
    required: true
attributes:
  check_mode:
    description: Never changes anything.
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
- name: Find out whether a host of the lab can be raised here
  bedplate.llm.lab_check:
    lab: bedplate
    network: 10.87.0.0/24
    network6: fd87:b3d0::/64
    name: llm1
    address: 10.87.0.11
    peers: {llm1: 10.87.0.11, client1: 10.87.0.21}
"""

RETURN = r"""
missing_packages:
  description: System packages of the operator's machine to install first.
  returned: success
  type: list
  elements: str
  sample: [mmdebstrap, systemd-container]
address6:
  description: The machine's IPv6 address.
  returned: success
  type: str
  sample: fd87:b3d0::b
"""

import os
import shutil
import sys
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import lab_gpu
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import (
    LabError,
    check_peers,
    network_conflict,
    parse_lab,
    parse_machine,
)
from ansible_collections.bedplate.llm.plugins.module_utils.lab_network import addresses
from ansible_collections.bedplate.llm.plugins.module_utils.lab_tools import missing_packages, unable

ARGUMENTS = {
    "lab": {"type": "str", "required": True},
    "network": {"type": "str", "required": True},
    "network6": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "kind": {"type": "str", "choices": ["container", "vm"], "default": "container"},
    "address": {"type": "str", "required": True},
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
    "peers": {"type": "dict", "required": True},
}


def main():
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
        required_by={"gpu_profile": ["gpu_source"]},
    )
    params = module.params
    try:
        lab = parse_lab(params["lab"], params["network"], params["network6"])
        machine = parse_machine(lab, params)
        gpus = lab_gpu.find(params["name"], params["gpu_profile"] or "", Path(params["gpu_source"] or ""))
        if gpus:
            lab_gpu.binding()
        check_peers(lab, params["peers"])
        conflict = network_conflict(lab, addresses()) if shutil.which("ip") else None
        if conflict:
            raise LabError(conflict)
        missing = missing_packages(machine.kind, machine.tpm, shutil.which, gpus is not None)
        reason = unable(sys.platform, os.geteuid(), missing, shutil.which("apt-get") is not None)
        if reason:
            raise LabError(reason)
    except LabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, missing_packages=missing, address6=machine.address6)


if __name__ == "__main__":
    main()
