"""The filters as the role uses them: settings in, command line and sentences out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.bedplate.llm.plugins.filter import vllm

RECORD = json.loads((Path(__file__).parents[2] / "roles/vllm/files/engine_flags/0.32.0.json").read_text())
SETTINGS: dict[str, Any] = {
    "executable": "/e/bin/vllm",
    "model_path": "/m",
    "served_model_name": "r1",
    "socket": "/s",
    "shutdown_timeout": 60,
    "extra_args": {},
}
CPU: dict[str, Any] = {"device": "cpu", "engine_device": "cpu", "version": "0.32.0"}


def test_sound_settings_have_no_problem() -> None:
    assert vllm.vllm_problems(SETTINGS, RECORD, **CPU) == []


@pytest.mark.parametrize(
    ("extra", "context", "sentence"),
    [
        ({"swap-space": 1}, {}, "vllm_extra_args: vLLM 0.32.0 has no flag --swap-space"),
        ({}, {"settings": {"served_model_name": "r 1"}}, "vllm_served_model_name is 'r 1'; use letters"),
        ({"port": 1}, {}, "vllm_extra_args: port belongs to the role"),
        ({}, {"environment": {"LD_PRELOAD": "x"}}, "vllm_environment: LD_PRELOAD is refused"),
        ({}, {"device": "cuda", "version": "0.33.0"}, "vllm_device is cuda, but the bundle's engine is built for cpu"),
        ({}, {"version": "0.31.0"}, "older than 0.32.0"),
        ({}, {"version_floor": "0.35.0"}, "older than vllm_version_floor 0.35.0"),
    ],
)
def test_each_kind_of_problem_is_found(extra: dict[str, Any], context: dict[str, Any], sentence: str) -> None:
    settings = {**SETTINGS, "extra_args": extra, **context.pop("settings", {})}
    problems = vllm.vllm_problems(settings, RECORD, **{**CPU, **context})
    assert len(problems) == 1
    assert sentence in problems[0]


def test_all_problems_are_said_at_once() -> None:
    problems = vllm.vllm_problems(
        {**SETTINGS, "extra_args": {"port": 1, "host": "x"}}, RECORD, **CPU, environment={"LD_PRELOAD": "x"}
    )
    assert len(problems) == 3


def test_a_value_that_only_the_engine_knows_to_be_wrong_is_found() -> None:
    problems = vllm.vllm_problems({**SETTINGS, "dtype": "float8"}, RECORD, **CPU)
    assert len(problems) == 1
    assert "--dtype is 'float8'; the engine accepts auto, bfloat16" in problems[0]


def test_without_a_recorded_list_policy_still_holds() -> None:
    assert vllm.vllm_problems({**SETTINGS, "extra_args": {"swap-space": 1}}, None, **CPU) == []
    assert len(vllm.vllm_problems({**SETTINGS, "extra_args": {"trust-remote-code": True}}, None, **CPU)) == 1


def test_an_unknown_setting_is_an_error_of_the_filter() -> None:
    with pytest.raises(AnsibleFilterError, match="nonsense"):
        vllm.vllm_argv({**SETTINGS, "nonsense": 1})


def test_text_that_a_unit_cannot_carry_is_an_error_of_the_filter() -> None:
    with pytest.raises(AnsibleFilterError, match="control character"):
        vllm.vllm_exec_line(["/bin/x", "a\nb"])
    with pytest.raises(AnsibleFilterError, match="control character"):
        vllm.vllm_environment_line("a\nb", "A")
