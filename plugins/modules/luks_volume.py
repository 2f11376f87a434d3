#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: luks_volume
short_description: Make, unlock and mount an encrypted volume, and never format what is not proved to be empty
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Brings one declared volume from an empty device to a mounted file system, LUKS2 below it, and on a second run
    changes
    nothing.
  - Formats a device when it is proved to be the declared one (stable name, serial number, size), used by nobody and
    empty,
    and neither the host nor the escrow knows a volume on it. Everything else is refused with what was found.
  - Writes down what it begins before it begins, on the host and on the operator's side, so that a run that was cut
    off at
    any point is completed by the next one.
  - Makes the recovery passphrase on the operator's side, keeps it there encrypted by ansible-vault and reads it back
    before
    the device is touched. Backs up the header there after each change.
  - Runs on the controller, which asks the host step by step. Secrets travel on standard input only, so the connection
    has
    to be pipelined; without that it refuses.
options:
  volume:
    description: The declared volume, as in the role's C(luks_volumes).
    type: dict
    required: true
  arrays:
    description: Names of the declared RAID arrays that a volume may lie on.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(present) is a volume that is there, mounted, and comes up at boot.
      - V(unlocked) opens and mounts a volume that is there with the passphrase of the escrow, when no other way opens
        it, and starts the services that wait for it.
      - V(backed_up) takes a backup of the header to the escrow.
      - V(restored) brings the header back from the escrow where it was destroyed, or the one that O(backup) names, and
        unlocks the volume. What lies in its place is kept in the escrow first.
      - V(rotated) makes one way of unlocking anew, proves it, and takes the former one out.
      - V(erased) makes the volume unreadable for good, on the host and in the escrow, and leaves a signed record of it.
    type: str
    choices: [present, unlocked, backed_up, restored, rotated, erased]
    default: present
  escrow_dir:
    description: Where the operator's side keeps passphrases and headers, encrypted.
    type: path
  escrow_password_file:
    description: A file with the escrow's password, or a program that prints it, as ansible-vault takes them.
    type: path
  tpm2_pcrs:
    description: Registers of the TPM that have to be as they were for it to give out the key.
    type: list
    elements: int
    default: [7]
  tang_servers:
    description: The tang servers of the site.
    type: list
    elements: dict
    default: []
    suboptions:
      url:
        description: Where it answers.
        type: str
        required: true
      thumbprint:
        description: Of a key that signs its advertisement.
        type: str
        required: true
  tang_threshold:
    description: How many of the servers have to answer.
    type: int
    default: 1
  pbkdf_memory:
    description: What one guess of a passphrase takes, in KiB.
    type: int
    default: 1048576
  pbkdf_time:
    description: What one guess of a passphrase takes, in milliseconds on this host.
    type: int
    default: 2000
  pbkdf_threads:
    description: Processors that one guess uses.
    type: int
    default: 4
  bypass_workqueues:
    description: Whether requests go around the kernel's work queues; V(auto) does so on NVMe, where it is faster.
    type: str
    choices: [auto, 'yes', 'no']
    default: auto
  discard:
    description: Whether freed blocks are told to the device, which shows how full the volume is.
    type: bool
    default: false
  confirm_wipe:
    description: Serial number of a device whose unrecognised content may go, in this one run.
    type: str
    default: ''
  confirm_erase:
    description: Serial number of the device that is erased, in this one run; only for V(erased).
    type: str
    default: ''
  signing_key:
    description: An ssh key, on the operator's side, that signs the record of an erasure.
    type: path
  backup:
    description: File name of a backup in the escrow, for V(restored); the newest where it is empty.
    type: str
    default: ''
  step:
    description: What the host's half does; given by the controller's half and by nobody else.
    type: str
    choices:
      - look
      - format
      - header
      - backed_up
      - enroll
      - open
      - finish
      - waiting
      - start
      - which
      - restore_look
      - restore_area
      - restore
      - add_passphrase
      - drop_passphrases
      - drop_ways
      - erase_look
      - erase_close
      - erase_keys
      - erase_forget
    default: look
  escrow:
    description: What the escrow knows of the device, without its secrets; given by the controller's half.
    type: dict
    default: {}
  uuid:
    description: UUID of the volume to make; given by the controller's half.
    type: str
    default: ''
  method:
    description: >-
      The way of unlocking that is made anew, for V(rotated): V(recovery), V(tpm2), V(tang) or V(tpm2+tang); otherwise
      given by the controller's half.
    type: str
    default: ''
  keyslot:
    description: The key slot that stays; given by the controller's half.
    type: int
    default: -1
  passphrase:
    description: Given by the controller's half, over a pipe.
    type: str
    default: ''
  passphrases:
    description: The newest first; given by the controller's half, over a pipe.
    type: list
    elements: str
    default: []
  header:
    description: A backup of the header; given by the controller's half, over a pipe.
    type: str
    default: ''
  length:
    description: How much of the device to send, in bytes; given by the controller's half.
    type: int
    default: 0
  digest:
    description: SHA-256 of what the controller's half has kept; given by it.
    type: str
    default: ''
