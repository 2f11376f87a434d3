#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: reboot_info
short_description: Why a host waits for a reboot, and what forbids one
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Collects the reasons for a reboot, those that roles wrote to C(/run/bedplate/reboot.d/<role>), one to a line, and
    those of the distribution (C(/run/reboot-required) on Debian and Ubuntu, C(dnf needs-restarting -r) on Red Hat and
    its rebuilds).
  - Says what forbids a reboot. That is people at a terminal, locks against a shutdown, and processes that hold a GPU.
  - Never changes anything.
options:
  excused_units:
    description: Units of systemd that may hold a GPU, since they end by themselves in an orderly way.
    type: list
    elements: str
    default: []
  sessions_allowed:
    description: Whether people who are logged in are no obstacle.
    type: bool
    default: false
  patience:
    description:
      - How long, in seconds, a process that holds a GPU is looked at again before it counts; monitoring opens the GPUs
        for a moment every few seconds.
    type: int
    default: 15
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
- name: Look whether the host waits for a reboot
  bedplate.llm.reboot_info:
    excused_units: [bedplate-vllm.service, nvidia-persistenced.service]
  register: __reboot_verify
"""

RETURN = r"""
checks:
  description: That nothing waits for a reboot, each check with C(id), C(ok), C(reason) and C(remedy).
  returned: always
  type: list
  elements: dict
  sample: [{id: reboot.not-waiting, ok: true, reason: No role waits for a reboot., remedy: ''}]
conditions:
  description: What has to hold before the host may be restarted, in the same form.
  returned: always
  type: list
  elements: dict
  sample: [{id: reboot.gpus-free, ok: true, reason: No other process holds a GPU., remedy: ''}]
own:
  description: Whether a role of this collection waits for a reboot.
  returned: always
  type: bool
distribution:
  description: Whether the distribution waits for a reboot.
  returned: always
  type: bool
reasons:
  description: Every reason, with its C(source) and C(text).
  returned: always
  type: list
  elements: dict
  sample: [{source: nvidia_driver, text: 580.95.05 is installed and 575.57.08 is loaded}]
sentence:
  description: The reasons as one sentence, empty when there is none.
  returned: always
  type: str
boot_id:
  description: The boot in which the host is.
  returned: always
  type: str
drained:
  description: Units that were taken out and are not back.
  returned: always
  type: list
  elements: str
"""

import json
import os
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import reboot_policy, reboot_reasons, service_drain
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_holders import look as look_at_holders
from ansible_collections.bedplate.llm.plugins.module_utils.nft_host import find_peer

ROOT = Path("/")
LOGIND = "org.freedesktop.login1"


def read(path):
    """None when there is no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


def own_files():
    folder = ROOT / reboot_reasons.FOLDER
    if not folder.is_dir():
        return {}
    return {path.name: read(path) or "" for path in folder.iterdir() if path.is_file()}


def distribution(module):
    debian = reboot_reasons.parse_debian(
        read(ROOT / reboot_reasons.DEBIAN_FLAG), read(ROOT / reboot_reasons.DEBIAN_PACKAGES) or ""
    )
    dnf = module.get_bin_path("dnf")
    # A host of Debian may have dnf installed, as a tool to build packages with.
    if debian or not dnf or module.get_bin_path("dpkg-query"):
        return debian, ""
    code, out, err = module.run_command([dnf, "--quiet", "needs-restarting", "-r"])
    return reboot_reasons.parse_needs_restarting(code, out + err)


def sessions(module):
    """People at work that are not the operator, and why it is not known."""
    loginctl = module.get_bin_path("loginctl")
    if not loginctl:
        return (), "loginctl is not installed"
    code, out, err = module.run_command([loginctl, "list-sessions", "--no-legend", "--no-pager"])
    numbers = [line.split()[0] for line in out.splitlines() if line.split()]
    own = reboot_policy.own_scope(read(ROOT / "proc/self/cgroup") or "")
    if code:
        return (), f"loginctl says {err.strip() or code}"
    if not own and find_peer(os.getpid()):
        return (), "our own session by ssh is not recorded, so others are not either; libpam-systemd may be missing"
    if not numbers:
        return (), ""
    # A session that ends meanwhile makes the exit status bad and the others' blocks none the worse.
    # One by one: loginctl of systemd 252 takes a list with commas for the name of one property, and says nothing.
    properties = [f"--property={name}" for name in reboot_policy.SESSION_PROPERTIES]
    shown = module.run_command([loginctl, "show-session", *properties, *numbers])[1]
    return reboot_policy.others(reboot_policy.parse_sessions(shown), own), ""


def inhibitors(module):
    """Locks against a shutdown, and why they are not known; without logind nobody can have one."""
    running = module.run_command(["systemctl", "is-active", "--quiet", "systemd-logind.service"])[0] == 0
    if not running:
        return (), ""
    argv = ["busctl", "--json=short", "call", LOGIND, "/org/freedesktop/login1", f"{LOGIND}.Manager", "ListInhibitors"]
    code, out, err = module.run_command(argv)
    try:
        return (reboot_policy.parse_inhibitors(out), "") if code == 0 else ((), f"busctl says {err.strip() or code}")
    except (ValueError, KeyError, IndexError, TypeError, json.JSONDecodeError):
        return (), f"logind answers {out.strip()[:200]}"


def holders(excused, patience):
    """Looked at again and again while there are strangers, and `patience` is not over."""
    end = time.monotonic() + patience
    while True:
        found = look_at_holders(ROOT)
        check = reboot_policy.holder_check(found, excused)
        if check.ok or not found.holders or time.monotonic() >= end:
            return check
        time.sleep(1)


def main():
    module = AnsibleModule(
        argument_spec={
            "excused_units": {"type": "list", "elements": "str", "default": []},
            "sessions_allowed": {"type": "bool", "default": False},
            "patience": {"type": "int", "default": 15},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C", "LANGUAGE": "C"}
    given = module.params
    from_distribution, unknown = distribution(module)
    reasons = reboot_reasons.Reasons(reboot_reasons.parse_own(own_files()), from_distribution, unknown)
    people, people_unknown = sessions(module)
    locks, locks_unknown = inhibitors(module)
    conditions = [
        holders(given["excused_units"], given["patience"]),
        reboot_policy.session_check(people, people_unknown, given["sessions_allowed"]),
        reboot_policy.inhibitor_check(locks, locks_unknown),
    ]
    module.exit_json(
        changed=False,
        checks=as_dicts(reboot_reasons.checks(reasons)),
        conditions=as_dicts(conditions),
        own=bool(reasons.own),
        distribution=bool(reasons.distribution),
        reasons=[reason.as_dict() for reason in reasons.all],
        sentence=reboot_reasons.sentence(reasons.all),
        boot_id=(read(ROOT / "proc/sys/kernel/random/boot_id") or "").strip(),
        drained=list(service_drain.parse_marker(read(ROOT / service_drain.MARKER.lstrip("/")) or "")),
    )


if __name__ == "__main__":
    main()
