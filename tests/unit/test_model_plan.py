"""The module model_plan in a play: the plan and its checks, and refusals in one sentence."""

from __future__ import annotations

from typing import Any

import cli_harness
import yaml

from bedplate.events import TaskEnded


def run(tmp_path: Any, **options: Any) -> TaskEnded:
    playbook = tmp_path / "play.yml"
    task = {"name": "Plan", "bedplate.llm.model_plan": options}
    playbook.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
    _report, events, _log = cli_harness.play(playbook, cli_harness.local_site(tmp_path / "site"), tmp_path / "logs")
    (end,) = [event for event in events if isinstance(event, TaskEnded)]
    return end


def test_a_plan_and_its_checks_are_returned(tmp_path):
    end = run(tmp_path, model="deepseek-r1", gpus="8xH200", objective="throughput")
    assert end.status == "ok"
    assert (end.result["plan"]["data_parallel"], end.result["plan"]["flags"]["enable-expert-parallel"]) == (8, True)
    assert [(check.id, check.ok) for check in end.checks] == [("plan.fits", True)]


def test_what_does_not_fit_is_a_finding_with_a_remedy(tmp_path):
    end = run(tmp_path, model="deepseek-r1", gpus="8xH100", profile={"rate": 1, "tpot_ms": 50})
    assert end.status == "ok"
    (fits,) = end.checks
    assert not fits.ok and "14.0 GiB are missing" in fits.reason and "--gpus 8xH200" in fits.remedy


def test_targets_are_a_check_of_their_own(tmp_path):
    end = run(tmp_path, model="deepseek-r1-distill-qwen-7b", gpus="1xH100", profile={"rate": 400, "tpot_ms": 20})
    assert [(check.id, check.ok) for check in end.checks] == [("plan.fits", True), ("plan.targets", False)]


def test_facts_stand_for_gpus(tmp_path):
    facts = {"llm1": {"simulated": False, "gpus": [{"name": "NVIDIA H200", "memory": {"total_bytes": 150754820096}}]}}
    end = run(tmp_path, model="deepseek-r1-distill-qwen-7b", gpu_facts=facts)
    assert (end.result["plan"]["gpus"], end.result["plan"]["simulated"]) == ("1xH200", False)


def test_a_question_without_an_answer_fails_in_a_sentence(tmp_path):
    end = run(tmp_path, model="deepseek-r2", gpus="8xH200")
    assert end.status == "failed"
    assert end.message.startswith("model_plan: the catalogue has no model 'deepseek-r2'")


def test_gpus_are_named_once(tmp_path):
    assert run(tmp_path, model="deepseek-r1").status == "failed"
