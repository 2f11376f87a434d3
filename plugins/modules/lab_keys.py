#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: lab_keys
short_description: Make the keys of a lab and pin its machines' host keys
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Makes the operator's key pair and one host key pair a machine, where they are missing, and pins the host keys in a
    C(known_hosts) file, so that no connection to the lab is ever trusted blindly.
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
  secrets:
    description: Folder for the keys on the operator's machine, made with mode 0700.
    type: path
    required: true
  peers:
    description: IPv4 addresses of all machines of the lab by name. Host keys are pinned under name and both addresses.
    type: dict
    required: true
attributes:
  check_mode:
    description: Reports what would be made.
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
- name: Pin the host key of llm1 under its name and its two addresses
  bedplate.llm.lab_keys:
    lab: bedplate
    network: 10.87.0.0/24
    network6: fd87:b3d0::/64
    secrets: "{{ inventory_dir }}/.secrets"
    peers: {llm1: 10.87.0.11}
"""

RETURN = r"""
known_hosts:
  description: Path of the file with the pinned keys.
  returned: success
  type: str
  sample: /srv/site/.secrets/known_hosts
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.lab_keys import (
    KNOWN_HOSTS,
    make_keys,
    missing_keys,
    pinned_names,
    pinned_now,
)
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import LabError, parse_lab

ARGUMENTS = {
    "lab": {"type": "str", "required": True},
    "network": {"type": "str", "required": True},
    "network6": {"type": "str", "required": True},
    "secrets": {"type": "path", "required": True},
    "peers": {"type": "dict", "required": True},
}


def act(lab, secrets, peers, check_mode):
    machines = pinned_names(lab, peers)
    if not check_mode:
        return make_keys(secrets, machines)
    if missing_keys(secrets, machines):
        return True
    existing, wanted = pinned_now(secrets, machines)
    return existing != wanted


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    secrets = Path(params["secrets"])
    try:
        lab = parse_lab(params["lab"], params["network"], params["network6"])
        changed = act(lab, secrets, params["peers"], module.check_mode)
    except LabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, known_hosts=str(secrets / KNOWN_HOSTS))


if __name__ == "__main__":
    main()
