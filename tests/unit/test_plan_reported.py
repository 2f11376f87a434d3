"""What the engine reports of its memory, against the plan, and what is kept of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import (
    gpu_sets,
    plan_question,
    plan_record,
    planner,
    vllm_journal,
)
from ansible_collections.bedplate.llm.plugins.module_utils.plan_compared import checks, compare
from ansible_collections.bedplate.llm.plugins.module_utils.plan_reported import (
    Reported,
    kv_cache_tokens,
    max_concurrency,
    reported,
    weight_bytes,
)

GIB = 1024**3
# Shortened from vLLM 0.32's /metrics.
LINE = (
    'vllm:cache_config_info{{block_size="16",cache_dtype="auto",engine="{engine}",gpu_memory_utilization="0.92",'
    'kv_cache_max_concurrency="{concurrency}",kv_cache_size_tokens="{tokens}",num_gpu_blocks="130453"}} 1.0'
)
# As the unit's journal has them, from vLLM 0.32 on an H200.
JOURNAL = [
    "(EngineCore pid=71) INFO 11-23 09:12:01 [gpu_model_runner.py:5012] Starting to load model /m...",
    "(EngineCore pid=71) INFO 11-23 [gpu_model_runner.py:5150] Model loading took 14.32 GiB memory and 5.5 seconds",
    "(EngineCore pid=71) INFO 11-23 09:13:02 [kv_cache_utils.py:2325] GPU KV cache size: 2,087,248 tokens",
    "(APIServer pid=44) INFO:     Application startup complete.",
]
PLAN: dict[str, Any] = {
    "model": "deepseek-r1-distill-qwen-7b",
    "gpus": "1xH200",
    "calibrated": True,
    "pipeline_parallel": 1,
    "kv_cache_tokens": 2_087_344,
    "max_concurrency": 254.8,
    "weight_bytes_per_gpu": int(14.185 * GIB),
    "memory_per_gpu": {"beside_weights": int(0.13 * GIB)},
}
SAID = Reported(2_087_248, 254.79, int(14.32 * GIB))


def metrics(*tokens: int, concurrency: float = 254.79) -> str:
    lines = [
        LINE.format(engine=engine, tokens=number, concurrency=concurrency + engine)
        for engine, number in enumerate(tokens)
    ]
    return "\n".join(["# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig", *lines, ""])


def judged(plan: dict[str, Any], said: Reported, departures: tuple[str, ...] = ()) -> dict[str, tuple[bool, str]]:
    return {check.id: (check.ok, check.sentence) for check in checks(compare(plan, departures, said), said)}


# --- what it says ---------------------------------------------------------------------------------------------------


def test_of_several_engines_the_one_with_the_least_room_counts():
    text = metrics(2_087_248, 2_087_000)
    assert (kv_cache_tokens(text), max_concurrency(text)) == (2_087_000, 254.79)


@pytest.mark.parametrize(
    "text",
    ["", "vllm:num_requests_running 0\n", 'vllm:cache_config_info{kv_cache_size_tokens="None"} 1.0\n'],
)
def test_an_engine_that_says_nothing_is_not_guessed_for(text):
    assert kv_cache_tokens(text) is None and max_concurrency(text) is None


@pytest.mark.parametrize(
    ("lines", "gib"),
    [
        (JOURNAL, 14.32),
        # The processes of several GPUs: the fullest.
        (["(Worker_TP0 pid=1) INFO [gpu_model_runner.py:1] Model loading took 80.1 GiB memory", *JOURNAL], 80.1),
        # Newer engines' other runner, with a path of its own.
        (["INFO 11-23 09:12:07 [gpu/model_runner.py:425] Model loading took 8 GiB memory and 5 seconds"], 8.0),
        (JOURNAL[:1], None),
        (["a client asks: Model loading took 99 GiB memory?"], None),
        ([], None),
    ],
)
def test_weights_are_what_loading_them_took(lines, gib):
    assert weight_bytes(lines) == (None if gib is None else int(gib * GIB))


def test_the_journal_is_read_to_the_start_of_service_and_no_further():
    def journal():
        yield from JOURNAL
        raise AssertionError("read on")

    assert weight_bytes(journal()) == int(14.32 * GIB)


@pytest.fixture
def journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program of that name first."""

    def put(script: str) -> None:
        program = tmp_path / "journalctl"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return put


def test_only_what_this_start_wrote_is_asked_for(journalctl):
    journalctl('echo "$@"')
    (asked,) = vllm_journal.since_start("a1b2")
    assert asked.split() == ["--quiet", "--no-pager", "--output=cat", "_SYSTEMD_INVOCATION_ID=a1b2"]
    assert list(vllm_journal.since_start("")) == []


