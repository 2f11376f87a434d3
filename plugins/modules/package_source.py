#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: package_source
short_description: Have exactly the package sources that a role wants, each with one key of a known fingerprint
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Writes a deb822 source with C(Signed-By), or a repository of dnf with C(gpgkey), and a keyring with the one key
    whose fingerprint is stated. The fingerprint is calculated from the key before anything is written.
  - Fetches the lists of packages of these sources, and of no others. When the package manager refuses one, such as for
    a signature by another key, all files are put back as they were.
  - Removes sources and keyrings named C(bedplate-*) that this owner no longer wants, and touches no other file unless
    O(take_over) is set.
options:
  owner:
    description: Name of the role that wants the sources; what is removed is decided for each owner alone.
    type: str
    required: true
  sources:
    description: The sources, as the filter P(bedplate.llm.package_source_resolve#filter) gives them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the source; its files are called C(bedplate-<name>).
        type: str
        required: true
      url:
        description: Address of the repository, C(https:), C(http:) or C(file:).
        type: str
        required: true
      suite:
        description: Suite, or V(/) where the packages lie in one folder.
        type: str
        default: /
      components:
        description: Components of the suite.
        type: list
        elements: str
        default: []
      architectures:
        description: Debian's names of architectures; the host's own when empty.
        type: list
        elements: str
        default: []
      key:
        description: Text of the public key.
        type: str
        required: true
      fingerprint:
        description: The key's fingerprint, 40 hexadecimal digits.
        type: str
        required: true
      check_metadata:
        description: Whether dnf checks the signature of the repository's metadata; apt always does.
        type: bool
        default: true
      check_packages:
        description: Whether dnf checks the signature of each package.
        type: bool
        default: true
  proxy:
    description: Address of a proxy for the hosts of these sources.
    type: str
    default: ''
  take_over:
    description: Whether another file that names the same repository and no other is renamed to C(*.disabled).
    type: bool
    default: false
  cache_valid_time:
    description: Age in seconds from which the lists of packages are fetched again although nothing changed.
    type: int
    default: 86400
  lock_timeout:
    description: How long to wait for another package manager, in seconds.
    type: int
    default: 300
attributes:
  check_mode:
    description: Reports what would change; nothing is written or fetched.
    support: full
  diff_mode:
    description: Shows the sources; keys by their fingerprint.
    support: full
  platform:
    description: Debian and Ubuntu; RHEL and its rebuilds.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Use the site's mirror of NVIDIA's packages
  bedplate.llm.package_source:
    owner: nvidia_driver
    sources:
      - name: nvidia-cuda
        url: https://mirror.example/cuda/debian12/x86_64/
        key: "{{ lookup('ansible.builtin.file', 'nvidia.asc') }}"
        fingerprint: EB693B3035CD5710E231E123A4B469963BF863CC
"""

RETURN = r"""
changed_paths:
  description: Files that were, or in check mode would be, written, removed or renamed.
  returned: always
  type: list
  elements: str
  sample: [/etc/apt/sources.list.d/bedplate-nvidia-cuda.sources]
updated:
  description: Sources whose lists of packages were, or in check mode would be, fetched.
  returned: always
  type: list
  elements: str
"""

import os
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import openpgp
from ansible_collections.bedplate.llm.plugins.module_utils import package_source_host as host
from ansible_collections.bedplate.llm.plugins.module_utils.package_source import SourceError, parse_all, url_problem
from ansible_collections.bedplate.llm.plugins.module_utils.package_source_plan import ASIDE, Wish, decide

C_LOCALE = {"LC_ALL": "C", "LANGUAGE": "C", "DEBIAN_FRONTEND": "noninteractive"}

SOURCE = {
    "name": {"type": "str", "required": True},
    "url": {"type": "str", "required": True},
    "suite": {"type": "str", "default": "/"},
    "components": {"type": "list", "elements": "str", "default": []},
    "architectures": {"type": "list", "elements": "str", "default": []},
    "key": {"type": "str", "required": True, "no_log": False},
    "fingerprint": {"type": "str", "required": True},
    "check_metadata": {"type": "bool", "default": True},
    "check_packages": {"type": "bool", "default": True},
}


def shown(content):
    """A keyring by the fingerprints in it."""
    if content is None:
        return ""
    try:
        return "".join(f"key {key.label}\n" for key in openpgp.certificates(content))
    except openpgp.OpenPgpError:
        return content.decode("utf-8", "replace")


def diff(plan, files):
    entries = [
        {
            "before_header": path,
            "after_header": path,
            "before": shown(files.get(path)),
            "after": shown(plan.write.get(path)),
        }
        for path in sorted([*plan.write, *plan.remove])
    ]
    return entries + [
        {"before_header": path, "after_header": path + ASIDE, "before": path + "\n", "after": path + ASIDE + "\n"}
        for path in plan.aside
    ]


def put(path, content):
    """Atomically, readable by everybody: apt reads keys and sources as a user of its own."""
    parent = os.path.dirname(path)
    os.makedirs(parent, mode=0o755, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".bedplate-", dir=parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def apply(plan):
    for path in plan.aside:
        os.rename(path, path + ASIDE)
    # Keys before the sources that name them.
    for path in sorted(plan.write, key=lambda path: (path.endswith((".sources", ".repo")), path)):
        put(path, plan.write[path])
    for path in plan.remove:
        os.unlink(path)


def undo(plan, files):
    for path in [*plan.write, *plan.remove]:
        if path in files:
            put(path, files[path])
        elif os.path.exists(path):
            os.unlink(path)
    for path in plan.aside:
        if os.path.exists(path + ASIDE):
            os.rename(path + ASIDE, path)


def main():
    module = AnsibleModule(
        argument_spec={
            "owner": {"type": "str", "required": True},
            "sources": {"type": "list", "elements": "dict", "required": True, "options": SOURCE},
            "proxy": {"type": "str", "default": ""},
            "take_over": {"type": "bool", "default": False},
            "cache_valid_time": {"type": "int", "default": 86400},
            "lock_timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = C_LOCALE
    asked = module.params
    try:
        said = url_problem(asked["proxy"], "proxy") if asked["proxy"] else None
        if said:
            raise SourceError(f"package_source: {said}.")
        wish = Wish(asked["owner"], tuple(parse_all(asked["sources"])), asked["proxy"], asked["take_over"])
        state = host.read_state(wish.sources, asked["cache_valid_time"], module.run_command, time.time())
        plan = decide(wish, state)
    except SourceError as error:
        module.fail_json(msg=f"{error} Nothing was changed.")
    for warning in plan.warnings:
        module.warn(warning)
    result = {
        "changed": plan.changes,
        "changed_paths": sorted([*plan.write, *plan.remove, *plan.aside]),
        "updated": list(plan.update),
        "diff": diff(plan, state.files),
    }
    if module.check_mode:
        module.exit_json(**result)
    try:
        apply(plan)
        for name in plan.update:
            host.update(state.manager, name, asked["lock_timeout"], module.run_command)
    except SourceError as error:
        undo(plan, state.files)
        module.fail_json(msg=f"{error} The files are as they were before.", changed=False)
    except BaseException:
        undo(plan, state.files)
        raise
    module.exit_json(**result)


if __name__ == "__main__":
    main()
