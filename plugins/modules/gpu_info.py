#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gpu_info
short_description: Find out which GPUs a host has, and whether they are fit to serve
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Asks NVIDIA's management library (NVML), then C(nvidia-smi), then the PCI bus, and takes the first that answers.
    Says which it was, and why each better one did not answer.
  - One broken GPU, or one value that is refused, hides nothing of the others.
  - NVML is asked through C(pynvml) of the package C(nvidia-ml-py), which the host's Python or one of O(pynvml_paths)
    may have. A host needs it only for NVLink; C(nvidia-smi), which every driver brings, tells the rest.
  - Never changes anything, and does not fail because of what it finds.
options:
  gpu_count:
    description: How many GPUs the host is expected to have; left out, any number is right.
    type: int
  plan:
    description: >-
      A plan as P(bedplate.llm.model_plan#module) returns it: one more check then says whether this host's GPUs can
      carry it.
    type: dict
    default: {}
  pynvml_paths:
    description:
      - Folders that may have a C(pynvml.py), with wildcards, asked in order when the host's Python has none.
      - The default is where the engine's virtual environment has it.
    type: list
    elements: path
    default: [/var/lib/bedplate/engines/*/lib/python3*/site-packages]
  timeout:
    description: How long C(nvidia-smi) may take, in seconds. A GPU in trouble can keep it for minutes.
    type: int
    default: 60
attributes:
  check_mode:
    description: Works the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  facts:
    description: Sets the fact C(bedplate_gpus).
    support: full
  platform:
    description: Linux hosts.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: See what the host has
  bedplate.llm.gpu_info:

- name: Expect all eight
  bedplate.llm.gpu_info:
    gpu_count: 8
  register: __gpus

- name: Compare a plan with what is really there
  bedplate.llm.gpu_info:
    plan: "{{ lookup('ansible.builtin.file', inventory_dir ~ '/plan.json') | from_json }}"
  register: __gpus

- name: Stop when a GPU is not fit to serve
  bedplate.llm.assert_checks:
    checks: "{{ __gpus.checks }}"
"""

RETURN = r"""
ansible_facts:
  description: The GPUs and what of the host matters to them.
  returned: always
  type: dict
  contains:
    bedplate_gpus:
      description: A value that could not be read, or that the hardware does not have, is null.
      type: dict
      returned: always
      contains:
        source:
          description: Which source V(answered) (V(nvml), V(nvidia-smi), V(pci) or V(none)), and why the others did not.
          type: dict
          returned: always
          sample: {answered: nvidia-smi, unavailable: {nvml: The host has no pynvml.}}
        simulated:
          description: Whether a lab's stand-in for the driver answered, so that the hardware is not there.
          type: bool
          returned: always
        gpus:
          description: >-
            One entry for each GPU, in the driver's order: names, PCI address and link, memory, ECC and row remapping,
            MIG, NVLink and fabric, NUMA node and processors, power, clocks, persistence, and processes; C(error) when
            the GPU does not answer, and C(unreadable) for single values with the reason.
          type: list
          elements: dict
          returned: always
        driver:
          description: Versions of the driver, its module, its library, NVML and CUDA; confidential computing.
          type: dict
          returned: always
        fabric_manager:
          description: Whether NVIDIA's fabric manager is installed, its version and its state.
          type: dict
          returned: always
        pci_addresses:
          description: NVIDIA GPUs on the bus, whether the driver has them or not.
          type: list
          elements: str
          returned: always
        nvswitches:
          description: NVSwitch devices on the bus.
          type: int
          returned: always
        host:
          description: Processor and its features, memory, NUMA nodes, NVMe, InfiniBand, nouveau and Secure Boot.
          type: dict
          returned: always
checks:
  description: What holds and what does not, with C(id), C(ok), C(reason) and C(remedy).
  returned: always
  type: list
  elements: dict
  sample: [{id: gpu.row-remap, ok: true, reason: No GPU waits for a reset to replace rows of its memory., remedy: ''}]
"""

import glob
import importlib
import importlib.util
import os
import subprocess
from dataclasses import replace
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import gpu_host, gpu_nvml, gpu_pci, gpu_smi, gpu_sources
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import NVIDIA_SMI, NVML, PCI, SourceError, as_dict
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_health import Expectations, checks
from ansible_collections.bedplate.llm.plugins.module_utils.plan_host import host_check

C_LOCALE = {"LC_ALL": "C", "LANGUAGE": "C"}
FABRIC_MANAGER = "nvidia-fabricmanager.service"
ROOT = Path("/")


def pynvml(paths):
    """The host's own pynvml, or the first one below the paths."""
    if importlib.util.find_spec("pynvml"):
        return importlib.import_module("pynvml")
    for path in paths:
        for found in sorted(glob.glob(os.path.join(path, "pynvml.py")), reverse=True):
            spec = importlib.util.spec_from_file_location("pynvml", found)
            loaded = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded)
            return loaded
    raise SourceError("The host has no pynvml (package nvidia-ml-py); the engine brings one.")


def smi(module):
    """What nvidia-smi prints; it may hang on a broken GPU, so it is not waited for without end."""
    tool = module.get_bin_path("nvidia-smi")
    if tool is None:
        raise SourceError("The host has no nvidia-smi: the driver's tools are not installed.")
    seconds = module.params["timeout"]
    try:
        done = subprocess.run(
            [tool, "-q", "-x"],
            env={**os.environ, **C_LOCALE},
            capture_output=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"nvidia-smi does not answer within {seconds} s: a GPU may hang.") from error
    except OSError as error:
        raise SourceError(f"nvidia-smi cannot be run: {error.strerror}.") from error
    return gpu_smi.parse((done.stdout or done.stderr).decode("utf-8", "replace"))


def fabric_manager(module):
    tool, program = module.get_bin_path("systemctl"), module.get_bin_path("nv-fabricmanager")
    show = module.run_command([tool, "show", FABRIC_MANAGER, "-p", "LoadState,ActiveState"])[1] if tool else ""
    version = module.run_command([program, "--version"])[1] if program else ""
    return gpu_host.parse_fabric_manager(show, version)


def collect(module):
    bus = gpu_pci.scan(ROOT)
    source, reading = gpu_sources.ask(
        [
            (NVML, lambda: gpu_nvml.read(pynvml(module.params["pynvml_paths"]))),
            (NVIDIA_SMI, lambda: smi(module)),
            (PCI, lambda: gpu_pci.read(bus)),
        ]
    )
    installed = replace(gpu_host.read_module(ROOT), library_version=gpu_host.library_version(ROOT))
    return gpu_sources.assemble(source, reading, bus, gpu_host.read(ROOT), installed, fabric_manager(module))


def main():
    module = AnsibleModule(
        argument_spec={
            "gpu_count": {"type": "int"},
            "plan": {"type": "dict", "default": {}},
            "pynvml_paths": {
                "type": "list",
                "elements": "path",
                "default": ["/var/lib/bedplate/engines/*/lib/python3*/site-packages"],
            },
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = C_LOCALE
    if (module.params["gpu_count"] or 0) < 0:
        module.fail_json(
            msg=f"gpu_info: gpu_count is {module.params['gpu_count']}: give the number of GPUs, or leave it out."
        )
    facts = collect(module)
    found, plan = checks(facts, Expectations(module.params["gpu_count"])), module.params["plan"]
    if plan:
        found.append(host_check(plan, as_dict(facts)))
    module.exit_json(changed=False, ansible_facts={"bedplate_gpus": as_dict(facts)}, checks=as_dicts(found))


if __name__ == "__main__":
    main()
