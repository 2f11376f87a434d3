"""`bedplate plan` as a user runs it: exit codes, what is printed, a site's GPUs, and how long it takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cli_harness
import nvml_harness
import pytest
from typer.testing import CliRunner

from bedplate.cli import app

RUNNER = CliRunner()


def ask(*arguments: str, code: int = 0) -> str:
    result = RUNNER.invoke(app, ["plan", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_a_plan_is_a_verdict_a_table_and_a_command_line():
    output = ask("--model", "deepseek-r1", "--gpus", "8xH200")
    assert output.startswith("FITS  deepseek-r1 on 8xH200")
    assert "79.5 GiB of each GPU's 140.4 GiB" in output
    assert "vllm serve MODEL --tensor-parallel-size 8 --max-model-len 163840" in output
    assert "simulated" in output


def test_what_does_not_fit_says_what_would():
    output = ask("--model", "deepseek-r1", "--gpus", "8xH100", code=1)
    assert output.startswith("DOES NOT FIT")
    assert "--precision awq_int4" in output and "--gpus 2x8xH100" in output and "--gpus 8xH200" in output
    assert "vllm serve" not in output


def test_explain_says_where_the_memory_goes_and_why_not_otherwise():
    output = ask("--model", "deepseek-r1-distill-qwen-7b", "--gpus", "8xH200", "--explain")
    assert "28 attention heads cannot be divided over 8 GPUs" in output
    assert "CUDA graphs" in output and "140.40 GiB" in output


def test_json_is_one_object():
    value = json.loads(ask("--model", "deepseek-r1", "--gpus", "8xH200", "--objective", "throughput", "--json"))
    assert (value["fits"], value["data_parallel"], value["expert_parallel"]) == (True, 8, True)
    assert value["argv"][:2] == ["--data-parallel-size", "8"]


def test_targets_that_are_missed_are_not_a_success():
    ask("--model", "deepseek-r1-distill-qwen-7b", "--gpus", "1xH100", "--rate", "400", "--tpot", "20", code=1)
    ask("--model", "deepseek-r1-distill-qwen-7b", "--gpus", "1xH100", "--rate", "1", "--tpot", "50")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "deepseek-r1"], "say what to plan for"),
        (["--model", "deepseek-r1", "--gpus", "8xH200", "--site", "lab"], "say what to plan for"),
        (["--model", "deepseek-r1", "--gpus", "8xH200", "--limit", "llm1"], "--limit llm1 is for hosts of a --site"),
        (["--model", "deepseek-r1", "--gpus", "H200"], "1xH200"),
        (["--model", "deepseek-r2", "--gpus", "8xH200"], "no model 'deepseek-r2'"),
        (["--model", "./nowhere", "--gpus", "8xH200"], "cannot be read"),
        (["--model", "deepseek-r1", "--gpus", "8xH200", "--objective", "cheap"], "latency, throughput"),
        (["--model", "deepseek-r1", "--gpus", "8xH200", "--precision", "int3"], "choose one of auto"),
        (["--model", "deepseek-r1", "--gpus", "8xH200", "--max-model-len", "long"], "32768"),
        (
            ["--model", "deepseek-r1-distill-qwen-7b", "--gpus", "8xH200", "--tensor-parallel", "8"],
            "28 attention heads cannot be divided over 8 GPUs",
        ),
    ],
)
def test_a_question_without_an_answer_is_refused_in_one_sentence(arguments, said):
    output = ask(*arguments, code=2)
    assert said in output
    assert len(output.strip().splitlines()) == 1


def site_with(tmp_path: Path, profile: str) -> None:
    """A site whose one host is this machine, which wears a profile's GPUs."""
    nvml_harness.build(tmp_path / "library")
    interpreter = tmp_path / "python"
    interpreter.write_text(
        "#!/bin/sh\n"
        f"LD_LIBRARY_PATH={tmp_path / 'library'} BEDPLATE_GPU_PROFILE={nvml_harness.PROFILES[profile]}"
        f' exec {sys.executable} "$@"\n'
    )
    interpreter.chmod(0o755)
    hosts = cli_harness.LOCAL_HOST.replace('"{{ ansible_playbook_python }}"', str(interpreter))
    cli_harness.local_site(tmp_path / "inventories" / "here", hosts)


def test_a_sites_gpus_are_asked_for(tmp_path):
    site_with(tmp_path, "8xH200-nvswitch")
    where = ["--site", "here", "--inventories", str(tmp_path / "inventories")]
    value = json.loads(ask("--model", "deepseek-r1", *where, "--json"))
    assert (value["gpus"], value["simulated"], value["fits"]) == ("8xH200", True, True)


def test_a_site_with_a_lost_gpu_is_not_planned(tmp_path):
    site_with(tmp_path, "gpu-lost")
    output = ask("--model", "deepseek-r1", "--site", "here", "--inventories", str(tmp_path / "inventories"), code=2)
    assert "GPU 3 does not answer" in output
