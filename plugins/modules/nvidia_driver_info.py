#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nvidia_driver_info
short_description: Find out how a host stands with its NVIDIA driver, and what would have to change
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Looks at every kernel that could boot next and the NVIDIA module that it would load, at the module that is loaded,
    packages and holds, nouveau, Secure Boot, who uses the driver, the fabric manager and the persistence daemon.
  - Compares that with what is asked for, and says in sentences what forbids the change.
  - Never changes anything. With O(offers) it downloads package lists into a folder of its own, which it removes.
options:
  source:
    description: Where the driver comes from. V(preinstalled) asks for nothing and judges what is there.
    type: str
    choices: [distribution, vendor, mirror, preinstalled]
    default: preinstalled
  version:
    description: The driver's exact version, such as V(580.95.05).
    type: str
    default: ''
  kernel_module:
    description: The kernel module; V(auto) takes what the GPUs need.
    type: str
    choices: [auto, open, proprietary]
    default: auto
  build:
    description: >-
      V(prebuilt) is a module that the distribution has built and signed, which Ubuntu has; V(dkms) is built on the
      host; V(auto) takes the first where it exists.
    type: str
    choices: [auto, prebuilt, dkms]
    default: auto
  mirror_of:
    description: Whose packages a mirror has.
    type: str
    choices: [vendor, distribution]
    default: vendor
  hold_kernel:
    description: Whether the kernel's packages have to be held as well.
    type: bool
    default: false
  fabric_manager:
    description: Whether there has to be a fabric manager; V(auto) where there are NVSwitches.
    type: str
    choices: [auto, present, absent]
    default: auto
  persistence:
    description: Whether the persistence daemon has to start with the host.
    type: bool
    default: true
  offers:
    description: Whether to ask the package sources, where something would have to change.
    type: bool
    default: false
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
- name: Look at the driver that a host came with
  bedplate.llm.nvidia_driver_info:

- name: Find out what installing a driver would take
  bedplate.llm.nvidia_driver_info:
    source: distribution
    version: 535.261.03
    offers: true
  register: __driver
"""

RETURN = r"""
driver:
  description: >-
    What was found: C(system), C(kernels) with their modules, C(loaded_version), C(packages), C(holders),
    C(secure_boot), C(nouveau_loaded), C(fabric_manager), C(persistence), C(dkms), C(gpus) and more. What is not known
    is null.
  returned: always
  type: dict
plan:
  description: >-
    What has to be there: C(kind) of the module, C(packages) with C(name) and C(version), C(drops), C(module_stream),
    C(build), C(fabric), C(changes), C(settled), and the texts C(sources) and C(pin) of apt's files.
  returned: always
  type: dict
problems:
  description: What forbids the change, each with C(id) and C(sentence), in the order to be told.
  returned: always
  type: list
  elements: dict
  sample: [{id: pair, sentence: 'nvidia_driver_version is not set: …'}]
users:
  description: Who uses the GPU through the driver, apart from the driver's own services.
  returned: always
  type: list
  elements: str
  sample: [python3 (process 4711 of bedplate-vllm.service)]
stale_initramfs:
  description: Kernels whose initramfs is older than the settings of modules, or has nouveau and nothing against it.
  returned: always
  type: list
  elements: str
kernels_without_module:
  description: Kernels that could boot next and would come up without the driver.
  returned: always
  type: list
  elements: str
reboot_reasons:
  description: Why the host has to restart; empty while a kernel would come up without the driver.
  returned: always
  type: list
  elements: str
reboot_ahead:
  description: Why a change that is due would need a restart, with a driver at work beside libraries of another version.
  returned: always
  type: list
  elements: str
loadable:
  description: Whether the module can be loaded as it is, without a restart.
  returned: always
  type: bool
next_step:
  description: What to do now, as one sentence.
  returned: always
  type: str
checks:
  description: What holds and what does not, with C(id), C(ok), C(reason) and C(remedy).
  returned: always
  type: list
  elements: dict
"""

import dataclasses
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import (
    driver_checks,
    driver_host,
    driver_packages,
    gpu_host,
    gpu_nvml,
    gpu_pci,
    gpu_smi,
    gpu_sources,
)
from ansible_collections.bedplate.llm.plugins.module_utils import driver_parse as parse
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import Offers, Problem, Wanted
from ansible_collections.bedplate.llm.plugins.module_utils.driver_offers import (
    NO_CACHE,
    AptOffers,
    OfferError,
    dnf_versions,
)
from ansible_collections.bedplate.llm.plugins.module_utils.driver_plan import PREINSTALLED, make_plan, users
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import NVIDIA_SMI, NVML, PCI, SourceError

C_LOCALE = {"LC_ALL": "C", "LANGUAGE": "C"}
ROOT = Path("/")
SOURCES = "sources.list.d/nvidia-distribution-bedplate.sources"
PIN = "preferences.d/bedplate-nvidia-driver"
OUR_SOURCES = f"/etc/apt/{SOURCES}"


class Tools:
    """The host's tools; one that is missing says nothing."""

    def __init__(self, module):
        self.module = module

    def command(self, argv):
        tool = self.module.get_bin_path(argv[0], opt_dirs=["/sbin", "/usr/sbin"])
        if tool is None:
            return 127, "", f"{argv[0]} is missing"
        return self.module.run_command([tool, *argv[1:]], environ_update=C_LOCALE)

    def run(self, argv):
        code, out, _err = self.command(argv)
        # mokutil tells the answer by its words; its status differs between versions.
        return out if code == 0 or argv[0] == "mokutil" else None