def test_a_journal_without_end_is_left_where_the_service_begins(journalctl):
    script = "\n".join(f"echo '{line}'" for line in JOURNAL)
    journalctl(f"{script}\nexec sleep 60")
    began = time.monotonic()
    assert weight_bytes(vllm_journal.since_start("a1")) == int(14.32 * GIB)
    assert time.monotonic() - began < 30


def test_a_host_without_a_journal_says_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(vllm_journal.since_start("a1")) == []


# --- against the plan -----------------------------------------------------------------------------------------------


def test_an_engine_that_keeps_its_plan():
    found = judged(PLAN, SAID)
    assert {name: ok for name, (ok, _said) in found.items()} == {
        "vllm.planned-room": True,
        "vllm.planned-weights": True,
        "vllm.planned-concurrency": True,
    }
    assert "holds 2,087,248 tokens and the plan says 2,087,344 (-0.0%)" in found["vllm.planned-room"][1]
    assert "took 14.32 GiB of a GPU and the plan says 14.31 (+0.0%)" in found["vllm.planned-weights"][1]
    assert "254.79 requests of its full length" in found["vllm.planned-concurrency"][1]


@pytest.mark.parametrize(
    ("name", "said", "ok", "words"),
    [
        ("room", Reported(kv_cache_tokens=2_500_000), True, "+19.8%"),
        ("room", Reported(kv_cache_tokens=1_990_000), True, "-4.7%"),
        ("room", Reported(kv_cache_tokens=1_900_000), False, "Something else uses the GPU's memory"),
        ("room", Reported(), False, "does not say how many tokens"),
        ("weights", Reported(weight_bytes=int(14.59 * GIB)), True, "+1.9%"),
        ("weights", Reported(weight_bytes=int(14.7 * GIB)), False, "loads other weights than were planned"),
        ("weights", Reported(weight_bytes=int(8.23 * GIB)), False, "-42.5%"),
        ("weights", Reported(), False, "Its journal since the start is gone"),
        ("concurrency", Reported(max_concurrency=300.0), True, "+17.7%"),
        ("concurrency", Reported(max_concurrency=127.4), False, "Look at vllm.planned-room"),
        ("concurrency", Reported(), False, "does not say how many requests"),
    ],
)
def test_each_figure_has_its_own_tolerance_and_remedy(name, said, ok, words):
    found = judged(PLAN, said)[f"vllm.planned-{name}"]
    assert found[0] is ok
    assert words in found[1]


def test_the_rounding_of_the_engine_is_no_error_of_the_plan():
    tiny = {**PLAN, "weight_bytes_per_gpu": int(0.004 * GIB), "memory_per_gpu": {"beside_weights": 0}}
    assert judged(tiny, Reported(weight_bytes=0))["vllm.planned-weights"][0]


@pytest.mark.parametrize(
    ("changes", "departures", "words"),
    [
        ({"calibrated": False}, (), "not calibrated for this kind of model"),
        ({}, ("vllm_max_model_len is 4096",), "depart from the plan's flags"),
    ],
)
def test_an_engine_is_not_held_to_every_plan_and_the_figures_are_shown_all_the_same(changes, departures, words):
    found = judged({**PLAN, **changes}, Reported(1_000_000, 100.0, int(20 * GIB)), departures)
    assert len(found) == 3
    for ok, sentence in found.values():
        assert ok and words in sentence and "the plan says" in sentence


def test_weights_of_a_pipeline_are_shown_and_not_judged():
    found = judged({**PLAN, "pipeline_parallel": 2}, Reported(1_000_000, 254.8, int(12 * GIB)))
    assert found["vllm.planned-weights"][0] and "first pipeline stage" in found["vllm.planned-weights"][1]
    assert not found["vllm.planned-room"][0]


def test_a_plan_without_a_figure_asks_nothing_of_it():
    assert judged({"model": "m", "gpus": "1xH100", "fits": True, "flags": {}}, SAID) == {}
    assert judged({}, SAID) == {}


