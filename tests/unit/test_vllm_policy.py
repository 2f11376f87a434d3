"""The version floor and the environment: what may serve, and with which variables."""

from __future__ import annotations

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_policy import (
    FLOORS,
    environment_problems,
    refused_variable,
    version_key,
    version_problem,
)


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("0.9.9", "0.10.0"),
        ("0.32.0", "0.33.0"),
        ("0.33.0rc1", "0.33.0"),
        ("0.33.0.dev3", "0.33.0"),
        ("0.33", "0.33.1"),
        ("0.33.0", "1.0"),
    ],
)
def test_versions_sort_as_releases_do(lower: str, higher: str) -> None:
    assert version_key(lower) < version_key(higher)


@pytest.mark.parametrize("suffix", ["+cpu", ".post1", "+cu130"])
def test_local_and_post_releases_count_as_their_release(suffix: str) -> None:
    assert version_key("0.33.0" + suffix) == version_key("0.33.0")


@pytest.mark.parametrize("device", sorted(FLOORS))
def test_the_floor_itself_may_serve(device: str) -> None:
    assert version_problem(FLOORS[device].version, device) is None


@pytest.mark.parametrize(
    ("version", "device", "higher", "sentence"),
    [
        ("0.32.0", "cuda", "", "is vLLM 0.32.0, older than 0.33.0, which device cuda requires: 0.33.0 is the first"),
        ("0.31.0", "cpu", "", "older than 0.32.0, which device cpu requires"),
        ("0.33.0rc1", "cuda", "", "older than 0.33.0"),
        ("0.33.0", "cuda", "0.34.0", "older than vllm_version_floor 0.34.0"),
        ("0.33.0", "cuda", "0.20.0", "vllm_version_floor is 0.20.0, below the collection's own floor 0.33.0"),
        ("main", "cuda", "", "'main' is not a version number"),
        ("0.33.0", "cuda", "newest", "'newest' is not a version number"),
    ],
)
def test_a_version_that_may_not_serve_is_refused_with_the_reason(
    version: str, device: str, higher: str, sentence: str
) -> None:
    problem = version_problem(version, device, higher)
    assert problem is not None
    assert sentence in problem


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("PYTHONOPTIMIZE", "1", "PYTHONOPTIMIZE is refused: it changes what code the interpreter runs"),
        ("LD_PRELOAD", "/x.so", "LD_PRELOAD is refused"),
        ("VLLM_SERVER_DEV_MODE", "1", "it opens paths through which a client can run code"),
        ("HF_TOKEN", "hf_x", "no secret may stand there"),
        ("HF_HUB_OFFLINE", "0", "HF_HUB_OFFLINE is set by the role itself (to '1')"),
        ("VLLM_CPU_KVCACHE_SPACE", "", "is empty, which crashes the engine"),
        ("VLLM_CPU_KVCACHE_SPACE", None, "is empty, which crashes the engine"),
        ("VLLM_LOG_STATS_INTERVAL", True, "write the text that the engine should see"),
        ("VLLM_LOGSTATS_INTERVAL", "1", "is not a variable of this engine"),
        ("OMP NUM", "1", "is not the name of an environment variable"),
        ("OMP_NUM_THREADS", "1\n2", "more than one line"),
    ],
)
def test_a_wrong_variable_is_refused_in_a_sentence(name: str, value: object, sentence: str) -> None:
    known = ["VLLM_CPU_KVCACHE_SPACE", "VLLM_LOG_STATS_INTERVAL"]
    problems = environment_problems({name: value}, {"HF_HUB_OFFLINE": "1"}, known)
    assert len(problems) == 1
    assert problems[0].startswith("vllm_environment: ")
    assert sentence in problems[0]


def test_sound_variables_pass_and_unknown_names_are_not_judged_without_a_list() -> None:
    environment = {"OMP_NUM_THREADS": 4, "VLLM_LOG_STATS_INTERVAL": "30"}
    assert environment_problems(environment, {}, ["VLLM_LOG_STATS_INTERVAL"]) == []
    assert environment_problems({"VLLM_ANYTHING": "1"}, {}, None) == []


def test_refusal_by_prefix_does_not_reach_beyond_it() -> None:
    assert refused_variable("PYTHONPATH")
    assert refused_variable("LD_LIBRARY_PATH")
    assert refused_variable("OLD_STYLE") is None
    assert refused_variable("VLLM_API_KEY_FILE") is None