attributes:
  check_mode:
    description: Says what would be done.
    support: full
  diff_mode:
    description: Nothing to show.
    support: none
  platform:
    description: Linux hosts with systemd and cryptsetup 2.4 or later.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Keep the models on an encrypted disk
  bedplate.llm.luks_volume:
    volume:
      name: models
      device: /dev/disk/by-id/nvme-SAMSUNG_MZQL23T8HCLS_S64HNE0T500123
      serial: S64HNE0T500123
      size: 3840755982336
      mount: /var/lib/bedplate
      unlock: [tpm2, tang]
    escrow_dir: "{{ inventory_dir }}/.secrets/volumes"
    escrow_password_file: /run/user/1000/escrow-password
    tang_servers:
      - {url: "http://tang1.example.org:7654", thumbprint: "YDTcKnxWLv_ZVxzJ0X0D7n5VQZZgSPLZCsrbTfRZzRU"}
"""

RETURN = r"""
actions:
  description: What was done, or would be in check mode, in order.
  returned: always
  type: list
  elements: str
  sample: [kept a new recovery passphrase in the escrow, formatted /dev/nvme1n1, added tpm2, made ext4, mounted]
uuid:
  description: UUID of the volume; empty in check mode before there is one.
  returned: always
  type: str
"""

from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.cryptsetup import module_runner
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import parse
from ansible_collections.bedplate.llm.plugins.module_utils.volume_host import VolumeHost
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import parse_escrow
from ansible_collections.bedplate.llm.plugins.module_utils.volume_steps import ERRORS, STEPS, Steps


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "volume": {"type": "dict", "required": True},
            "arrays": {"type": "list", "elements": "str", "default": []},
            "state": {
                "type": "str",
                "choices": ["present", "unlocked", "backed_up", "restored", "rotated", "erased"],
                "default": "present",
            },
            "escrow_dir": {"type": "path"},
            "escrow_password_file": {"type": "path", "no_log": False},
            "tpm2_pcrs": {"type": "list", "elements": "int", "default": [7]},
            "tang_servers": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "url": {"type": "str", "required": True},
                    "thumbprint": {"type": "str", "required": True},
                },
            },
            "tang_threshold": {"type": "int", "default": 1},
            "pbkdf_memory": {"type": "int", "default": 1048576},
            "pbkdf_time": {"type": "int", "default": 2000},
            "pbkdf_threads": {"type": "int", "default": 4},
            "bypass_workqueues": {"type": "str", "choices": ["auto", "yes", "no"], "default": "auto"},
            "discard": {"type": "bool", "default": False},
            "confirm_wipe": {"type": "str", "default": ""},
            "confirm_erase": {"type": "str", "default": ""},
            "signing_key": {"type": "path", "no_log": False},
            "backup": {"type": "str", "default": ""},
            "step": {"type": "str", "choices": list(STEPS), "default": "look"},
            "escrow": {"type": "dict", "default": {}},
            "uuid": {"type": "str", "default": ""},
            "method": {"type": "str", "default": ""},
            "keyslot": {"type": "int", "default": -1, "no_log": False},
            "passphrase": {"type": "str", "default": "", "no_log": True},
            "passphrases": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "header": {"type": "str", "default": "", "no_log": True},
            "length": {"type": "int", "default": 0},
            "digest": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given: Dict[str, Any] = module.params
    volumes, problems = parse([given["volume"]], given["arrays"])
    if problems:
        module.fail_json(msg=" ".join(problems))

    try:
        escrow = parse_escrow(given["escrow"], "escrow") if given["escrow"] else None
        steps = Steps(given, VolumeHost(volumes[0], escrow, module_runner(module)))
        with steps.locked():
            result = steps.do()
    except ERRORS as error:
        module.fail_json(msg=f"{error}.")
    module.exit_json(**{"changed": False, **result})


if __name__ == "__main__":
    main()
