#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nvidia_driver_packages
short_description: Install exactly one version of a driver's packages in one transaction, and hold them
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Moves all packages together, held or not, so that no half of a driver is ever installed and nothing is left unheld.
  - With apt the holds stay during the transaction. With dnf the version lock is lifted for it and set again.
  - Does not ask questions, waits for another package manager to end, and lets needrestart list services, never restart.
  - Neither loads nor unloads a kernel module.
options:
  state:
    description:
      - V(staged) downloads what is missing and installs nothing.
      - V(present) installs and holds.
      - V(absent) removes every package of the driver with its settings; kernels, headers and dkms stay.
    type: str
    choices: [staged, present, absent]
    default: present
  packages:
    description: What to install, as RV(bedplate.llm.nvidia_driver_info#module:plan.packages) says.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the package.
        type: str
        required: true
      version:
        description: The package's version; any when empty.
        type: str
        default: ''
  drop:
    description: Installed packages to remove in the same transaction, with apt.
    type: list
    elements: str
    default: []
  module_stream:
    description: Module stream to enable before, on systems of the RHEL family that have them.
    type: str
    default: ''
  hold_kernel:
    description: Whether to hold the installed kernels and their headers too.
    type: bool
    default: false
  build_for:
    description: Kernels for which DKMS has to build the module that is installed, since they have none.
    type: list
    elements: str
    default: []
  lock_timeout:
    description: Seconds to wait for another package manager.
    type: int
    default: 600
attributes:
  check_mode:
    description: Says what would be installed and held.
    support: full
  diff_mode:
    description: Shows versions and holds before and after.
    support: full
  platform:
    description: Linux hosts with apt or dnf.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Download the driver while the engine still serves
  bedplate.llm.nvidia_driver_packages:
    packages: "{{ __driver.plan.packages }}"
    state: staged

- name: Install it
  bedplate.llm.nvidia_driver_packages:
    packages: "{{ __driver.plan.packages }}"
"""

RETURN = r"""
installed:
  description: Packages that were, or in check mode would be, downloaded, installed, moved or removed.
  returned: always
  type: list
  elements: str
held:
  description: Packages that were, or in check mode would be, held.
  returned: always
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import driver_host
from ansible_collections.bedplate.llm.plugins.module_utils import driver_transaction as transaction
from ansible_collections.bedplate.llm.plugins.module_utils.driver_packages import is_drivers, to_hold
from ansible_collections.bedplate.llm.plugins.module_utils.driver_parse import parse_simulation
from ansible_collections.bedplate.llm.plugins.module_utils.package_manager import QUIET, hold


class Host:
    def __init__(self, module):
        self.module = module

    def command(self, argv):
        tool = self.module.get_bin_path(argv[0], opt_dirs=["/sbin", "/usr/sbin"])
        if tool is None:
            return 127, "", f"{argv[0]} is missing"
        return self.module.run_command([tool, *argv[1:]], environ_update=QUIET)

    def run(self, argv):
        code, out, _err = self.command(argv)
        return out if code == 0 else None

    def must(self, argv):
        """A command that has to end well; what the host then has is told with the reason."""
        code, out, err = self.command(argv)
        if code:
            self.hold()
            self.module.fail_json(msg=transaction.failure(argv, out + err), rc=code, stdout=out[-4000:])
        return out

    def look(self):
        self.here = driver_host.system(Path("/"), self.run)
        if not self.here.manager:
            self.module.fail_json(msg="nvidia_driver_packages: this host has neither apt nor dnf.")
        found = driver_host.installed(self.here, self.run)
        self.driver, self.kernels = driver_host.sort_out(found)
        self.everything = {package.name: package for package in found}

    def refuse_foreign(self, names):
        """Somebody else's package that needs the driver would go with it, without a question."""
        out = self.run(["apt-get", "--simulate", "purge", *names]) if self.here.manager == "apt" else ""
        # What came along as somebody's dependency, as Debian's glx-diversions does, nobody asked for.
        automatic = set((self.run(["apt-mark", "showauto"]) or "").split())
        foreign = [name for name in parse_simulation(out or "") if not is_drivers(name) and name not in automatic]
        if foreign:
            self.module.fail_json(
                msg=f"nvidia_driver_packages: nothing was changed, since {', '.join(foreign)} would be removed with the"
                " driver that it needs; remove that yourself first, if it is not needed."
            )

    def hold(self):
        """What is installed now; also after a failure, since half a driver must not be moved further by an upgrade."""
        driver, kernels = driver_host.sort_out(driver_host.installed(self.here, self.run))
        loose = to_hold(driver, kernels, self.module.params["hold_kernel"])
        for argv in hold(self.here.manager, loose):
            self.command(argv)
        return list(loose)


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["staged", "present", "absent"], "default": "present"},
            "packages": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": {"type": "str", "required": True}, "version": {"type": "str", "default": ""}},
            },
            "drop": {"type": "list", "elements": "str", "default": []},
            "module_stream": {"type": "str", "default": ""},
            "hold_kernel": {"type": "bool", "default": False},
            "build_for": {"type": "list", "elements": "str", "default": []},
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    host, params = Host(module), module.params
    host.look()
    locked = [package.name for package in host.driver if package.held]
    wanted = [(package["name"], package["version"]) for package in params["packages"]]
    drops = []
    if params["state"] == "absent":
        names = sorted(package.name for package in host.driver)
        host.refuse_foreign(names)
        commands = transaction.remove(host.here.manager, names, params["lock_timeout"], locked) if names else []
        loose = ()
    else:
        drops = [name for name in params["drop"] if name in host.everything]
        names = transaction.pending(wanted, host.everything) + drops
        stage = params["state"] == "staged"
        # What is in the cache already, apt itself knows best.
        if stage and names:
            names = transaction.to_fetch(host.here.manager, wanted, drops, names, host.run)
        stream, timeout = params["module_stream"], params["lock_timeout"]
        install = transaction.install(host.here.manager, wanted, stream, timeout, stage, locked, drops)
        commands = [*(install if names else []), *transaction.build(params["build_for"])]
        loose = () if stage else to_hold(host.driver, host.kernels, params["hold_kernel"])
    result = {
        "changed": bool(names or loose or params["build_for"]),
        "installed": list(names),
        "held": list(loose),
        "diff": transaction.diff(params["state"], names, loose, wanted, host.everything, drops),
    }
    if not module.check_mode:
        for argv in commands:
            host.must(argv)
        if params["state"] == "present" and result["changed"]:
            result["held"] = host.hold()
    module.exit_json(**result)


if __name__ == "__main__":
    main()
