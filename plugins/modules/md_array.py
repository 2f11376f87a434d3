#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: md_array
short_description: Make, start and mend RAID arrays of declared disks, and never make one over what was one
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Makes an array of disks that are proved to be the declared ones (stable name, serial number, size), used by nobody
    and empty. Starts one whose members are all there. Everything else is refused with what was found.
  - The array's UUID is on the host's disk before it is on a member, so that a run that was cut off at any point is
    completed by the next one. An array that ever ran is never made again.
  - In a running array, a failed member that is no longer declared goes, a declared disk that is empty is added, and a
    member that was away is taken back. The copying goes on in the background.
  - Gives mdadm's configuration a line for each array, and leaves all other lines as they are.
options:
  arrays:
    description: The declared arrays, as in the role's C(md_arrays).
    type: list
    elements: dict
    required: true
  configuration:
    description: Where mdadm's configuration belongs on this distribution; one that stands elsewhere is used instead.
    type: path
    default: /etc/mdadm/mdadm.conf
attributes:
  check_mode:
    description: Says what would be done.
    support: full
  diff_mode:
    description: Nothing to show.
    support: none
  platform:
    description: Linux hosts with mdadm 4.2 or later.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Keep the weights on two disks
  bedplate.llm.md_array:
    arrays:
      - name: weights
        level: 1
        devices:
          - device: /dev/disk/by-id/nvme-SAMSUNG_MZQL23T8HCLS_S64HNE0T500123
            serial: S64HNE0T500123
            size: 3840755982336
          - device: /dev/disk/by-id/nvme-SAMSUNG_MZQL23T8HCLS_S64HNE0T500124
            serial: S64HNE0T500124
            size: 3840755982336
"""

RETURN = r"""
actions:
  description: What was done, or would be in check mode, in order.
  returned: always
  type: list
  elements: str
  sample: ["made weights of /dev/nvme1n1, /dev/nvme2n1", wrote weights into /etc/mdadm/mdadm.conf]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.block_device_host import BlockDeviceError
from ansible_collections.bedplate.llm.plugins.module_utils.cryptsetup import module_runner
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_declared import parse
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_host import ArrayError, ArrayHost, Boot, locked
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import RecordError


def bring_up(hosts, boot):
    actions = []
    for host in hosts:
        try:
            uuid, done = host.bring_up()
            actions += done
            content = boot.wanted(host.array, uuid)
            if content:
                boot.write(content)
                actions.append(f"wrote {host.array.name} into {boot.path}")
        except (ArrayError, BlockDeviceError, RecordError) as error:
            done = f" (done before: {', '.join(actions)})" if actions else ""
            raise ArrayError(f"{error}{done}") from error
    return actions


def foresee(hosts, boot):
    actions = []
    for host in hosts:
        look = host.look()
        actions += host.foresee(look)
        if look.live is None or boot.wanted(host.array, look.live.uuid):
            actions.append(f"would write {host.array.name} into {boot.path}")
    return actions


def main():
    module = AnsibleModule(
        argument_spec={
            "arrays": {"type": "list", "elements": "dict", "required": True},
            "configuration": {"type": "path", "default": "/etc/mdadm/mdadm.conf"},
        },
        supports_check_mode=True,
    )
    arrays, problems = parse(module.params["arrays"])
    if problems:
        module.fail_json(msg=" ".join(problems))
    hosts = [ArrayHost(array, module_runner(module)) for array in arrays]
    try:
        with locked():
            # All are looked at before the first is changed.
            boot = Boot(module.params["configuration"])
            foreseen = foresee(hosts, boot)
            actions = foreseen if module.check_mode else bring_up(hosts, boot)
    except (ArrayError, BlockDeviceError, RecordError) as error:
        module.fail_json(msg=f"{error}.")
    module.exit_json(changed=bool(actions), actions=actions)


if __name__ == "__main__":
    main()
