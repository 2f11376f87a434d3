"""What the planner answers: the cases that an expert knows the answer of, and what it must never say."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import gpu_sets, model_catalogue, plan_question, planner
from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import (
    GIB,
    Plan,
    PlanError,
    Profile,
    Question,
    argv,
    tokens,
)
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_args import check_flags, parse_flags
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_policy import REFUSED_FLAGS

PROJECT = Path(__file__).parents[2]
RECORD = json.loads((PROJECT / "roles/vllm/files/engine_flags/0.33.0.json").read_text())
KNOWN = parse_flags(RECORD)

DISTILLS = ("qwen-1.5b", "qwen-7b", "llama-8b", "qwen-14b", "qwen-32b", "llama-70b")
MODELS = ("deepseek-r1", *(f"deepseek-r1-distill-{name}" for name in DISTILLS))
SETS = ("8xH100", "8xH200", "2x8xH100", "4xA100-40G", "1xRTX4090")


@cache
def entries() -> tuple[model_catalogue.Entry, ...]:
    return tuple(model_catalogue.load())


def question(model: str, gpus: str, **changes: object) -> Question:
    entry = model_catalogue.find(model, entries())
    asked = Question(
        model=entry.name,
        arch=entry.architecture,
        gpus=gpu_sets.parse(gpus),
        recipes=entry.recipes,
        reasoning_parser=entry.reasoning_parser,
    )
    return replace(asked, **changes)


@cache
def answer(model: str, gpus: str, objective: str = "latency") -> Plan:
    return planner.plan(question(model, gpus, objective=objective))


def placement(plan: Plan) -> tuple[int, int, int, bool]:
    return plan.tensor_parallel, plan.pipeline_parallel, plan.data_parallel, plan.expert_parallel


# (model, GPUs, precision, fits, latency: TP PP DP, throughput: TP PP DP, tokens of a latency engine in thousands)
# DeepSeek-R1's own row by hand below; None where it does not fit.
TABLE = [
    ("qwen-1.5b", "8xH100", "bf16", (2, 1, 4), (1, 1, 8)),
    ("qwen-1.5b", "8xH200", "bf16", (1, 1, 8), (1, 1, 8)),
    ("qwen-1.5b", "4xA100-40G", "bf16", (4, 1, 1), (1, 1, 4)),
    ("qwen-1.5b", "1xRTX4090", "bf16", (1, 1, 1), (1, 1, 1)),
    ("qwen-7b", "8xH100", "bf16", (4, 1, 2), (1, 1, 8)),
    ("qwen-7b", "8xH200", "bf16", (4, 1, 2), (1, 1, 8)),
    ("qwen-7b", "4xA100-40G", "bf16", (4, 1, 1), (1, 1, 4)),
    ("qwen-7b", "1xRTX4090", "bf16", (1, 1, 1), (1, 1, 1)),
    ("llama-8b", "8xH100", "bf16", (8, 1, 1), (1, 1, 8)),
    ("llama-8b", "8xH200", "bf16", (8, 1, 1), (1, 1, 8)),
    ("llama-8b", "4xA100-40G", "bf16", (4, 1, 1), (2, 1, 2)),
    ("llama-8b", "1xRTX4090", "fp8", (1, 1, 1), (1, 1, 1)),
    ("qwen-14b", "8xH100", "bf16", (8, 1, 1), (2, 1, 4)),
    ("qwen-14b", "8xH200", "bf16", (8, 1, 1), (1, 1, 8)),
    ("qwen-14b", "4xA100-40G", "bf16", (4, 1, 1), (4, 1, 1)),
    ("qwen-14b", "1xRTX4090", "fp8", (1, 1, 1), (1, 1, 1)),
    ("qwen-32b", "8xH100", "bf16", (8, 1, 1), (4, 1, 2)),
    ("qwen-32b", "8xH200", "bf16", (8, 1, 1), (2, 1, 4)),
    ("qwen-32b", "4xA100-40G", "bf16", (4, 1, 1), (4, 1, 1)),
    ("qwen-32b", "1xRTX4090", None, None, None),
    ("llama-70b", "8xH100", "bf16", (8, 1, 1), (4, 1, 2)),
    ("llama-70b", "8xH200", "bf16", (8, 1, 1), (2, 1, 4)),
    ("llama-70b", "4xA100-40G", "fp8", (4, 1, 1), (4, 1, 1)),
    ("llama-70b", "1xRTX4090", None, None, None),
]


@pytest.mark.parametrize(("model", "gpus", "precision", "latency", "throughput"), TABLE)
def test_the_distils_are_placed_as_an_expert_would(model, gpus, precision, latency, throughput):
    name = f"deepseek-r1-distill-{model}"
    fast, much = answer(name, gpus), answer(name, gpus, "throughput")
    if precision is None:
        assert not fast.fits and not much.fits
        assert fast.shortfall_bytes > 0 and fast.flags == {}
        return
    assert (fast.precision, much.precision) == (precision, precision)
    assert placement(fast)[:3] == latency
    assert placement(much)[:3] == throughput


@pytest.mark.parametrize("model", DISTILLS)
def test_two_hosts_that_can_serve_alone_do(model):
    one, two = answer(f"deepseek-r1-distill-{model}", "8xH100"), answer(f"deepseek-r1-distill-{model}", "2x8xH100")
    assert (two.engines, placement(two), two.flags) == (2, placement(one), one.flags)
    assert two.kv_cache_tokens == one.kv_cache_tokens
    assert two.kv_cache_tokens_total == 2 * one.kv_cache_tokens_total


def test_r1_on_8_h200_for_latency():
    plan = answer("deepseek-r1", "8xH200")
    assert plan.fits and placement(plan) == (8, 1, 1, False) and plan.precision == "fp8_block"
    assert plan.weight_bytes_per_gpu / GIB == pytest.approx(79.5, abs=0.3)
    assert plan.memory_per_gpu["kv"] / GIB == pytest.approx(43, abs=1)
    assert plan.kv_cache_tokens == pytest.approx(650_000, rel=0.03)
    assert plan.max_model_len == 163_840


def test_r1_on_8_h200_for_throughput_keeps_the_latent_cache_once():
    plan = answer("deepseek-r1", "8xH200", "throughput")
    assert placement(plan) == (1, 1, 8, True)
    assert plan.kv_cache_tokens_total > 1.8 * answer("deepseek-r1", "8xH200").kv_cache_tokens_total
    assert any("latent attention" in each.reason for each in plan.rejected if each.option == "TP 8")


def test_r1_does_not_fit_on_8_h100_and_what_would_help():
    plan = answer("deepseek-r1", "8xH100")
    assert not plan.fits and plan.shortfall_bytes > 6 * GIB
    asks = [change.ask for change in plan.changes]
    assert asks == ["--precision awq_int4", "--gpus 2x8xH100", "--gpus 8xH200"]
    four_bit = planner.plan(question("deepseek-r1", "8xH100", precision="awq_int4"))
    assert four_bit.fits and four_bit.weight_bytes_per_gpu / GIB == pytest.approx(42, abs=1)


def test_r1_spans_two_hosts_of_h100_with_a_pipeline_between_them():
    plan = answer("deepseek-r1", "2x8xH100")
    assert plan.fits and placement(plan)[:3] == (8, 2, 1) and plan.engines == 1
    assert plan.flags["nnodes"] == 2
    assert any("neither encrypted nor authenticated" in warning for warning in plan.warnings)
    across = [each.reason for each in plan.rejected if each.option.startswith("TP 16")]
    assert across and all("hosts" in reason for reason in across)


def test_r1_has_no_place_on_ampere_in_its_own_format():
    plan = answer("deepseek-r1", "4xA100-40G")
    assert not plan.fits
    assert any("needs Hopper" in each.reason for each in plan.rejected)
    assert plan.changes[0].ask == "--gpus 2x8xA100-40G --precision awq_int4"


def test_r1_on_one_4090_is_told_what_it_takes():
    plan = answer("deepseek-r1", "1xRTX4090")
    assert not plan.fits and plan.shortfall_bytes > 280 * GIB
    assert [change.ask for change in plan.changes] == ["--gpus 8xH200"]


def test_28_heads_are_not_divided_by_8():
    with pytest.raises(PlanError, match=r"TP 8: 28 attention heads cannot be divided over 8 GPUs"):
        planner.plan(question("deepseek-r1-distill-qwen-7b", "8xH200", tensor=8))
    reasons = {each.option: each.reason for each in answer("deepseek-r1-distill-qwen-7b", "8xH200").rejected}
    assert "28 attention heads" in reasons["TP 8"]


@pytest.mark.parametrize("gpus", SETS)
@pytest.mark.parametrize("model", MODELS)
def test_every_plan_is_one_that_the_engine_takes(model, gpus):
    for objective in ("latency", "throughput"):
        plan = answer(model, gpus, objective)
        if not plan.fits:
            assert plan.changes and plan.shortfall_bytes > 0
            continue
        assert check_flags(list(argv(plan.flags)), KNOWN, RECORD["engine"]) == []
        assert set(plan.environment) <= set(RECORD["environment"])
        assert plan.kv_cache_tokens >= plan.max_model_len
        assert sum(plan.memory_per_gpu.values()) == 2 * plan.memory_per_gpu["total"]
        bound, expected = plan.speed["stream_tokens_per_second_bound"], plan.speed["stream_tokens_per_second_expected"]
        assert 0 < expected < bound
        if plan.tensor_parallel * plan.pipeline_parallel <= 8:
            assert not {f"--{name}" for name in plan.flags} & set(REFUSED_FLAGS)


@pytest.mark.parametrize("gpus", SETS)
@pytest.mark.parametrize("model", MODELS)
def test_every_change_does_what_it_promises(model, gpus):
    for change in answer(model, gpus).changes:
        words = change.ask.split()
        asked = dict(zip(words[::2], words[1::2], strict=True))
        again = question(model, asked.get("--gpus", gpus), precision=asked.get("--precision", "auto"))
        assert planner.plan(again).fits, change


def test_plans_are_json_and_say_what_was_promised():
    value = json.loads(json.dumps(answer("deepseek-r1", "8xH200").as_dict()))
    promised = (
        "fits shortfall_bytes tensor_parallel pipeline_parallel data_parallel expert_parallel weight_bytes_per_gpu"
        " kv_bytes_per_token_per_gpu kv_cache_tokens max_model_len max_concurrency flags environment warnings rejected"
        " simulated"
    )
    assert set(promised.split()) <= set(value)
    assert value["simulated"] is True
    assert all(set(each) == {"option", "reason"} for each in value["rejected"])


# --- what is asked changes what is answered ---------------------------------------------------------------------------


def test_a_shorter_context_makes_room_that_is_missing():
    asked = question("deepseek-r1-distill-qwen-14b", "1xRTX4090", max_model_len=65_536, precision="fp8")
    plan = planner.plan(asked)
    assert not plan.fits
    assert plan.changes[0].ask == "--max-model-len 8192"
    assert plan.changes[1].ask == "--kv-dtype fp8" or "--kv-dtype" not in " ".join(c.ask for c in plan.changes)
    assert planner.plan(replace(asked, max_model_len=8_192)).fits


def test_an_fp8_cache_doubles_the_room():
    plain = planner.plan(question("deepseek-r1-distill-llama-70b", "8xH200", tensor=8))
    small = planner.plan(question("deepseek-r1-distill-llama-70b", "8xH200", tensor=8, kv_dtype="fp8"))
    assert small.kv_cache_tokens == pytest.approx(2 * plain.kv_cache_tokens, rel=0.001)
    assert small.flags["kv-cache-dtype"] == "fp8"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"precision": "nvfp4"}, "needs Blackwell"),
        ({"kv_dtype": "fp8_ds_mla"}, "latent attention"),
        ({"utilization": 1.5}, "between 0.1 and 0.99"),
        ({"objective": "cheap"}, "latency, throughput"),
        ({"max_model_len": 0}, "1 or more"),
        ({"profile": Profile(rate=-1)}, "rate is -1"),
        ({"tensor": 16}, "8xH100 has 8"),
        ({"tensor": 4, "data": 4}, "16 GPUs are asked for"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_a_sentence(changes, said):
    with pytest.raises(PlanError, match=said):
        planner.plan(question("deepseek-r1-distill-qwen-7b", "8xH100", **changes))


def test_ampere_keeps_its_cache_in_16_bits():
    with pytest.raises(PlanError, match=r"8\.9"):
        planner.plan(question("deepseek-r1-distill-qwen-7b", "4xA100-40G", kv_dtype="fp8"))


def test_fp8_on_ampere_is_weights_only_and_says_so():
    plan = planner.plan(question("deepseek-r1-distill-qwen-7b", "4xA100-40G", precision="fp8"))
    assert plan.fits and any("Marlin" in warning for warning in plan.warnings)


def test_without_nvlink_tensor_parallelism_has_to_earn_its_place():
    plan = answer("deepseek-r1-distill-qwen-7b", "8xRTX4090", "throughput")
    assert plan.tensor_parallel == 1
    assert any("PCIe" in each.reason for each in plan.rejected)


def test_targets_decide_by_the_rate():
    def asked(rate: float) -> Plan:
        profile = Profile(512, 256, rate=rate, ttft_ms=500, tpot_ms=50)
        return planner.plan(question("deepseek-r1-distill-qwen-7b", "1xH100", profile=profile))

    assert asked(4).slo["met"] is True
    slow = asked(400)
    assert slow.fits and slow.slo["met"] is False and slow.slo["saturated"]
    assert slow.changes and "targets are not met" in slow.warnings[0]


def test_targets_are_met_by_a_placement_that_meets_them():
    plan = planner.plan(
        question("deepseek-r1", "8xH200", profile=Profile(1024, 1024, rate=1, ttft_ms=2000, tpot_ms=40))
    )
    assert plan.slo["met"] is True


def test_an_odd_number_of_gpus_leaves_none_unmentioned():
    plan = planner.plan(question("deepseek-r1-distill-llama-70b", "3xH100"))
    assert plan.fits
    assert plan.gpus_used == 3 or any("left idle" in warning for warning in plan.warnings)


# --- a question from words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"), [("", None), ("auto", None), ("32768", 32768), ("32k", 32000), ("32K", 32768), ("1M", 1048576)]
)
def test_lengths_are_read_as_the_engine_reads_them(text, number):
    assert tokens(text) == number


def test_a_length_that_is_none_is_refused():
    with pytest.raises(PlanError, match="32768"):
        tokens("long")


def test_a_folder_is_planned_like_its_entry(tmp_path):
    entry = model_catalogue.find("deepseek-r1-distill-qwen-7b", entries())
    (tmp_path / "config.json").write_text(json.dumps(entry.config))
    asked = plan_question.question(str(tmp_path), gpu_sets.parse("1xH200"))
    plan, other = planner.plan(asked), answer(entry.name, "1xH200")
    assert plan.kv_cache_tokens == other.kv_cache_tokens
    assert any("no safetensors" in warning for warning in plan.warnings)


def test_a_published_name_is_found():
    entry = model_catalogue.find("deepseek-r1", entries())
    assert plan_question.question(entry.model, gpu_sets.parse("8xH200")).model == "deepseek-r1"


def test_an_unknown_model_is_refused_by_name():
    with pytest.raises(ValueError, match="no model 'deepseek-r2'"):
        plan_question.question("deepseek-r2", gpu_sets.parse("8xH200"))
