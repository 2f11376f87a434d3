"""A plan in the vllm role: its flags, what a site may change of them, and what the role refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import gpu_sets, plan_question, planner
from ansible_collections.bedplate.llm.plugins.module_utils.plan_use import departures, planned, problems
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_args import (
    Settings,
    check_flags,
    extra_problems,
    parse_flags,
    render,
    settings_problems,
)

PROJECT = Path(__file__).parents[2]
RECORD = json.loads((PROJECT / "roles/vllm/files/engine_flags/0.33.0.json").read_text())
# As roles/vllm/vars/main.yml makes them of the defaults.
OPEN: dict[str, Any] = {
    "executable": "/engine/bin/vllm",
    "model_path": "/models/m",
    "served_model_name": "m",
    "socket": "/run/m.sock",
    "shutdown_timeout": 60,
    "tensor_parallel_size": 1,
    "max_model_len": "auto",
    "dtype": "",
    "kv_cache_memory_bytes": "",
    "gpu_memory_utilization": None,
    "reasoning_parser": "",
    "enforce_eager": False,
    "max_num_seqs": None,
    "extra_args": {},
}


def plan(model: str = "deepseek-r1", gpus: str = "8xH200", **changes: Any) -> dict[str, Any]:
    asked = replace(plan_question.question(model, gpu_sets.parse(gpus)), **changes)
    value: dict[str, Any] = json.loads(json.dumps(planner.plan(asked).as_dict()))
    return value


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_the_plans_flags_become_the_engines_command_line(objective):
    made = plan(objective=objective)
    settings = Settings(**planned(OPEN, made))
    argv = render(settings, parse_flags(RECORD))
    assert check_flags(argv[3:], parse_flags(RECORD), "0.33.0") == []
    assert settings_problems(settings, "cuda") == [] and extra_problems(settings.extra_args or {}) == []
    line = " ".join(argv)
    for flag, value in made["flags"].items():
        assert f"--{flag}" + ("" if value is True else f" {value}") in line
    assert departures(OPEN, made) == []


def test_without_a_plan_nothing_changes():
    assert planned(OPEN, {}) == OPEN and departures(OPEN, {}) == [] and problems({}) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_model_len": "32768"}, "vllm_max_model_len is 32768, where the plan says 163840: 19.8 requests"),
        ({"max_model_len": "32k"}, "20.2 requests of that length"),
        ({"max_model_len": "1000000"}, "no request of that length fits"),
        ({"tensor_parallel_size": 4}, "vllm_tensor_parallel_size is 4, where the plan says 8: plan again"),
        ({"gpu_memory_utilization": 0.85}, "the room changes from 647,872 to 498,"),
        ({"gpu_memory_utilization": 0.6}, "fewer than one request"),
        ({"reasoning_parser": "deepseek_v3"}, "the memory stays the same"),
        ({"extra_args": {"max-num-batched-tokens": 16384}}, "vllm_extra_args: max-num-batched-tokens is 16384"),
    ],
)
def test_what_is_set_wins_and_its_effect_is_said(changes, said):
    made, settings = plan(), {**OPEN, **changes}
    (sentence,) = departures(settings, made)
    assert said in sentence
    merged = planned(settings, made)
    for name, value in changes.items():
        if name == "extra_args":
            assert merged[name]["max-num-batched-tokens"] == value["max-num-batched-tokens"]
        else:
            assert merged[name] == value


def test_a_value_that_the_plan_has_too_is_no_departure():
    assert departures({**OPEN, "tensor_parallel_size": 8, "max_model_len": 163840}, plan()) == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("plan.json", "is not a plan"),
        ({"fits": True}, "is not a plan"),
        ({**plan(), "schema": 2}, "has schema 2, expected 1"),
        (plan(gpus="8xH100"), "14.0 GiB are missing on each GPU. Serve it in AWQ int4"),
        (plan(gpus="2x8xH100"), "spreads one engine over hosts"),
    ],
)
def test_a_plan_that_cannot_be_served_by_is_refused(value, said):
    (sentence,) = problems(value)
    assert said in sentence
    assert planned(OPEN, value) == OPEN
