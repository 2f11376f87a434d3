#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: docker_daemon
short_description: Add settings to Docker's daemon.json, and restart Docker when nobody is hurt by it
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Merges the wanted settings into C(/etc/docker/daemon.json) key by key. Everything else in it stays as it is, in its
    order. A file that is no valid JSON, a value of another kind in a key's place, and an option of dockerd's command
    line that says the same are refused, and nothing is changed.
  - The old file is kept beside it as C(daemon.json.before-bedplate), once.
  - Restarts Docker only when it runs without the settings, no container runs in it, and no engine serves; otherwise
    says that a restart is due and why it has to wait.
options:
  settings:
    description: The settings.
    type: dict
    required: true
  engine_unit:
    description: The unit of the engine that must not be disturbed.
    type: str
    default: bedplate-vllm.service
attributes:
  check_mode:
    description: Says whether the file would change and Docker be restarted, and does neither.
    support: full
  diff_mode:
    description: Shows the file before and after.
    support: full
  platform:
    description: Linux hosts with Docker.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Let Docker read descriptions of GPUs
  bedplate.llm.docker_daemon:
    settings:
      features:
        cdi: true
"""

RETURN = r"""
restarted:
  description: Whether Docker was, or in check mode would be, restarted.
  returned: always
  type: bool
restart_pending:
  description: Why a restart of Docker is due and has to wait; empty when it is not.
  returned: always
  type: str
"""

import json
import os
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.docker_daemon import (
    PATH,
    DaemonError,
    Running,
    conflicts,
    flags,
    merge,
    parse,
    render,
    restart_decision,
)

C_LOCALE = {"LC_ALL": "C", "LANGUAGE": "C"}


def read(path):
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except FileNotFoundError:
        return None


def write(path, text):
    """Replace the file by a rename; a new one is root's alone to write, an old one keeps its owner and mode."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".daemon-", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        if os.path.exists(path):
            shutil.copystat(path, name)
            status = os.stat(path)
            os.chown(name, status.st_uid, status.st_gid)
            keep = path + ".before-bedplate"
            if not os.path.exists(keep):
                shutil.copy2(path, keep)
        else:
            os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def running(module):
    def run(*argv):
        return module.run_command(list(argv), environ_update=C_LOCALE)

    active = run("systemctl", "is-active", "--quiet", "docker.service")[0] == 0
    serves = run("systemctl", "is-active", "--quiet", module.params["engine_unit"])[0] == 0
    if not active:
        return Running(False, False, 0, serves)
    code, told, _err = run("docker", "info", "--format", "{{json .CDISpecDirs}}")
    reads = code == 0 and bool(json.loads(told or "null"))
    containers = len(run("docker", "ps", "--quiet")[1].split())
    return Running(True, reads, containers, serves)


def main():
    module = AnsibleModule(
        argument_spec={
            "settings": {"type": "dict", "required": True},
            "engine_unit": {"type": "str", "default": "bedplate-vllm.service"},
        },
        supports_check_mode=True,
    )
    settings, text = module.params["settings"], read(PATH)
    try:
        have = parse(text)
        wanted = merge(have, settings)
    except DaemonError as error:
        module.fail_json(msg=str(error))
    shown = module.run_command(["systemctl", "show", "docker.service", "-p", "ExecStart"], environ_update=C_LOCALE)[1]
    problems = conflicts(flags(shown), settings)
    if problems:
        module.fail_json(msg=" ".join(problems))
    changed = wanted != have
    if changed and not module.check_mode:
        write(PATH, render(wanted))
    restart, pending = restart_decision(changed, running(module))
    if restart and not module.check_mode:
        code, _out, err = module.run_command(["systemctl", "restart", "docker.service"], environ_update=C_LOCALE)
        if code:
            module.fail_json(msg=f"Docker does not start with {PATH}; it says: {err.strip()[-500:]}", rc=code)
    module.exit_json(
        changed=changed or restart,
        restarted=restart,
        restart_pending=pending,
        diff={"before_header": PATH, "after_header": PATH, "before": text or "", "after": render(wanted)}
        if changed
        else {"before": "", "after": ""},
    )


if __name__ == "__main__":
    main()
