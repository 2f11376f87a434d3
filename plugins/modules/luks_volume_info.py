#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: luks_volume_info
short_description: Tell what is on a host's disks, and whether its encrypted volumes are as declared
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Looks at every declared volume and says what P(bedplate.llm.luks_volume#module) would do with it, or why it would
    refuse.
  - Lists the host's disks as an inventory names them (stable names, serial number, size in bytes) with what is on them.
  - Returns checks of the volumes and of what else may write prompts to a disk (swap, core dumps).
  - Changes nothing. With O(prove) it lets every way of unlocking open its key slot, which opens no volume.
options:
  volumes:
    description: The declared volumes, as in the role's C(luks_volumes).
    type: list
    elements: dict
    default: []
  arrays:
    description: Names of the declared RAID arrays that a volume may lie on.
    type: list
    elements: str
    default: []
  escrow:
    description: What the escrow knows of each device, without its secrets (C(escrow.json)).
    type: list
    elements: dict
    default: []
  tpm2_pcrs:
    description: Registers of the TPM that have to be as they were.
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
  discard:
    description: Whether crypttab says that freed blocks are told to the device.
    type: bool
    default: false
  plain_swap:
    description: Whether swap that is not encrypted is accepted.
    type: bool
    default: false
  core_dumps:
    description: Whether core dumps are accepted.
    type: bool
    default: false
  prove:
    description: Whether every way of unlocking is tried on its key slot.
    type: bool
    default: true
attributes:
  check_mode:
    description: Changes nothing in any mode.
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
- name: See which disks a host has, as an inventory names them
  bedplate.llm.luks_volume_info:
  register: found

- name: Show those that hold nothing
  ansible.builtin.debug:
    msg: "{{ found.disks | rejectattr('holds') }}"
"""

RETURN = r"""
volumes:
  description: The declared volumes as they were found.
  returned: always
  type: list
  elements: dict
  contains:
    name: {description: Its name., type: str}
    device: {description: The declared stable name., type: str}
    serial: {description: The declared serial number., type: str}
    mount: {description: The declared mount point., type: str}
    state:
      description: >-
        How far it has come, as the host remembers it: V(formatting), V(formatted), V(making-filesystem), V(ready),
        V(erasing), V(erased), or empty.
      type: str
    decision:
      description: What a rollout would do (V(format), V(back-up), V(make-filesystem), V(keep)), or V(refuse).
      type: str
    problems: {description: Why it would refuse., type: list, elements: str}
    path: {description: What the stable name leads to; empty when it leads nowhere., type: str}
    uuid: {description: UUID in the header; empty without one., type: str}
    sequence: {description: How often the header was changed., type: int}
    open: {description: Whether it is unlocked., type: bool}
    mounted: {description: Where its mapping is mounted., type: list, elements: str}
    ways:
      description: Ways of unlocking that are in the header.
      type: list
      elements: dict
      contains:
        method:
          description: V(recovery), V(tpm2), V(tang), V(tpm2+tang), V(orphan) or V(other).
          type: str
        keyslot: {description: Number of the key slot., type: int}
    backup:
      description: The newest backup of the header in the escrow; empty without one.
      type: dict
      contains:
        made: {description: 'When, in UTC.', type: str}
        sequence: {description: How often the header had been changed by then., type: int}
disks:
  description: The host's disks.
  returned: always
  type: list
  elements: dict
  contains:
    path: {description: The kernel's name now., type: str}
    names: {description: Stable names below C(/dev/disk/by-id)., type: list, elements: str}
    serial: {description: Serial number; empty when the disk tells none., type: str}
    size: {description: Bytes., type: int}
    model: {description: As the disk says it., type: str}
    holds: {description: What is on it; empty when nothing that is known., type: list, elements: str}
checks:
  description: Checks of the volumes and of the host.
  returned: always
  type: list
  elements: dict
  contains:
    id: {description: Dotted name., type: str}
    ok: {description: Whether it holds., type: bool}
    reason: {description: What was found., type: str}
    remedy: {description: What to do when it does not hold., type: str}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import (
    block_device_host,
    volume_checks,
    volume_enroll,
    volume_methods,
)
from ansible_collections.bedplate.llm.plugins.module_utils.block_device_host import BlockDeviceError
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.cryptsetup import module_runner
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import UNLOCKS, parse
from ansible_collections.bedplate.llm.plugins.module_utils.volume_host import VolumeError, VolumeHost
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import RecordError, parse_escrow

TANG_SERVER = {"url": {"type": "str", "required": True}, "thumbprint": {"type": "str", "required": True}}


def escrow_of(volume, escrows):
    """By the device, since a volume may have another name than on its first day; an array's has the host before it."""
    for entry in escrows:
        serial = str(entry.get("serial", ""))
        if serial == volume.serial or (volume.array and serial.endswith(f".{volume.serial}")):
            return entry
    return None


def look(host, escrow, run, discard, prove):
    found = host.look()
    has_header = found.device.luks.header is not None
    mounted, files, proofs = ("", ""), (), {}
    if has_header and found.decision.action != "refuse":
        files = tuple(str(path) for path in host.boot_files(found, discard))
        mounted = host.mounted()
        if prove:
            proofs = {
                way.keyslot: volume_enroll.problem(run, found.device.path, found.header, way)
                for way in volume_methods.ways(found.header)
                if way.method in UNLOCKS
            }
    return volume_checks.State(found, escrow, mounted, files, proofs)


def described(volume, state):
    device, header = state.look.device, state.look.device.luks.header
    ways = volume_methods.ways(header) if header else ()
    backup = state.escrow.backup if state.escrow else None
    return {
        "name": volume.name,
        "device": volume.device,
        "serial": volume.serial,
        "mount": volume.mount,
        "state": state.look.record.state if state.look.record else "",
        "decision": state.look.decision.action,
        "problems": list(state.look.decision.problems),
        "path": device.path,
        "uuid": header.uuid if header else "",
        "sequence": header.sequence if header else 0,
        "open": bool(header) and state.look.is_open,
        "mounted": [mount for mapping in device.mappings for mount in mapping.mounts],
        "ways": [{"method": way.method, "keyslot": way.keyslot} for way in ways],
        "backup": {"made": backup.made, "sequence": backup.sequence} if backup else {},
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "volumes": {"type": "list", "elements": "dict", "default": []},
            "arrays": {"type": "list", "elements": "str", "default": []},
            "escrow": {"type": "list", "elements": "dict", "default": []},
            "tpm2_pcrs": {"type": "list", "elements": "int", "default": [7]},
            "tang_servers": {"type": "list", "elements": "dict", "default": [], "options": TANG_SERVER},
            "tang_threshold": {"type": "int", "default": 1},
            "discard": {"type": "bool", "default": False},
            "plain_swap": {"type": "bool", "default": False},
            "core_dumps": {"type": "bool", "default": False},
            "prove": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    asked = module.params
    volumes, problems = parse(asked["volumes"], asked["arrays"])
    if problems:
        module.fail_json(msg=" ".join(problems))
    settings = volume_methods.settings(asked)
    run = module_runner(module)
    ask = block_device_host.asking(run)
    checks, found = [], []
    try:
        for volume in volumes:
            entry = escrow_of(volume, asked["escrow"])
            escrow = parse_escrow(entry, "escrow") if entry else None
            state = look(VolumeHost(volume, escrow, run), escrow, run, asked["discard"], asked["prove"])
            checks += volume_checks.of_volume(volume, state, settings)
            found.append(described(volume, state))
        disks = block_device_host.disks(ask)
    except (BlockDeviceError, RecordError, VolumeError) as error:
        module.fail_json(msg=f"{error}.")
    checks += volume_checks.of_host(
        volume_checks.unencrypted_swaps(Path("/proc/swaps").read_text(), block_device_host.mapped_uuids()),
        Path("/proc/sys/kernel/core_pattern").read_text().strip(),
        asked["plain_swap"],
        asked["core_dumps"],
    )
    module.exit_json(changed=False, volumes=found, disks=disks, checks=as_dicts(checks))


if __name__ == "__main__":
    main()
