#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: bundle_push
short_description: Bring the files of a bundle's part to a host
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Sends the files that the host does not have yet, by digest, over Ansible's own connection, as the task's user.
  - An interrupted transfer goes on where it ended. A file gets its name only after its sha256 was right on the host.
  - Shows how many bytes of how many were sent while it works.
options:
  src:
    description: Folder of the part on the controller.
    type: path
    required: true
  artefacts:
    description: The files, as P(bedplate.llm.bundle#lookup) lists them.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Path relative to O(src) and to O(dest).
        type: str
        required: true
      sha256:
        description: Digest of the content, in hexadecimal.
        type: str
        required: true
      size:
        description: Size in bytes.
        type: int
        required: true
  dest:
    description: Folder on the host; it is made if absent, for root only.
    type: path
    required: true
  phase:
    description: Set by the action plugin, which calls this module on the host; leave it alone.
    type: str
    choices: [query, prepare, commit]
    default: query
  names:
    description: Set by the action plugin.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Reports whether something would be sent.
    support: full
  diff_mode:
    description: Contents are not shown.
    support: none
  platform:
    description: Linux hosts with tar and dd.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Bring the engine's wheels to the host
  bedplate.llm.bundle_push:
    src: "{{ part.path }}"
    artefacts: "{{ part.artefacts }}"
    dest: /var/lib/bedplate/incoming/engine-{{ part.digest12 }}
  vars:
    part: "{{ lookup('bedplate.llm.bundle', bedplate_bundle_dir, part='engine') }}"
"""

RETURN = r"""
sent:
  description: The files that were, or in check mode would be, sent.
  returned: always
  type: list
  elements: str
bytes:
  description: How many bytes those are, without what an interrupted transfer had left.
  returned: always
  type: int
"""

import hashlib
import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.transfer import PART, TransferError, parse, verified

INDEX = ".verified.json"


def stamp(path):
    status = os.lstat(path)
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "inode": status.st_ino}


def digest(path):
    content = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1024 * 1024), b""):
            content.update(block)
    return content.hexdigest()


def read_index(dest):
    try:
        with open(os.path.join(dest, INDEX), encoding="utf-8") as handle:
            return json.load(handle)
    except (FileNotFoundError, ValueError):
        return {}


def write_index(dest, index):
    temporary = os.path.join(dest, INDEX + ".new")
    with open(temporary, "w", encoding="utf-8") as handle:
        json.dump(index, handle)
    os.replace(temporary, os.path.join(dest, INDEX))


def query(files, dest, remember):
    """Which files are right, and how much there is of those that are not complete."""
    index = read_index(dest)
    present, partial, learned = [], {}, False
    for file in files:
        path = os.path.join(dest, file.path)
        if os.path.isfile(path) and not os.path.islink(path):
            now = stamp(path)
            if verified(index, file.path, file.sha256, now):
                present.append(file.path)
                continue
            if now["size"] == file.size and digest(path) == file.sha256:
                index[file.path] = {"sha256": file.sha256, **now}
                learned = True
                present.append(file.path)
                continue
        if os.path.isfile(path + PART):
            partial[file.path] = os.path.getsize(path + PART)
    if remember and learned:
        write_index(dest, index)
    return present, partial


def prepare(files, dest):
    os.makedirs(dest, mode=0o700, exist_ok=True)
    for file in files:
        path = os.path.join(dest, file.path + PART)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.isfile(path) and os.path.getsize(path) > file.size:
            os.unlink(path)


def commit(module, files, dest):
    index = read_index(dest)
    for file in files:
        path = os.path.join(dest, file.path)
        found = digest(path + PART)
        if found != file.sha256:
            os.unlink(path + PART)
            module.fail_json(
                msg=f"bundle_push: {file.path} arrived with sha256 {found}, the manifest says {file.sha256}: "
                "the bundle is damaged; find out where with `bedplate bundle verify`, and build it again."
            )
        os.chmod(path + PART, 0o755 if file.path.startswith("bin/") else 0o644)
        os.replace(path + PART, path)
        index[file.path] = {"sha256": file.sha256, **stamp(path)}
    write_index(dest, index)


def main():
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "artefacts": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "str", "required": True},
                    "sha256": {"type": "str", "required": True},
                    "size": {"type": "int", "required": True},
                },
            },
            "dest": {"type": "path", "required": True},
            "phase": {"type": "str", "choices": ["query", "prepare", "commit"], "default": "query"},
            "names": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    dest = module.params["dest"]
    if os.path.islink(dest):
        module.fail_json(msg=f"bundle_push: {dest} is a link; name the folder itself.")
    try:
        files = parse(module.params["artefacts"])
    except TransferError as error:
        module.fail_json(msg=f"bundle_push: {error}")
    named = [file for file in files if file.path in set(module.params["names"])]
    if module.params["phase"] == "prepare":
        prepare(named, dest)
    elif module.params["phase"] == "commit":
        commit(module, named, dest)
    else:
        present, partial = query(files, dest, remember=not module.check_mode)
        module.exit_json(changed=False, present=present, partial=partial)
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
