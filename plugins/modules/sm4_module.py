#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sm4_module
short_description: Build the cipher SM4 for every kernel of a Debian host that lacks it
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Installs DKMS, headers and the source of the kernels' series, takes the two files of SM4 out of it, and has DKMS
    build them for every kernel that could boot next; DKMS does the same for each kernel that an upgrade brings.
  - Builds again when the package of the source has a newer version. What is loaded goes on until the next start.
  - Neither loads nor unloads a module, and removes no package.
options:
  lock_timeout:
    description: Seconds to wait for another package manager.
    type: int
    default: 600
attributes:
  check_mode:
    description: Says what would be installed and built.
    support: full
  diff_mode:
    description: Shows packages, and builds by kernel, before and after.
    support: full
  platform:
    description: Debian.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Give every kernel of the host SM4
  bedplate.llm.sm4_module:
"""

RETURN = r"""
installed:
  description: Packages that were, or in check mode would be, installed.
  returned: always
  type: list
  elements: str
built:
  description: Kernels for which the module was, or in check mode would be, built.
  returned: always
  type: list
  elements: str
"""

import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import driver_transaction, sm4_module, sm4_module_host
from ansible_collections.bedplate.llm.plugins.module_utils.package_manager import complaint

ROOT = Path("/")
SOURCE_ROOT = Path("/usr/src")


def must(module, tools, argv, what):
    code, out, err = tools.command(argv)
    if code:
        module.fail_json(msg=f"sm4_module: {what} failed, and nothing was loaded: {complaint(out + err)}", rc=code)


def bring_source(module, tools, series, version):
    """The two files, and what DKMS needs to know; the folder appears whole or not at all."""
    name = sm4_module.module_name(series)
    folder = SOURCE_ROOT / f"{name}-{version}"
    if folder.is_dir():
        return
    part = SOURCE_ROOT / f".{folder.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    root = sm4_module.source_package(series)
    archive = next(iter(SOURCE_ROOT.glob(f"{root}.tar.*")), SOURCE_ROOT / f"{root}.tar.xz")
    # --occurrence ends it after the last of the files: most of a kernel need not be unpacked.
    argv = ["tar", "--extract", "--occurrence=1", "--strip-components=2", "--no-same-owner", "--directory", str(part)]
    members = [f"{root}/crypto/{file}" for file in sm4_module.SOURCES]
    must(module, tools, [*argv, "--file", str(archive), *members], f"taking {', '.join(members)} out of {archive}")
    (part / "dkms.conf").write_text(sm4_module.dkms_conf(series, version), encoding="utf-8")
    (part / "Kbuild").write_text(sm4_module.KBUILD, encoding="utf-8")
    part.rename(folder)


def build(module, tools, facts, plan):
    for series in plan.series:
        kernels = [release for release in plan.build_for if sm4_module.series_of(release) == series]
        if not kernels:
            continue
        name, version = sm4_module.module_name(series), sm4_module.source_version(facts, series)
        bring_source(module, tools, series, version)
        of = ["-m", name, "-v", version]
        if not any((one.name, one.version) == (name, version) for one in facts.builds):
            must(module, tools, ["dkms", "add", *of], f"giving {name} to DKMS")
        for release in kernels:
            what = f"building SM4 for kernel {release} (see make.log below /var/lib/dkms/{name})"
            must(module, tools, ["dkms", "install", "--force", *of, "-k", release], what)
    for old in plan.stale:
        must(module, tools, ["dkms", "remove", "-m", old.name, "-v", old.version, "--all"], f"removing {old.name}")
        shutil.rmtree(SOURCE_ROOT / f"{old.name}-{old.version}", ignore_errors=True)


def refuse(module, plan):
    if plan.problems:
        module.fail_json(msg=f"sm4_module: nothing was changed: {plan.problems[0].sentence}")


def main():
    module = AnsibleModule(
        argument_spec={"lock_timeout": {"type": "int", "default": 600}},
        supports_check_mode=True,
    )
    tools = sm4_module_host.Tools(module)
    facts = sm4_module_host.look(ROOT, tools.run)
    plan = sm4_module.make_plan(facts)
    refuse(module, plan)
    result = {
        "changed": not plan.settled,
        "installed": list(plan.packages),
        "built": list(plan.build_for),
        "diff": sm4_module.diff(facts, plan),
    }
    if module.check_mode or plan.settled:
        module.exit_json(**result)
    if plan.packages:
        wanted = [(name, "") for name in plan.packages]
        for argv in driver_transaction.install("apt", wanted, "", module.params["lock_timeout"]):
            must(module, tools, argv, f"installing {', '.join(plan.packages)}")
        facts = sm4_module_host.look(ROOT, tools.run)
        plan = sm4_module.make_plan(facts)
        refuse(module, plan)
    build(module, tools, facts, plan)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
