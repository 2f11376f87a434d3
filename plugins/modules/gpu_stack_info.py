#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gpu_stack_info
short_description: Whether everything on a host that has to be of the driver's version is of it
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Reads the versions of the loaded kernel module, of the module on disk for every kernel, of the driver's libraries
    and tools, the fabric manager, the CDI specifications and the GPU's firmware. Compares them with each other and with
    the engine's CUDA.
  - One check for each pair of which both are there; what is not installed is no finding, and a host without NVIDIA's
    driver has no check.
  - Never changes anything, and does not fail because of what it finds. No GPU is asked.
options:
  engine_cuda:
    description: CUDA of the engine that is to run, such as V(13.0); empty for one without.
    type: str
    default: ''
  said:
    description: Ids of checks that the same report has already, such as those of P(bedplate.llm.gpu_info#module).
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
- name: See whether the parts of the driver agree
  bedplate.llm.gpu_stack_info:
    engine_cuda: "13.0"
  register: __stack

- name: Stop when they do not
  bedplate.llm.assert_checks:
    checks: "{{ __stack.checks }}"
"""

RETURN = r"""
stack:
  description: The versions that were found; null or empty is what is not there.
  returned: always
  type: dict
  sample: {kernel: 6.1.0-40-amd64, loaded: 580.95.05, modules: {6.1.0-40-amd64: 580.95.05}}
checks:
  description: What holds and what does not, with C(id), C(ok), C(reason) and C(remedy).
  returned: always
  type: list
  elements: dict
  sample:
    - {id: gpu_stack.nvidia-smi, ok: true, reason: 'nvidia-smi is 580.95.05, as the driver is.', remedy: ''}
"""

import os
import re
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import gpu_host
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import as_dict
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_stack import (
    CUDA_LIBRARY,
    NVML_LIBRARY,
    Stack,
    checks,
    parse_cdi,
)

ROOT = Path("/")
C_LOCALE = {"LC_ALL": "C", "LANGUAGE": "C"}
# Debian gives the module a name of its own, and "nvidia" is an alias that modinfo does not follow.
MODULE_NAMES = ("nvidia", "nvidia-current", "nvidia-current-open")
CDI_FOLDERS = ("etc/cdi", "var/run/cdi")
FIRMWARE = "lib/firmware/nvidia"
VERSION = re.compile(r"\d+\.\d+(?:\.\d+)*")
# The tool asks the driver before it answers, and a GPU in trouble keeps it waiting.
SECONDS = 20


def said_by(module, program, *arguments):
    """What a program prints; nothing when it is not there or does not answer."""
    path = module.get_bin_path(program)
    if path is None:
        return ""
    try:
        done = subprocess.run(
            [path, *arguments], env={**os.environ, **C_LOCALE}, capture_output=True, check=False, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


def modules(module):
    """Version of the module on disk for each installed kernel that has one."""
    found = {}
    folder = ROOT / "lib/modules"
    for kernel in sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []:
        for name in MODULE_NAMES:
            match = VERSION.search(said_by(module, "modinfo", "-b", str(ROOT), "-k", kernel, "-F", "version", name))
            if match:
                found[kernel] = match[0]
                break
    return found


def tools(module):
    found = {}
    for name, label in (("nvidia-smi", "NVIDIA-SMI version"), ("nvidia-persistenced", "version")):
        match = re.search(rf"{label}\s*:?\s*({VERSION.pattern})", said_by(module, name, "--version"))
        if match:
            found[name] = match[1]
    return found


def specifications():
    found = []
    for folder in CDI_FOLDERS:
        place = ROOT / folder
        for path in sorted(place.iterdir()) if place.is_dir() else []:
            if path.suffix in (".json", ".yaml", ".yml"):
                found.append(parse_cdi(f"/{folder}/{path.name}", path.read_text("utf-8", "replace")))
    return tuple(spec for spec in found if spec is not None)


def firmware():
    folder = ROOT / FIRMWARE
    return tuple(
        sorted(
            path.name
            for path in (folder.iterdir() if folder.is_dir() else [])
            if VERSION.fullmatch(path.name) and any(path.glob("gsp*.bin*"))
        )
    )


def collect(module):
    libraries = {name: gpu_host.library_version(ROOT, name) for name in (CUDA_LIBRARY, NVML_LIBRARY)}
    loaded = gpu_host.read_module(ROOT)
    manager = gpu_host.parse_fabric_manager("", said_by(module, "nv-fabricmanager", "--version"))
    return Stack(
        kernel=os.uname().release,
        loaded=loaded.module_version,
        loaded_open=loaded.module_open,
        modules=modules(module),
        libraries={name: version for name, version in libraries.items() if version},
        tools=tools(module),
        fabric_manager=manager.version,
        cdi=specifications(),
        firmware=firmware(),
        engine_cuda=module.params["engine_cuda"],
    )


def main():
    module = AnsibleModule(
        argument_spec={
            "engine_cuda": {"type": "str", "default": ""},
            "said": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    stack = collect(module)
    module.exit_json(changed=False, stack=as_dict(stack), checks=as_dicts(checks(stack, module.params["said"])))


if __name__ == "__main__":
    main()
