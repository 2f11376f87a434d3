"""A plan against the GPUs that a host really has, before anything is changed there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import module_runner
import nvml_harness
import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import gpu_sets, plan_question, planner
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_generations import PRODUCTS
from ansible_collections.bedplate.llm.plugins.module_utils.plan_host import host_check
from ansible_collections.bedplate.llm.plugins.modules import gpu_info

GIB = 1024**3


def plan(model: str, gpus: str, **changes: Any) -> dict[str, Any]:
    asked = replace(plan_question.question(model, gpu_sets.parse(gpus)), **changes)
    made: dict[str, Any] = json.loads(json.dumps(planner.plan(asked).as_dict()))
    return made


def host(count: int, product: str, gib: float | None = None, **changes: Any) -> dict[str, Any]:
    total = gpu_sets.parse(f"1x{product}").memory_bytes if gib is None else int(gib * GIB)
    gpus = [
        {"index": index, "product": product, "error": None, "memory": {"total_bytes": total}, **changes}
        for index in range(count)
    ]
    return {"gpus": gpus, "simulated": False}


R1_8XH200 = plan("deepseek-r1", "8xH200")
DISTILL = plan("deepseek-r1-distill-qwen-7b", "8xH100", tensor=4, pipeline=1, data=1)


@pytest.mark.parametrize(
    ("made", "facts"),
    [
        (R1_8XH200, host(8, "H200")),
        # Half of the planned host is used, and that half is there.
        (DISTILL, host(4, "H100")),
        # More of everything does no harm.
        (DISTILL, host(8, "H200")),
        # A nominal size that the card misses by a little.
        (plan("deepseek-r1-distill-qwen-7b", "1xRTX4090"), host(1, "RTX 4090", 23.85)),
        # Two hosts that serve alone: one of them is asked.
        (plan("deepseek-r1", "2x8xH200", objective="throughput"), host(8, "H200")),
    ],
)
def test_a_host_that_can_carry_its_plan(made, facts):
    found = host_check(made, facts)
    assert (found.id, found.ok, found.remedy) == ("gpu.planned", True, ""), found.sentence
    assert made["gpus"] in found.reason


@pytest.mark.parametrize(
    ("made", "facts", "words"),
    [
        (
            R1_8XH200,
            host(4, "H200"),
            "made for deepseek-r1 on 8xH200, needs 8 GPUs of one host, and this host has 4 (H200).",
        ),
        (DISTILL, host(2, "H100"), "needs 4 GPUs of one host, and this host has 2"),
        (R1_8XH200, host(8, "H100"), "counts with 140.4 GiB on each GPU, and this host's have 79.6 (H100)"),
        (DISTILL, host(8, "A100 80G"), "this host has 8xA100-80G, which are ampere and not hopper"),
        (DISTILL, {"gpus": []}, "and this host has no GPU."),
        (DISTILL, host(4, "H100", error="GPU is lost"), "GPU 0 does not answer (GPU is lost)"),
        (DISTILL, host(4, "H100", mig={"enabled": True}), "GPU 0 is split (MIG)"),
        (DISTILL, {"gpus": [*host(1, "H100")["gpus"], *host(1, "H200")["gpus"]]}, "different kinds (H100, H200)"),
        (plan("deepseek-r1", "8xH100"), host(8, "H100"), "vllm_plan does not fit"),
        ({"fits": True}, host(8, "H100"), "vllm_plan is not a plan"),
        ({**DISTILL, "gpus": "8xFancy9000"}, host(8, "H100"), "'Fancy9000' is not known"),
    ],
)
def test_a_host_that_cannot_says_what_is_there_and_what_to_do(made, facts, words):
    found = host_check(made, facts)
    assert not found.ok
    assert words in found.reason, found.reason
    assert "bedplate plan --site SITE" in found.remedy


@pytest.mark.parametrize("product", [each for each in PRODUCTS if not each.too_old], ids=lambda each: each.name)
def test_the_gpus_of_every_plan_can_be_read_back(product):
    label = gpu_sets.GpuSet(1, 2, product, product.memory_bytes).label
    assert gpu_sets.parse(label).product == product


@pytest.mark.parametrize(
    ("gpus", "ok"), [("8xH100", True), ("8xH200", False)], ids=["the plan's host", "less memory than planned"]
)
def test_the_module_asks_the_driver_and_says_it_with_its_other_checks(gpus, ok, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(gpu_info, "ROOT", tmp_path)
    with nvml_harness.wearing(nvml_harness.PROFILES["8xH100"]):
        result = module_runner.run(gpu_info, plan=plan("deepseek-r1-distill-qwen-7b", gpus))
        without = module_runner.run(gpu_info)
    (check,) = [check for check in result["checks"] if check["id"] == "gpu.planned"]
    assert check["ok"] is ok, check
    assert "gpu.planned" not in [check["id"] for check in without["checks"]]
