"""The engine's command line: what is rendered, and what is refused before anything changes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_args import (
    Flag,
    Settings,
    check_flags,
    extra_problems,
    parse_flags,
    render,
    render_extra,
    settings_problems,
)
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_policy import (
    OWNED_FLAGS,
    REFUSED_ENVIRONMENT,
    REFUSED_FLAGS,
)

ROLE = Path(__file__).parents[2] / "roles/vllm"
RECORD = json.loads((ROLE / "files/engine_flags/0.32.0.json").read_text())
KNOWN = parse_flags(RECORD)
# Since this one --enable-x and --disable-x are one setting.
RECORD_CUDA = json.loads((ROLE / "files/engine_flags/0.33.0.json").read_text())
KNOWN_CUDA = parse_flags(RECORD_CUDA)
PLAIN = Settings("/e/bin/vllm", "/m", "r1", "/run/api.sock", 60)


def problems_of(extra: dict[str, object]) -> list[str]:
    return extra_problems(extra) or check_flags(render(replace(PLAIN, extra_args=extra), KNOWN)[3:], KNOWN, "0.32.0")


def test_plain_settings_render_the_whole_command_line() -> None:
    assert render(PLAIN) == [
        *["/e/bin/vllm", "serve", "/m", "--served-model-name", "r1", "--uds", "/run/api.sock"],
        *["--load-format", "safetensors", "--shutdown-timeout", "60"],
        *["--disable-fastapi-docs", "--disable-uvicorn-access-log", "--fail-on-environ-validation"],
        *["--tensor-parallel-size", "1"],
    ]


@pytest.mark.parametrize(
    ("field", "value", "rendered"),
    [
        ("max_model_len", "auto", ["--max-model-len", "auto"]),
        ("max_model_len", "-1", ["--max-model-len=-1"]),
        ("dtype", "bfloat16", ["--dtype", "bfloat16"]),
        ("kv_cache_memory_bytes", "64M", ["--kv-cache-memory-bytes", "64M"]),
        ("gpu_memory_utilization", 0.9, ["--gpu-memory-utilization", "0.9"]),
        ("tensor_parallel_size", 8, ["--tensor-parallel-size", "8"]),
        ("reasoning_parser", "deepseek_r1", ["--reasoning-parser", "deepseek_r1"]),
        ("enforce_eager", True, ["--enforce-eager"]),
        ("max_num_seqs", 256, ["--max-num-seqs", "256"]),
    ],
)
def test_a_setting_becomes_its_flag_and_the_engine_accepts_it(field: str, value: object, rendered: list[str]) -> None:
    argv = render(replace(PLAIN, **{field: value}), KNOWN)  # type: ignore[arg-type]
    assert " ".join(rendered) in " ".join(argv)
    assert check_flags(argv[3:], KNOWN, "0.32.0") == []


@pytest.mark.parametrize(
    ("extra", "rendered"),
    [
        ({"enable-prefix-caching": True}, ["--enable-prefix-caching"]),
        ({"enable-prefix-caching": False}, ["--no-enable-prefix-caching"]),
        ({"max-num-batched-tokens": 8192}, ["--max-num-batched-tokens", "8192"]),
        ({"seed": -1}, ["--seed=-1"]),
        ({"cudagraph-capture-sizes": [1, 2, 4]}, ["--cudagraph-capture-sizes", "1", "2", "4"]),
        ({"compilation-config": {"mode": 0}}, ["--compilation-config", '{"mode":0}']),
        ({"allowed-origins": ["https://a"]}, ["--allowed-origins", '["https://a"]']),
        ({"hf-overrides": {"a": {"b": None}}}, ["--hf-overrides", '{"a":{"b":null}}']),
    ],
)
def test_extra_arguments_render_by_what_the_flag_takes(extra: dict[str, object], rendered: list[str]) -> None:
    assert render_extra(extra, KNOWN) == rendered
    assert problems_of(extra) == []


@pytest.mark.parametrize(
    ("key", "older", "newer"),
    [
        ("enable-prefix-caching", "--no-enable-prefix-caching", "--disable-prefix-caching"),
        ("disable-custom-all-reduce", "--no-disable-custom-all-reduce", "--enable-custom-all-reduce"),
        ("async-scheduling", "--no-async-scheduling", "--no-async-scheduling"),
        # Switches that no engine can switch off: the check of the flags says so.
        ("disable-log-stats", "--no-disable-log-stats", "--no-disable-log-stats"),
    ],
)
def test_a_switch_that_is_off_is_written_as_the_engine_documents_it(key: str, older: str, newer: str) -> None:
    assert render_extra({key: False}, KNOWN) == [older]
    assert render_extra({key: False}, KNOWN_CUDA) == [newer]
    assert render_extra({key: False}, None) == [older]
    assert render_extra({key: True}, KNOWN_CUDA) == ["--" + key]


def test_the_older_negative_passes_on_a_newer_engine_too() -> None:
    assert check_flags(["--no-enable-prefix-caching"], KNOWN_CUDA, "0.33.0") == []


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"disable-log-requests": False}, "disable-log-requests is refused when it is not true: prompts would stand"),
        ({"disable-log-requests": "no"}, "disable-log-requests is refused when it is not true"),
        ({"disable-prompt-embeds": False}, "it deserialises tensors that clients send"),
        ({"enable-fastapi-docs": True}, "enable-fastapi-docs belongs to the role: the role always disables"),
        ({"enable-uvicorn-access-log": True}, "enable-uvicorn-access-log belongs to the role"),
        ({"disable-ssl-refresh": False}, "disable-ssl-refresh belongs to the role: the gateway ends TLS"),
    ],
)
def test_policy_holds_for_the_opposite_of_a_flag(extra: dict[str, object], sentence: str) -> None:
    problems = extra_problems(extra)
    assert len(problems) == 1
    assert sentence in problems[0]


def test_the_opposite_of_a_refused_flag_is_harmless_when_it_is_on() -> None:
    assert extra_problems({"disable-log-requests": True}) == []


def test_a_gpu_hosts_command_line_is_what_the_recorded_engine_takes() -> None:
    settings = replace(
        PLAIN,
        tensor_parallel_size=2,
        reasoning_parser="deepseek_r1",
        gpu_memory_utilization=0.9,
        extra_args={
            "max-num-batched-tokens": 8192,
            "enable-prefix-caching": False,
            "async-scheduling": False,
            "kv-cache-dtype": "fp8",
            "compilation-config": {"cudagraph_mode": "PIECEWISE"},
        },
    )
    assert check_flags(render(PLAIN, KNOWN_CUDA)[3:], KNOWN_CUDA, "0.33.0") == []
    assert check_flags(render(settings, KNOWN_CUDA)[3:], KNOWN_CUDA, "0.33.0") == []


def test_a_repeating_flag_is_repeated() -> None:
    assert render_extra({"x": ["a", "b"]}, {"--x": Flag("one", repeats=True)}) == ["--x", "a", "--x", "b"]


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        # An abbreviation that the engine's own parser would take for --kv-cache-memory-bytes.
        ({"kv-cache-memory": "1G"}, "has no flag --kv-cache-memory; did you mean --kv-cache-memory-bytes"),
        ({"max-num-batched-token": 1}, "did you mean --max-num-batched-tokens"),
        ({"swap-space": 4}, "vLLM 0.32.0 has no flag --swap-space; "),
        ({"zzzz": 4}, "remove it, or look at what `vllm serve --help=all` lists."),
        ({"max-num-batched-tokens": True}, "--max-num-batched-tokens needs a value and got none"),
        ({"enable-prefix-caching": "yes"}, "--enable-prefix-caching is a switch and takes no value, found 'yes'"),
        ({"disable-log-stats": False}, "cannot switch --disable-log-stats off"),
        ({"block-size": "large"}, "--block-size is 'large'; the engine expects a whole number."),
        ({"cpu-offload-gb": "two"}, "--cpu-offload-gb is 'two'; the engine expects a number."),
        ({"scheduling-policy": "random"}, "--scheduling-policy is 'random'; the engine accepts fcfs, priority."),
        ({"--seed": 1}, "'--seed' is not the name of a flag"),
        ({"seed=1": 1}, "is not the name of a flag"),
        ({"no-async-scheduling": True}, "no-async-scheduling is a negation; write async-scheduling: false instead."),
        ({"max_num_batched_tokens": 1}, "write max-num-batched-tokens"),
        ({"attention-config.backend": "X"}, "write attention-config, with a mapping as its value."),
        ({"uds": "/tmp/x"}, "uds belongs to the role: the engine listens on a Unix socket only"),
        ({"max-model-len": 5}, "max-model-len belongs to the role: set vllm_max_model_len."),
        ({"trust-remote-code": True}, "trust-remote-code is refused: it runs Python code out of a model folder"),
        ({"enable-log-requests": True}, "prompts would stand in the system's log"),
        ({"seed": None}, "seed has no value"),
        ({"seed": ""}, "seed has no value"),
        ({"cudagraph-capture-sizes": [-1]}, "begins with a dash"),
        ({"chat-template": "a\nb"}, "control character"),
    ],
)
def test_a_wrong_extra_argument_is_refused_in_a_sentence(extra: dict[str, object], sentence: str) -> None:
    problems = problems_of(extra)
    assert len(problems) == 1
    assert sentence in problems[0]
    assert problems[0].endswith((".", "?"))


def test_the_negative_form_of_a_refused_flag_is_harmless() -> None:
    assert problems_of({"trust-remote-code": False}) == []


@pytest.mark.parametrize(
    ("change", "device", "sentence"),
    [
        ({"served_model_name": "r1; x"}, "cuda", "vllm_served_model_name is 'r1; x'; use letters"),
        ({"served_model_name": ""}, "cuda", "vllm_served_model_name is ''"),
        ({"max_model_len": "long"}, "cuda", "vllm_max_model_len is 'long'; give a number of tokens"),
        ({"max_model_len": "0"}, "cuda", "vllm_max_model_len is '0'"),
        ({"kv_cache_memory_bytes": "8GB"}, "cuda", "vllm_kv_cache_memory_bytes is '8GB'; give bytes such as"),
        ({"gpu_memory_utilization": 92.0}, "cuda", "vllm_gpu_memory_utilization is 92.0; give a share"),
        ({"gpu_memory_utilization": 0.5}, "cpu", "vllm_gpu_memory_utilization is set on device cpu"),
        ({"tensor_parallel_size": 0}, "cuda", "vllm_tensor_parallel_size is 0; give 1 or more."),
        ({"max_num_seqs": 0}, "cuda", "vllm_max_num_seqs is 0"),
        ({"shutdown_timeout": -1}, "cuda", "vllm_shutdown_timeout is -1; give 0 or more."),
    ],
)
def test_a_wrong_value_of_a_variable_is_refused_in_a_sentence(
    change: dict[str, object], device: str, sentence: str
) -> None:
    problems = settings_problems(replace(PLAIN, **change), device)  # type: ignore[arg-type]
    assert len(problems) == 1
    assert sentence in problems[0]


@pytest.mark.parametrize("value", ["", "auto", "32768", "32k", "1.5M"])
def test_lengths_as_the_engine_reads_them_pass(value: str) -> None:
    assert settings_problems(replace(PLAIN, max_model_len=value, gpu_memory_utilization=0.92), "cuda") == []


def test_a_flag_that_is_given_twice_is_refused() -> None:
    argv = ["--seed", "1", "--seed", "2"]
    assert check_flags(argv, KNOWN, "0.32.0") == [
        "vLLM 0.32.0: --seed is given twice; the engine would take the last one."
    ]


def test_a_flag_with_too_many_values_is_refused() -> None:
    assert "takes one value, found 2" in check_flags(["--seed", "1", "2"], KNOWN, "0.32.0")[0]


@pytest.mark.parametrize("known", [KNOWN, KNOWN_CUDA], ids=["0.32.0", "0.33.0"])
@pytest.mark.parametrize("table", [OWNED_FLAGS, REFUSED_FLAGS])
def test_policy_names_only_flags_that_the_recorded_engine_has(table: dict[str, str], known: dict[str, Flag]) -> None:
    assert [name for name in table if name not in known] == []


@pytest.mark.parametrize("record", [RECORD, RECORD_CUDA], ids=["0.32.0", "0.33.0"])
def test_the_variables_of_role_and_policy_exist_in_the_recorded_engine(record: dict[str, list[str]]) -> None:
    facts = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    owned = {**facts["__vllm_common_environment"], **facts["__vllm_device_environment"]["cuda"]}
    since = {"VLLM_REQUEST_BODY_LOG_LEVEL": "0.33.0"}
    named = {name for name in (*owned, *REFUSED_ENVIRONMENT) if name.startswith("VLLM_")}
    assert {name for name in named - set(record["environment"]) if since.get(name, "") <= record["engine"]} == set()


def test_the_command_lines_that_no_engine_takes_any_more_are_not_rendered() -> None:
    gone = ("disable-log-requests", "swap-space", "enable-reasoning", "guided-decoding-backend", "task", "rope-scaling")
    assert [name for name in render(PLAIN) if name[2:] in gone] == []


def test_every_flag_that_the_role_renders_is_owned_by_it() -> None:
    everything = Settings(
        *("/e/bin/vllm", "/m", "r1", "/s", 60, 2, "auto", "bfloat16", "1G", 0.9, "deepseek_r1", True, 8), extra_args={}
    )
    flags = [item for item in render(everything) if item.startswith("--")]
    assert [flag for flag in flags if flag not in OWNED_FLAGS] == []


def test_variables_named_in_policy_exist_in_the_role() -> None:
    specs = (ROLE / "meta/argument_specs.yml").read_text()
    named = {name for reason in OWNED_FLAGS.values() for name in re.findall(r"vllm_\w+", reason)}
    assert {name for name in named if f"      {name}:\n" not in specs} == set()


def test_a_record_of_another_schema_is_refused() -> None:
    with pytest.raises(ValueError, match="schema 2, expected 1"):
        parse_flags({"schema": 2, "flags": {}})
