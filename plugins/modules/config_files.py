#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: config_files
short_description: Bring all configuration files of a service into place, all or none
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Compares a set of files and directories with what is on the host, stages what differs, validates the staged set with
    the service's own checker, and only then moves each file into place by an atomic rename.
  - One remote task for a whole service, where one C(ansible.builtin.template) a file would be many.
  - Contents are rendered on the controller, for example with P(ansible.builtin.template#lookup).
options:
  files:
    description: The files, in any order.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path on the host.
        type: path
        required: true
      content:
        description: The whole content as text.
        type: str
      state:
        description: Whether the file exists.
        type: str
        choices: [present, absent]
        default: present
      owner:
        description: Name of the owner.
        type: str
        default: root
      group:
        description: Name of the group.
        type: str
        default: root
      mode:
        description: Octal permissions, quoted.
        type: str
        default: '0644'
  directories:
    description: Directories to make or correct before the files. Missing parents are made as C(root:root 0755).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path on the host.
        type: path
        required: true
      owner:
        description: Name of the owner.
        type: str
        default: root
      group:
        description: Name of the group.
        type: str
        default: root
      mode:
        description: Octal permissions, quoted.
        type: str
        default: '0755'
  validate:
    description:
      - Command, as a list, that must end with 0 before anything is moved into place; it runs only when a file differs.
      - In every item C({staged}) is replaced by a directory that holds the whole wanted set under its absolute paths.
      - It does not run in check mode, since the command may not be installed yet.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Reports what would change and writes nothing.
    support: full
  diff_mode:
    description: Shows contents, owner, group and mode before and after.
    support: full
  platform:
    description: Linux hosts.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Configure the gateway in one step, checked by Envoy itself
  bedplate.llm.config_files:
    directories:
      - path: /etc/bedplate/gateway
        group: bedplate-gateway
        mode: '0750'
    files:
      - path: /etc/bedplate/gateway/bootstrap.json
        content: "{{ lookup('ansible.builtin.template', 'bootstrap.json.j2') }}"
        group: bedplate-gateway
        mode: '0640'
    validate: [envoy, --mode, validate, -c, '{staged}/etc/bedplate/gateway/bootstrap.json']

- name: Remove a file that an older release wrote
  bedplate.llm.config_files:
    files:
      - path: /etc/systemd/system/bedplate-old.service
        state: absent
"""

RETURN = r"""
changed_paths:
  description: The paths that were, or in check mode would be, made, corrected or removed, sorted.
  returned: always
  type: list
  elements: str
  sample: [/etc/bedplate/gateway/bootstrap.json]
"""

import grp
import os
import pwd
import shutil
import stat
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.staged_files import (
    Found,
    SpecError,
    diff_entry,
    is_absent,
    needs_change,
    parse,
)


def _name(database, number):
    try:
        return database(number)[0]
    except KeyError:
        return str(number)


def look(path):
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Found("absent")
    owner, group = _name(pwd.getpwuid, status.st_uid), _name(grp.getgrgid, status.st_gid)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        return Found("directory", None, owner, group, mode)
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as handle:
            return Found("file", handle.read(), owner, group, mode)
    return Found("other", None, owner, group, mode)


def give(path, wanted):
    os.chown(path, pwd.getpwnam(wanted.owner).pw_uid, grp.getgrnam(wanted.group).gr_gid)
    os.chmod(path, wanted.mode)


def validate(module, command, wanted_set):
    """Run the service's own checker against a private copy of the whole set, changed and unchanged files alike."""
    # Not module.tmpdir: on a host that was never touched Ansible makes that folder with a warning to the user.
    staged = tempfile.mkdtemp(prefix="bedplate-")
    try:
        for wanted in wanted_set:
            if wanted.content is None:
                continue
            copy = staged + wanted.path
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            with open(copy, "wb") as handle:
                handle.write(wanted.content)
        argv = [item.replace("{staged}", staged) for item in command]
        code, out, err = module.run_command(argv, environ_update={"LC_ALL": "C", "LANGUAGE": "C"})
    finally:
        shutil.rmtree(staged)
    if code:
        said = (err.strip() or out.strip()).replace(staged, "")
        module.fail_json(
            msg=f"{command[0]} refuses the new configuration, so nothing was changed; it says: {said[-2000:]}",
            rc=code,
            changed=False,
        )


def commit(wanted):
    if is_absent(wanted):
        os.unlink(wanted.path)
        return
    if wanted.directory:
        os.makedirs(wanted.path, exist_ok=True)
        give(wanted.path, wanted)
        return
    parent = os.path.dirname(wanted.path)
    os.makedirs(parent, exist_ok=True)
    # Beside the target, so that the rename stays within one filesystem and is atomic.
    handle, temporary = tempfile.mkstemp(prefix=".bedplate-", dir=parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(wanted.content)
            stream.flush()
            os.fsync(stream.fileno())
        give(temporary, wanted)
        os.replace(temporary, wanted.path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def main():
    entry = {
        "path": {"type": "path", "required": True},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
    }
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": dict(
                    entry,
                    content={"type": "str"},
                    state={"type": "str", "choices": ["present", "absent"], "default": "present"},
                    mode={"type": "str", "default": "0644"},
                ),
            },
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": dict(entry, mode={"type": "str", "default": "0755"}),
            },
            "validate": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        wanted_set = parse(module.params["files"], module.params["directories"])
        pending = [
            (wanted, found) for wanted in wanted_set for found in [look(wanted.path)] if needs_change(wanted, found)
        ]
    except SpecError as error:
        module.fail_json(msg=f"config_files: {error}")
    changes = [wanted for wanted, found in pending]
    result = {
        "changed": bool(changes),
        "changed_paths": sorted(wanted.path for wanted in changes),
        "diff": [diff_entry(wanted, found) for wanted, found in pending],
    }
    if changes and not module.check_mode:
        for wanted in changes:
            for database, name, kind in ((pwd.getpwnam, wanted.owner, "user"), (grp.getgrnam, wanted.group, "group")):
                try:
                    database(name)
                except KeyError:
                    module.fail_json(
                        msg=f"config_files: {wanted.path} is for {kind} {name}, which does not exist on this host."
                    )
        if module.params["validate"]:
            validate(module, module.params["validate"], wanted_set)
        for wanted in changes:
            commit(wanted)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
