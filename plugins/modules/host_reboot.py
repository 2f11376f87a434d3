#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_reboot
short_description: Restart a host and wait for its next boot
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Restarts the host through systemd and returns when another boot lets the operator in.
  - Boots are told apart by the kernel's C(boot_id) and not by how long the host is up or whether a connection was lost,
    so that a host which is slow to go down is not taken for one that is back.
  - Restarts nothing when the host is in another boot than the one that was looked at before.
  - Runs on the controller, which asks the host by single commands.
options:
  boot_id:
    description: The boot that was looked at, as P(bedplate.llm.reboot_info#module) returns it.
    type: str
    required: true
  timeout:
    description: How long the next boot may take, in seconds; firmware of large GPU hosts needs many minutes.
    type: int
    default: 1800
  reason:
    description: Why, for the host's own journal.
    type: str
    default: ''
attributes:
  check_mode:
    description: Says that the host would be restarted and does not.
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
- name: Restart the host into its new driver
  bedplate.llm.host_reboot:
    boot_id: "{{ __reboot_verify.boot_id }}"
    reason: "{{ __reboot_verify.sentence }}"
"""

RETURN = r"""
boot_id:
  description: The new boot.
  returned: when the host was restarted
  type: str
seconds:
  description: How long the host was away, from the command until the new boot let the operator in.
  returned: when the host was restarted
  type: float
msg:
  description: What happened, as one sentence.
  returned: always
  type: str
  sample: The host was restarted and is back after 74 s.
"""
