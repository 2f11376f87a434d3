#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: cuda_toolkit
short_description: Install the packages of one version of CUDA's toolkit beside others, and hold them
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Installs the named packages of one version of CUDA, whose names end with it, such as C(cuda-nvcc-13-0), and holds
    them. Other versions stay, and no path of the system is changed by this module.
  - Nothing is removed for it; when that were needed, nothing is installed.
options:
  version:
    description: CUDA's version, major and minor.
    type: str
    required: true
  packages:
    description: Names of packages without the version at their end.
    type: list
    elements: str
    required: true
  hold:
    description: Whether upgrades leave the packages alone.
    type: bool
    default: true
  download_only:
    description: Whether the packages are only fetched, so that installing them later is short.
    type: bool
    default: false
  lock_timeout:
    description: How long to wait for another package manager, in seconds.
    type: int
    default: 300
attributes:
  check_mode:
    description: Reports what would be installed and held.
    support: full
  diff_mode:
    description: The names of the packages are in the result.
    support: none
  platform:
    description: Debian and Ubuntu; RHEL and its rebuilds.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Have the compiler of the engine's CUDA
  bedplate.llm.cuda_toolkit:
    version: "13.0"
    packages: [cuda-nvcc, cuda-cudart-dev]
"""

RETURN = r"""
installed:
  description: Packages that were, or in check mode would be, installed, or with O(download_only) fetched.
  returned: always
  type: list
  elements: str
held:
  description: Packages that were, or in check mode would be, held.
  returned: always
  type: list
  elements: str
"""

import glob
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import cuda_toolkit as toolkit
from ansible_collections.bedplate.llm.plugins.module_utils.cuda_toolkit_host import look
from ansible_collections.bedplate.llm.plugins.module_utils.package_manager import QUIET, hold
from ansible_collections.bedplate.llm.plugins.module_utils.package_source import APT, SourceError

VERSIONLOCK = "python3-dnf-plugin-versionlock"


def install_argv(manager, names, download_only, lock_timeout):
    if manager == APT:
        argv = ["apt-get", "install", "--yes", "-q", "--no-install-recommends", "--no-remove", "--no-upgrade"]
        argv += [f"-oDPkg::Lock::Timeout={lock_timeout}"]
    else:
        argv = ["dnf", "install", "--assumeyes", "--setopt=install_weak_deps=False"]
    fetch = ["--download-only" if manager == APT else "--downloadonly"] if download_only else []
    return [*argv, *fetch, *names]


def fetched(manager, name):
    """Whether a package waits in the package manager's cache already."""
    place = "/var/cache/apt/archives" if manager == APT else "/var/cache/dnf/*/packages"
    return bool(glob.glob(f"{place}/{name}[_-]*"))


def must(module, argv, what):
    code, out, err = module.run_command(argv)
    if code:
        said = " ".join(line for line in (err or out).splitlines() if line.strip())[-1500:]
        module.fail_json(msg=f"cuda_toolkit: {what} failed; {argv[0]} says: {said}", rc=code)


def main():
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "packages": {"type": "list", "elements": "str", "required": True},
            "hold": {"type": "bool", "default": True},
            "download_only": {"type": "bool", "default": False},
            "lock_timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = QUIET
    asked = module.params
    wanted = toolkit.Wanted(asked["version"], tuple(asked["packages"]), asked["hold"])
    try:
        found = look(wanted, module.run_command, Path("/"))
    except SourceError as error:
        module.fail_json(msg=str(error))
    refused = toolkit.refusal(wanted, found)
    if refused:
        module.fail_json(msg=f"cuda_toolkit: {refused}")
    absent = toolkit.missing(wanted, found)
    if asked["download_only"]:
        absent, unheld = [name for name in absent if not fetched(found.manager, name)], []
    else:
        unheld = toolkit.loose(wanted, found)
    result = {"changed": bool(absent or unheld), "installed": absent, "held": unheld}
    if module.check_mode or not result["changed"]:
        module.exit_json(**result)
    if absent:
        extra = [VERSIONLOCK] if unheld and found.manager != APT else []
        argv = install_argv(found.manager, [*absent, *extra], asked["download_only"], asked["lock_timeout"])
        must(module, argv, f"fetching or installing {', '.join(absent)}")
    for argv in hold(found.manager, unheld):
        must(module, argv, f"holding {', '.join(unheld)}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