ROWS = [
    row
    for row in json.loads((Path(__file__).parents[1] / "bench/planner/measured.json").read_text())["rows"]
    if "kv_tokens" in row and "config" not in row and row["engine"] == "0.32.0" and "max_num_seqs" not in row
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_the_engines_that_were_measured_keep_the_plans_that_are_made_for_them(row):
    asked = replace(
        plan_question.question(row["model"], gpu_sets.parse(row["gpus"])),
        max_model_len=row["max_model_len"],
        utilization=row["gpu_memory_utilization"],
        precision=row["precision"],
        kv_dtype=row["kv_dtype"],
        tensor=row.get("tensor_parallel_size", 1),
        pipeline=1,
        data=1,
    )
    made = planner.plan(asked).as_dict()
    said = Reported(row["kv_tokens"], row["kv_tokens"] / row["max_model_len"], int(row["weights_gib"] * GIB))
    found = judged(made, said)
    assert made["calibrated"] and len(found) == 3
    assert [sentence for ok, sentence in found.values() if not ok] == []


# --- what is kept ---------------------------------------------------------------------------------------------------


def kept(said: Reported = SAID, earlier: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    given = {"invocation": "a1", "gpus": ["NVIDIA H200"], "plan": PLAN, "now": 1_700_000_000.0, **changes}
    figures = compare(given["plan"], (), said)
    return plan_record.record(
        "5f70bf18a086",
        "0.32.0",
        given["invocation"],
        given["gpus"],
        given["plan"],
        figures,
        said,
        earlier or {},
        given["now"],
    )


def test_the_record_says_who_what_and_how_far_off():
    found = kept()
    assert (found["release"], found["engine"], found["gpus"]) == ("5f70bf18a086", "0.32.0", ["NVIDIA H200"])
    assert found["measured_at"] == "2023-11-14T22:13:20Z"
    assert found["reported"]["kv_cache_tokens"] == 2_087_248
    assert found["plan"]["kv_cache_tokens"] == 2_087_344 and found["plan"]["gpus"] == "1xH200"
    assert found["errors"]["room"] == pytest.approx(-96 / 2_087_344, abs=1e-6)
    assert found["not_held"] == {}


def test_a_second_look_at_the_same_start_gives_the_same_record():
    first = kept()
    assert kept(earlier=first, now=1_800_000_000.0) == first
    # A run that did not look at the GPUs forgets nothing.
    assert kept(earlier=first, now=1_800_000_000.0, gpus=[]) == first


def test_a_new_start_is_a_new_record():
    second = kept(earlier=kept(), invocation="b2", now=1_800_000_000.0)
    assert (second["invocation"], second["measured_at"]) == ("b2", "2027-01-15T08:00:00Z")


def test_what_the_journal_has_lost_is_in_the_record():
    first = kept()
    same = reported(metrics(2_087_248), [], "a1", first)
    assert (same.weight_bytes, same.weights_of) == (SAID.weight_bytes, "")
    later = reported(metrics(2_087_248), [], "b2", first)
    assert (later.weight_bytes, later.weights_of) == (SAID.weight_bytes, first["measured_at"])
    assert "of the release's start of 2023-11-14" in judged(PLAN, later)["vllm.planned-weights"][1]
    # And once more: the date stays that of the start that was read.
    again = kept(later, first, invocation="b2", now=1_800_000_000.0)
    assert reported(metrics(2_087_248), [], "b2", again).weights_of == first["measured_at"]
    third = reported(metrics(2_087_248), [], "c3", again)
    assert third.weights_of == first["measured_at"]
    # What the engine says itself counts more.
    assert reported(metrics(2_087_248), JOURNAL, "b2", {**first, "reported": {"weight_bytes": 1}}).weight_bytes == (
        SAID.weight_bytes
    )


@pytest.mark.parametrize("value", [None, [], {}, {"schema": 2, "release": "r"}, {"schema": 1, "release": "other"}])
def test_a_record_that_is_none_is_not_believed(value):
    assert plan_record.usable(value, "r") == {}


def samples(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")}


def test_the_metrics_have_both_sides_and_the_error():
    found = samples(plan_record.metrics(kept()))
    assert found['bedplate_vllm_kv_cache_tokens{source="planned"}'] == 2_087_344
    assert found['bedplate_vllm_kv_cache_tokens{source="reported"}'] == 2_087_248
    assert found['bedplate_vllm_weight_bytes{source="reported"}'] == int(14.32 * GIB)
    assert found['bedplate_vllm_plan_error_ratio{figure="room"}'] == pytest.approx(-96 / 2_087_344, abs=1e-6)
    assert found['bedplate_vllm_plan_held{figure="weights"}'] == 1
    assert found["bedplate_vllm_measured_timestamp_seconds"] == 1_700_000_000
    model = 'model="deepseek-r1-distill-qwen-7b",gpus="1xH200"'
    assert found[f'bedplate_vllm_plan_info{{release="5f70bf18a086",engine="0.32.0",{model}}}'] == 1


def test_what_is_not_known_has_no_sample():
    without_plan = samples(plan_record.metrics(kept(Reported(1000, 2.0), plan={})))
    assert 'bedplate_vllm_kv_cache_tokens{source="reported"}' in without_plan
    assert not [name for name in without_plan if "planned" in name or "error" in name or "weight" in name]


def test_a_label_cannot_break_the_file():
    odd = {**PLAN, "model": 'a"b\\c\nd'}
    text = plan_record.metrics(kept(plan=odd))
    assert 'model="a\\"b\\\\c\\nd"' in text
    for line in text.splitlines():
        assert line.startswith(("# HELP bedplate_vllm_", "# TYPE bedplate_vllm_", "bedplate_vllm_"))
