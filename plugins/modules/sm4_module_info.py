#!/usr/bin/python
# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
---
module: sm4_module_info
short_description: Find out which kernels of a host have the cipher SM4, and what the others would take
version_added: 0.1.0
author: The bedplate developers (@bedplate)
description:
  - Has the running kernel encrypt two blocks with SM4 in XTS and compares the result with the known one, looks at every
    kernel that could boot next, at DKMS, at packages and at Secure Boot, and says what forbids building the module.
  - Changes nothing. The kernel may load its own modules when it is asked to encrypt. With O(offers) package lists are
    downloaded into a folder of their own, which is removed.
options:
  offers:
    description: Whether to ask the package sources, where packages are missing.
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
    description: Linux hosts; the module itself is built for Debian's kernels.
    support: full
    platforms: posix
"""

EXAMPLES = r"""
- name: Find out whether this host can have volumes of the profile guomi
  bedplate.llm.sm4_module_info:
  register: __sm4
"""

RETURN = r"""
host:
  description: >-
    What was found: C(kernels) with C(release), C(headers) and C(sm4), C(packages) that matter, C(builds) of DKMS,
    C(unusable), C(loaded_at_boot), C(secure_boot), C(signing_key) and C(signing_key_enrolled).
  returned: always
  type: dict
plan:
  description: >-
    What has to be done: C(series) of kernels that need the module, C(packages) that are missing, C(build_for) kernels,
    C(stale) builds, and whether all of it is C(settled).
  returned: always
  type: dict
problems:
  description: What forbids it, each with C(id) and C(sentence), in the order to be told.
  returned: always
  type: list
  elements: dict
reboot_reasons:
  description: Why the host has to restart before it has SM4.
  returned: always
  type: list
  elements: str
checks:
  description: What holds and what does not, with C(id), C(ok), C(reason) and C(remedy).
  returned: always
  type: list
  elements: dict
"""

import dataclasses
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bedplate.llm.plugins.module_utils import sm4_module, sm4_module_host
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import Problem
from ansible_collections.bedplate.llm.plugins.module_utils.driver_offers import AptOffers, OfferError

ROOT = Path("/")


def ask(tools, facts, plan):
    """The plan with what the package sources say to it."""
    try:
        with AptOffers(ROOT, tools.command, {}) as apt:
            offers = apt.versions(plan.packages)
            if all(offers.versions.get(name) for name in plan.packages):
                simulated = apt.simulate([(name, "") for name in plan.packages], [])
                offers = dataclasses.replace(offers, removes=simulated.removes, error=simulated.error)
        return sm4_module.make_plan(facts, offers)
    except OfferError as error:
        return dataclasses.replace(plan, problems=(*plan.problems, Problem("sources", str(error))))


def main():
    module = AnsibleModule(
        argument_spec={"offers": {"type": "bool", "default": False}},
        supports_check_mode=True,
    )
    tools = sm4_module_host.Tools(module)
    facts = sm4_module_host.look(ROOT, tools.run)
    plan = sm4_module.make_plan(facts)
    if module.params["offers"] and plan.packages:
        plan = ask(tools, facts, plan)
    module.exit_json(
        changed=False,
        host=sm4_module.as_dict(facts),
        plan={
            "series": list(plan.series),
            "packages": list(plan.packages),
            "build_for": list(plan.build_for),
            "stale": [dataclasses.asdict(build) for build in plan.stale],
            "settled": plan.settled,
        },
        problems=[dataclasses.asdict(problem) for problem in plan.problems],
        reboot_reasons=sm4_module.reboot_reasons(facts),
        checks=as_dicts(sm4_module.checks(facts, plan)),
    )


if __name__ == "__main__":
    main()
