"""A machine with two real H200s and a driver that it came with, without systemd or kernel packages, recorded there."""

from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.bedplate.llm.plugins.module_utils import driver_checks, gpu_stack
from ansible_collections.bedplate.llm.plugins.module_utils.checks import as_dicts
from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import (
    DriverFacts,
    Gpu,
    Service,
    System,
    Wanted,
)
from ansible_collections.bedplate.llm.plugins.module_utils.driver_plan import make_plan
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_stack import Stack

RECORDED = Path(__file__).parents[1] / "bench/gpu/2xH200"
PREINSTALLED = Wanted(source="preinstalled")


def recorded(name: str) -> dict:
    return json.loads((RECORDED / f"{name}.json").read_text())


def facts() -> DriverFacts:
    found = recorded("driver")["driver"]
    nested = {
        "system": System(**found["system"]),
        "gpus": tuple(Gpu(**gpu) for gpu in found["gpus"]),
        "fabric_manager": Service(**found["fabric_manager"]),
        "persistence": Service(**found["persistence"]),
    }
    empty = {name: () for name, value in found.items() if value == []}
    return DriverFacts(**{**found, **empty, **nested})


def test_a_good_driver_that_was_there_before_us_passes_every_check():
    checks = driver_checks.checks(facts(), PREINSTALLED, make_plan(facts(), PREINSTALLED))
    assert as_dicts(checks) == recorded("driver")["checks"]
    assert [check.id for check in checks if not check.ok] == []


def test_nothing_is_to_be_done_there():
    plan = make_plan(facts(), PREINSTALLED)
    assert driver_checks.next_step(facts(), PREINSTALLED, plan) == "Nothing."
    assert driver_checks.reboot_reasons(facts(), PREINSTALLED) == []


def test_its_parts_are_of_one_version():
    found = recorded("stack")
    checks = gpu_stack.checks(Stack(**{**found["stack"], "cdi": (), "firmware": ()}))
    assert as_dicts(checks) == found["checks"]
    assert len(checks) == 4 and all(check.ok for check in checks)
