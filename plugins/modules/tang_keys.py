#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: tang_keys
short_description: Make, rotate and forget the keys of a tang server
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Makes a signing and an exchange key where none is advertised, rotates advertised keys out, or deletes hidden ones.
  - Private keys are made on the host and never leave it.
  - A rotation first advertises new keys and then hides the old ones, which go on unlocking what was bound to them. One
    that was cut off is completed by the next run.
options:
  state:
    description:
      - V(present) makes the keys that are missing, and corrects owner and permissions of those that are there.
      - V(rotated) hides every advertised key, and advertises new ones, if one of O(thumbprints) is still advertised.
      - V(forgotten) deletes the hidden keys in O(thumbprints). What is bound to them alone can then not be unlocked.
    type: str
    choices: [present, rotated, forgotten]
    default: present
  thumbprints:
    description: The keys that are meant, for V(rotated) and V(forgotten). Those of another server are passed over.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Reports what would be done. On a host without tang, that keys would be made.
    support: full
  diff_mode:
    description: Keys are nothing that should be shown.
    support: none
  platform:
    description: Linux hosts with systemd, tang and C(jose).
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Have keys
  bedplate.llm.tang_keys:

- name: Rotate a key out
  bedplate.llm.tang_keys:
    state: rotated
    thumbprints: [HHgp5m0INKNP4rgFAyjP82MbqcISzDvY-cUDE3e7PtU]
"""

RETURN = r"""
made:
  description: Thumbprints of new keys; in check mode what they would be for.
  returned: always
  type: list
  elements: str
  sample: [eiyGFu5UA4gJjhMiCv8oCC1sAEyJHNvmgw1a74tij3s]
hidden:
  description: Thumbprints of the keys that were hidden.
  returned: always
  type: list
  elements: str
forgotten:
  description: Thumbprints of the keys that were deleted.
  returned: always
  type: list
  elements: str
corrected:
  description: Files whose owner or permissions were corrected.
  returned: always
  type: list
  elements: str
"""

import fcntl
import grp
import json
import os
import pwd
import tempfile
from contextlib import contextmanager

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import tang
from ansible_collections.bedplate.llm.plugins.module_utils.tang_host import exposed_keys, is_exposed, look

UNFINISHED = ".bedplate-"
C_LOCALE = {"LC_ALL": "C", "LANGUAGE": "C"}


class Folder:
    """The folder of keys of a server, for whoever its tangd runs as."""

    def __init__(self, module, server):
        self.module, self.path = module, server.folder.path
        self.user, self.group = pwd.getpwnam(server.user).pw_uid, grp.getgrnam(server.group).gr_gid

    def at(self, name):
        return os.path.join(self.path, name)

    def make(self, use):
        """A new key; returns its thumbprint."""
        argv = ["jose", "jwk", "gen", "-i", json.dumps({"alg": tang.ALGORITHMS[use]})]
        code, text, err = self.module.run_command(argv, environ_update=C_LOCALE)
        if code:
            self.module.fail_json(msg=f"jose makes no {use} key; it says: {err.strip()[-300:]}", rc=code)
        key = tang.parse_key(json.loads(text))
        handle, temporary = tempfile.mkstemp(prefix=UNFINISHED, dir=self.path)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text.strip())
            stream.flush()
            os.fchown(stream.fileno(), self.user, self.group)
            os.fchmod(stream.fileno(), tang.MODE)
            os.fsync(stream.fileno())
        os.rename(temporary, self.at(f"{key.thumbprint}.jwk"))
        return key.thumbprint

    def correct(self, name, mode):
        """Without following a link, since tangd's own user may write here and we are root."""
        descriptor = os.open(self.at(name), os.O_RDONLY | os.O_NOFOLLOW)
        try:
            # In this order: a key never becomes its new owner's with what its old mode let others do.
            os.fchmod(descriptor, mode)
            os.fchown(descriptor, self.user, self.group)
        finally:
            os.close(descriptor)


@contextmanager
def alone(module, server):
    """One run at a time; what a run that was cut off has left is cleared away. Nothing of it in check mode."""
    if module.check_mode or server.folder is None or not server.folder.owner:
        yield
        return
    descriptor = os.open(server.folder.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for name in os.listdir(server.folder.path):
            if name.startswith(UNFINISHED):
                os.unlink(os.path.join(server.folder.path, name))
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_missing(module, server):
    """The keys that are missing, and owners and permissions that are not as they should be."""
    if server.folder is None or not server.folder.owner:
        if not module.check_mode:
            raise tang.TangError("this host has no tang, or no folder for its keys; install the package tang.")
        return {"made": list(tang.ALGORITHMS)}
    missing = tang.missing_uses(server.keys)
    if missing and server.broken:
        name, why = sorted(server.broken.items())[0]
        raise tang.TangError(
            f"{server.folder.path}/{name} is no key ({why}), and it may be the {missing[0]} key that is missing; bring "
            "it back from the backup, or move it away to have a new one, to which no volume is bound."
        )
    folder = Folder(module, server)
    wrong = [(key.file, tang.MODE) for key in exposed_keys(server)] + ([("", 0o750)] if is_exposed(server) else [])
    if not module.check_mode:
        for name, mode in wrong:
            folder.correct(name, mode)
        missing = [folder.make(use) for use in missing]
    return {"made": missing, "corrected": [folder.at(name) for name, _mode in wrong]}


def rotate(module, server):
    """New keys are advertised before an old one is hidden: at no moment is there none."""
    old = tang.plan_rotation(server.keys, module.params["thumbprints"])
    if not old:
        return {}
    made = list(tang.ALGORITHMS)
    if not module.check_mode:
        folder = Folder(module, server)
        made = [folder.make(use) for use in tang.ALGORITHMS]
        for key in old:
            os.rename(folder.at(key.file), folder.at(tang.hidden_name(key)))
    return {"made": made, "hidden": [key.thumbprint for key in old]}


def forget(module, server):
    gone = tang.plan_forgetting(server.keys, module.params["thumbprints"])
    if not module.check_mode:
        for key in gone:
            os.unlink(os.path.join(server.folder.path, key.file))
    return {"forgotten": [key.thumbprint for key in gone]}


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "rotated", "forgotten"], "default": "present"},
            "thumbprints": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    state, named = module.params["state"], module.params["thumbprints"]

    def run(argv):
        return module.run_command(list(argv), environ_update=C_LOCALE)

    try:
        if state != "present":
            tang.require_names(named)
        server = look(run)
        if server.folder is None and state != "present":
            raise tang.TangError("this host has no tang; run the role tang_server first.")
        with alone(module, server):
            # Again: another run may have changed the keys while this one waited.
            done = {"present": make_missing, "rotated": rotate, "forgotten": forget}[state](module, look(run))
    except tang.TangError as error:
        module.fail_json(msg=f"tang_keys: nothing was changed: {error}")
    result = {"made": [], "hidden": [], "forgotten": [], "corrected": [], **done}
    module.exit_json(changed=any(result.values()), **result)


if __name__ == "__main__":
    main()
