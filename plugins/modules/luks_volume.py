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
        it.
      - V(backed_up) takes a backup of the header to the escrow.
    type: str
    choices: [present, unlocked, backed_up]
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
  step:
    description: What the host's half does; given by the controller's half and by nobody else.
    type: str
    choices: [look, format, header, backed_up, enroll, open, finish]
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
    description: The way of unlocking to add; given by the controller's half.
    type: str
    default: ''
  passphrase:
    description: Given by the controller's half, over a pipe.
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

import base64
from typing import Any, ContextManager, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import volume_enroll, volume_methods
from ansible_collections.bedplate.llm.plugins.module_utils.block_device_host import BlockDeviceError
from ansible_collections.bedplate.llm.plugins.module_utils.cryptsetup import Cost, CryptsetupError, module_runner
from ansible_collections.bedplate.llm.plugins.module_utils.volume_decision import REFUSE
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import Volume, parse
from ansible_collections.bedplate.llm.plugins.module_utils.volume_host import Look, VolumeError, VolumeHost
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import RecordError, parse_escrow

ERRORS = (BlockDeviceError, CryptsetupError, RecordError, VolumeError, volume_enroll.EnrollError)


class Steps:
    """The host's half: one step, and what the controller has to know of it."""

    def __init__(self, given: Dict[str, Any], volume: Volume, run: Any) -> None:
        self._given = given
        self._settings = volume_methods.settings(given)
        escrow = parse_escrow(given["escrow"], "escrow") if given["escrow"] else None
        self._host = VolumeHost(volume, escrow, run)
        self._run = run

    def locked(self) -> ContextManager[None]:
        return self._host.locked()

    def do(self) -> Dict[str, Any]:
        step = getattr(self, f"_{self._given['step']}")
        result: Dict[str, Any] = step()
        return result

    @property
    def _confirmed(self) -> bool:
        return bool(self._given["confirm_wipe"]) and self._given["confirm_wipe"] == self._host.volume.serial

    def _look(self) -> Dict[str, Any]:
        look = self._host.look(self._confirmed)
        found: Dict[str, Any] = {
            "action": look.decision.action,
            "problems": list(look.decision.problems),
            "state": look.record.state if look.record else "",
            "recorded": look.record is not None,
            "path": look.device.path,
            "uuid": "",
            "mount_problems": self._host.mount_point_problems() + self._host.boot_problems(look),
        }
        if look.decision.action != REFUSE and look.device.luks.header:
            found.update(self._of_header(look))
        return found

    def _of_header(self, look: Look) -> Dict[str, Any]:
        volume = self._host.volume
        return {
            "uuid": look.header.uuid,
            "sequence": look.header.sequence,
            "open": look.is_open,
            "mounted": any(volume.mount in mapping.mounts for mapping in look.device.mappings),
            "missing": volume_methods.missing(look.header, volume.unlock, self._settings),
            "boot_files": [str(path) for path in self._host.boot_files(look, self._given["discard"])],
        }

    def _format(self) -> Dict[str, Any]:
        given = self._given
        cost = Cost(given["pbkdf_memory"], given["pbkdf_time"], given["pbkdf_threads"])
        self._host.format(given["uuid"], given["passphrase"], cost, self._confirmed)
        return self._header()

    def _header(self) -> Dict[str, Any]:
        content = self._host.cryptsetup(self._host.existing()).header_backup()
        return {"header": base64.b64encode(content).decode("ascii")}

    def _backed_up(self) -> Dict[str, Any]:
        self._host.adopt()
        self._host.backed_up()
        return {}

    def _enroll(self) -> Dict[str, Any]:
        look = self._host.existing()
        method, before = self._given["method"], set(volume_methods.ways(look.header))
        volume_enroll.add(self._run, look.device.path, look.header, method, self._settings, self._given["passphrase"])
        header = self._host.look().header
        added = [way for way in volume_methods.ways(header) if way.method == method and way not in before]
        if not added:
            raise VolumeError(f"{self._host.volume.name}: {method} was added and is not in the header")
        problem = volume_enroll.problem(self._run, look.device.path, header, added[-1])
        if problem:
            volume_enroll.remove(self._run, look.device.path, added[-1], self._given["passphrase"])
            raise VolumeError(
                f"{self._host.volume.name}: {method} does not open the volume, and was taken out: {problem}"
            )
        return self._header()

    def _open(self) -> Dict[str, Any]:
        return {"changed": self._host.open(self._given["passphrase"], self._given["bypass_workqueues"])}

    def _finish(self) -> Dict[str, Any]:
        done = []
        self._host.adopt()
        if self._host.make_filesystem():
            done.append(f"made {self._host.volume.filesystem} on {self._host.volume.mapper}")
        files = self._host.boot_files(self._host.look(), self._given["discard"])
        self._host.write_boot_files(files)
        done += [f"wrote {path}" for path in files]
        if self._host.mount():
            done.append(f"mounted {self._host.volume.mount}")
        return {"actions": done}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "volume": {"type": "dict", "required": True},
            "arrays": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "unlocked", "backed_up"], "default": "present"},
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
            "step": {
                "type": "str",
                "choices": ["look", "format", "header", "backed_up", "enroll", "open", "finish"],
                "default": "look",
            },
            "escrow": {"type": "dict", "default": {}},
            "uuid": {"type": "str", "default": ""},
            "method": {"type": "str", "default": ""},
            "passphrase": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
    )
    given: Dict[str, Any] = module.params
    volumes, problems = parse([given["volume"]], given["arrays"])
    if problems:
        module.fail_json(msg=" ".join(problems))

    steps = Steps(given, volumes[0], module_runner(module))
    try:
        with steps.locked():
            result = steps.do()
    except ERRORS as error:
        module.fail_json(msg=f"{error}.")
    module.exit_json(**{"changed": False, **result})


if __name__ == "__main__":
    main()
