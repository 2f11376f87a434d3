#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: vllm_image
short_description: Bring the engine's image into the host's container store, and make the user that it runs as
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Looks whether podman has the image, by its id, which is the digest of all that is in it.
  - With O(install), loads it from a file that was brought before, never from a registry, and removes the file's folder.
    An image that turns out to be another one than O(id) is refused, and removed again if it was not there before.
  - Makes the engine's user as C(sysusers.d) declares it, since a container needs its number and not its name.
options:
  id:
    description: Id of the image, in hexadecimal.
    type: str
    required: true
  user:
    description: The engine's user.
    type: str
    required: true
  incoming:
    description: Folder on the host with C(image.tar) of the bundle.
    type: path
    required: true
  sysusers:
    description: The C(sysusers.d) file that declares the user.
    type: path
    required: true
  install:
    description: Whether to load the image and to make the user; otherwise the module only looks.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says whether the image would be loaded or the user made, and does neither.
    support: full
  diff_mode:
    description: Nothing to show.
    support: none
  platform:
    description: Linux hosts with podman.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Look whether the engine's image is there already
  bedplate.llm.vllm_image:
    id: 6d1ef012b5674ad8a127ecfa9b5e6f5178d171b90ee462846974177fd9bdd39f
    user: bedplate-vllm
    incoming: /var/lib/bedplate/incoming/image-1b4f0e985197
    sysusers: /etc/sysusers.d/bedplate-vllm.conf
  register: __vllm_image
"""

RETURN = r"""
present:
  description: Whether the image is in the store.
  returned: always
  type: bool
problem:
  description: Why the host cannot run the engine in a container, as one sentence; empty when it can.
  returned: always
  type: str
podman:
  description: Version of podman; empty when there is none.
  returned: always
  type: str
user_id:
  description: Number of the engine's user; -1 when there is none yet.
  returned: always
  type: int
group_id:
  description: Number of its group; -1 when there is none yet.
  returned: always
  type: int
free_bytes:
  description: Free space where podman keeps images, in bytes.
  returned: always
  type: int
"""

import os
import pwd
import re
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_container import (
    PODMAN,
    host_problem,
    podman_version,
)

C_LOCALE = {"LC_ALL": "C", "LANGUAGE": "C"}
STORE = "/var/lib/containers"


def ask(module, *arguments):
    return module.run_command([PODMAN, *arguments], environ_update=C_LOCALE)


def is_present(module):
    return ask(module, "image", "exists", module.params["id"])[0] == 0


def account(user):
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        return -1, -1
    return found.pw_uid, found.pw_gid


def free_bytes(path):
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free


def load(module):
    given = module.params
    archive = os.path.join(given["incoming"], "image.tar")
    before = set(ask(module, "images", "--quiet", "--no-trunc")[1].split())
    code, out, err = ask(module, "load", "--quiet", "--input", archive)
    if code:
        module.fail_json(msg=f"podman cannot load {archive}; it says: {err.strip()[-1000:]}", rc=code)
    if not is_present(module):
        new = set(ask(module, "images", "--quiet", "--no-trunc")[1].split()) - before
        for image in new:
            ask(module, "image", "rm", image)
        found = ", ".join(sorted(new)) or re.sub(r"\s+", " ", out).strip() or "nothing"
        module.fail_json(
            msg=f"The file {archive} holds the image {found}, and the bundle's is {given['id']}, so it was not taken;"
            " build the bundle again.",
        )


def make_user(module):
    code, _out, err = module.run_command(["systemd-sysusers", module.params["sysusers"]], environ_update=C_LOCALE)
    if code:
        module.fail_json(msg=f"The engine's user cannot be made; systemd-sysusers says: {err.strip()[-500:]}", rc=code)


def main():
    module = AnsibleModule(
        argument_spec={
            "id": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "incoming": {"type": "path", "required": True},
            "sysusers": {"type": "path", "required": True},
            "install": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    version = podman_version(ask(module, "--version")[1]) if os.access(PODMAN, os.X_OK) else ()
    problem = host_problem(version, os.path.exists("/sys/fs/cgroup/cgroup.controllers"))
    present = bool(version) and is_present(module)
    changed = given["install"] and (not present or account(given["user"])[0] < 0)
    if changed and not module.check_mode:
        if account(given["user"])[0] < 0:
            make_user(module)
        if not present:
            load(module)
            present = True
    if given["install"] and present and not module.check_mode and os.path.isdir(given["incoming"]):
        shutil.rmtree(given["incoming"])
        changed = True
    user_id, group_id = account(given["user"])
    module.exit_json(
        changed=changed,
        present=present,
        problem=problem,
        podman=".".join(map(str, version)),
        user_id=user_id,
        group_id=group_id,
        free_bytes=free_bytes(STORE),
    )


if __name__ == "__main__":
    main()