def hardware(tools):
    """The GPUs as gpu_info sees them: the driver where there is one, else the bus."""

    def nvml():
        try:
            import pynvml
        except ImportError as error:
            raise SourceError("The host has no pynvml.") from error
        return gpu_nvml.read(pynvml)

    def smi():
        said = tools.run(["nvidia-smi", "-q", "-x"])
        if not said:
            raise SourceError("nvidia-smi does not answer.")
        return gpu_smi.parse(said)

    bus = gpu_pci.scan(ROOT)
    source, reading = gpu_sources.ask([(NVML, nvml), (NVIDIA_SMI, smi), (PCI, lambda: gpu_pci.read(bus))])
    manager = gpu_host.parse_fabric_manager(
        tools.run(["systemctl", "show", "nvidia-fabricmanager.service", "-p", "LoadState,ActiveState"]) or "",
        tools.run(["nv-fabricmanager", "--version"]) or "",
    )
    return gpu_sources.assemble(source, reading, bus, gpu_host.read(ROOT), gpu_host.read_module(ROOT), manager)


def own_sources(facts, wanted, repositories):
    """Our file for the distribution's own packages; a vendor's source is the business of package_source."""
    if facts.system.manager != "apt" or wanted.source != "distribution":
        return ""
    if not repositories:
        # Without lists apt does not know what it has: what was written when it did stays.
        return Path(OUR_SOURCES).read_text(encoding="utf-8") if Path(OUR_SOURCES).exists() else ""
    return driver_packages.sources(facts.system, driver_host.codename(ROOT), repositories, OUR_SOURCES)


def ask(tools, facts, wanted, plan):
    """What is offered of the plan's packages, what their transaction would do, and the text of our sources."""
    names = [name for name, _version in plan.packages] + [package.name for package in facts.packages]
    if facts.system.manager == "dnf":
        return dnf_versions(tools.command, names), ""
    with AptOffers(ROOT, tools.command, {SOURCES: "", PIN: driver_packages.pin(wanted.version)}) as apt:
        sources = own_sources(facts, wanted, apt.repositories())
        apt.add(SOURCES, sources)
        offers = apt.versions(names)
        chosen = make_plan(facts, wanted, offers)
        if any(problem.id in ("version", "headers") for problem in chosen.problems):
            return offers, sources
        simulated = apt.simulate(chosen.packages, chosen.drops)
        return Offers(offers.versions, simulated.removes, simulated.error), sources


def as_plan(plan, wanted, sources):
    return {
        "kind": plan.kind,
        "build": plan.build,
        "fabric": plan.fabric,
        "module_stream": plan.module_stream,
        "packages": [{"name": name, "version": version} for name, version in plan.packages],
        "drops": list(plan.drops),
        "changes": list(plan.changes),
        "unheld": list(plan.unheld),
        "settled": plan.settled,
        "sources": sources,
        "pin": driver_packages.pin(wanted.version),
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "source": {
                "type": "str",
                "choices": ["distribution", "vendor", "mirror", "preinstalled"],
                "default": "preinstalled",
            },
            "version": {"type": "str", "default": ""},
            "kernel_module": {"type": "str", "choices": ["auto", "open", "proprietary"], "default": "auto"},
            "build": {"type": "str", "choices": ["auto", "prebuilt", "dkms"], "default": "auto"},
            "mirror_of": {"type": "str", "choices": ["vendor", "distribution"], "default": "vendor"},
            "hold_kernel": {"type": "bool", "default": False},
            "fabric_manager": {"type": "str", "choices": ["auto", "present", "absent"], "default": "auto"},
            "persistence": {"type": "bool", "default": True},
            "offers": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = dict(module.params)
    wanted_offers = params.pop("offers")
    wanted, tools = Wanted(**params), Tools(module)
    facts = driver_host.look(ROOT, tools.run, hardware(tools))
    sources = own_sources(
        facts, wanted, parse.parse_index_targets(tools.run(["apt-get", *NO_CACHE, "indextargets"]) or "")
    )
    plan = make_plan(facts, wanted)
    if wanted_offers and plan.packages and plan.changes and wanted.source != PREINSTALLED:
        try:
            offers, sources = ask(tools, facts, wanted, plan)
            plan = make_plan(facts, wanted, offers)
        except OfferError as error:
            plan = dataclasses.replace(plan, problems=(*plan.problems, Problem("sources", str(error))))
    version = driver_checks.expected_version(facts, wanted)
    module.exit_json(
        changed=False,
        driver=dataclasses.asdict(facts),
        plan=as_plan(plan, wanted, sources),
        problems=[dataclasses.asdict(problem) for problem in plan.problems],
        users=users(facts.holders),
        stale_initramfs=list(driver_checks.stale_initramfs(facts)),
        kernels_without_module=list(driver_checks.kernels_without_module(facts, version)),
        reboot_reasons=driver_checks.reboot_reasons(facts, wanted),
        reboot_ahead=driver_checks.reboot_ahead(facts, wanted, plan),
        loadable=driver_checks.can_load(facts, wanted),
        next_step=driver_checks.next_step(facts, wanted, plan),
        checks=as_dicts(driver_checks.checks(facts, wanted, plan)),
    )


if __name__ == "__main__":
    main()
