"""DeepSeek V4: its weights against the published index, its caches, its limits, and what a plan says of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import model_catalogue, model_limits, model_quantization
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_sets import parse as gpu_set
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import ModelError, parse
from ansible_collections.bedplate.llm.plugins.module_utils.model_compressed import padded_heads, rows
from ansible_collections.bedplate.llm.plugins.module_utils.model_files import StoredTensor, differences
from ansible_collections.bedplate.llm.plugins.module_utils.model_kv import (
    kv_bytes_for_request,
    kv_bytes_per_token_per_gpu,
    pool,
)
from ansible_collections.bedplate.llm.plugins.module_utils.model_weights import (
    Parallelism,
    checkpoint_bytes,
    parameters,
    stored_as,
    tensors,
    weight_bytes_per_gpu,
)
from ansible_collections.bedplate.llm.plugins.module_utils.plan_question import question
from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import Plan, PlanError
from ansible_collections.bedplate.llm.plugins.module_utils.plan_use import departures
from ansible_collections.bedplate.llm.plugins.module_utils.planner import plan

ENTRY = model_catalogue.find("deepseek-v4-flash", model_catalogue.load())
CONFIG, FLASH = dict(ENTRY.config), ENTRY.architecture
BLOCK_BYTES = 1_002_240


def test_the_published_index_is_met_to_the_byte() -> None:
    """model.safetensors.index.json: 69,187 tensors, of which each quantised weight has one of scales beside it."""
    assert checkpoint_bytes(FLASH, mtp=True) == 159_609_485_896
    assert sum(1 + (stored_as(FLASH.quantization, spec, False) is not None) for spec in tensors(FLASH, True)) == 69_187


def test_the_published_bytes_of_each_type() -> None:
    """A public inventory of the files' headers: fp4 in pairs (I8), fp8, scales (F8_E8M0), 16, 32 and 64 bits."""
    found = dict.fromkeys(("I8", "F8_E4M3", "F8_E8M0", "BF16", "F32", "I64"), 0)
    for spec in tensors(FLASH, True):
        size = spec.shape[0] * (spec.shape[1] if len(spec.shape) > 1 else 1)
        stored = stored_as(FLASH.quantization, spec, False)
        if stored is None:
            kind = {"float32": "F32", "table": "I64"}.get(spec.kind, "BF16")
            found[kind] += size * {"F32": 4, "I64": 8, "BF16": 2}[kind]
        else:
            found["I8" if stored.bits == 4 else "F8_E4M3"] += size * stored.bits // 8
            found["F8_E8M0"] += (
                model_quantization.linear_bytes(stored, *spec.shape, "bfloat16") - size * stored.bits // 8
            )
    assert found == {
        "I8": 141_733_920_768,
        "F8_E4M3": 6_023_020_544,
        "F8_E8M0": 8_858_737_664,
        "BF16": 2_830_518_528,
        "F32": 144_672_072,
        "I64": 18_616_320,
    }


@pytest.mark.parametrize("name", ["deepseek-ai/DeepSeek-V4-Flash", "deepseek-ai/DeepSeek-V4-Flash-0731", "V4-Flash"])
def test_names(name: str) -> None:
    assert model_catalogue.find(name, model_catalogue.load()) == ENTRY


def test_parameters_are_the_published_284_billion() -> None:
    assert round(parameters(FLASH) / 1e9) == 284


def test_what_each_gpu_holds() -> None:
    """As the engine's own class makes it (tests/reference); the attention's parts are cut, its one head of keys not."""
    held = [weight_bytes_per_gpu(FLASH, "mxfp4", Parallelism(tensor)) for tensor in (1, 8)]
    assert held == [156_006_389_980, 20_644_900_892]
    assert weight_bytes_per_gpu(FLASH, "mxfp4", Parallelism(data=8, expert=True)) < held[0] / 5
    # Experts of 32 groups in fp8 blocks, as the base model has them, take nearly twice as much.
    base = parse({**CONFIG, "expert_dtype": "fp8"}, "config.json")
    assert 1.8 < weight_bytes_per_gpu(base, "fp8_block", Parallelism()) / held[0] < 2.0


def test_the_caches_of_a_layer_share_blocks() -> None:
    """Rows of ratio 4 and 128 and the indexer's keys; two groups of windows; the sums that are not finished."""
    cache = pool(FLASH, "auto", 1, 1, block_size=256)
    assert (cache.block_bytes, cache.windows, cache.window_tokens) == (
        BLOCK_BYTES,
        (128, 128, None, 8, 128),
        (64, 64, 256, 4, 8),
    )
    assert cache.block_bytes == 21 * (37_440 + 8_640) + 20 * 1_728
    assert kv_bytes_per_token_per_gpu(FLASH, "auto", 8, 1) == BLOCK_BYTES // 256 == 3_915
    # One head of keys: more tensor ranks keep the same.
    assert pool(FLASH, "fp8", 8, 1, block_size=256) == cache


def test_a_request_holds_its_windows_besides() -> None:
    in_flight = 2 * 8192
    blocks = 4096 + 2 * (259 + 1 - 1) + (4098 + 1) + (2064 + 1)
    assert kv_bytes_for_request(FLASH, 1_048_576, "auto", 1, 1, 1, 256, in_flight) == blocks * BLOCK_BYTES
    # 8 x B200 with vLLM 0.25, which counted one step in flight (vllm-project/recipes, issue 762): 156.9 requests of the
    # whole context over eight data ranks, 20.43 with eight tensor ranks.  Both are what some 140 GiB hold.
    one_step = kv_bytes_for_request(FLASH, 1_048_576, "auto", 1, 1, 1, 256, 8192)
    assert [round(requests * one_step / 2**30) for requests in (156.9 / 8, 20.43)] == [136, 142]


def test_requests_that_are_settled_need_little() -> None:
    cache = pool(FLASH, "auto", 1, 1, block_size=256)
    memory, in_flight = 100 * 2**30, 16_384
    passing = 2 * 256 + 4096 + 2048
    settled = 8 + 2 * 3 + 3 + 17
    assert cache.requests(memory, 2048, in_flight) == (memory // BLOCK_BYTES - passing) // settled
    assert cache.requests(passing * BLOCK_BYTES, 2048, in_flight) == 0


def test_a_folder_of_its_files_is_known() -> None:
    """Packed fp4, scales beside, and whichever module for speculative decoding the files have."""
    files = []
    for spec in tensors(FLASH):
        stored = stored_as(FLASH.quantization, spec, False)
        fp4 = stored is not None and stored.bits == 4
        shape = (spec.shape[0], spec.shape[1] // 2) if fp4 else spec.shape
        files.append(StoredTensor(spec.name, shape, "I8" if fp4 else "BF16", 0))
        if stored is not None:
            files.append(StoredTensor(spec.name.removesuffix("weight") + "scale", (1,), "F8_E8M0", 0))
    assert differences(FLASH, [*files, StoredTensor("mtp.2.markov_head.weight", (8, 8), "BF16", 0)]) == []
    assert differences(FLASH, files[1:])[0].startswith("1 tensors are missing for DeepseekV4ForCausalLM")
    strange = StoredTensor("vision.patch_embed.weight", (8, 8), "BF16", 0)
    assert "first vision.patch_embed.weight" in differences(FLASH, [*files, strange])[0]


@pytest.mark.parametrize(("tensor", "legal"), [(1, True), (2, True), (4, True), (8, True), (16, False), (3, False)])
def test_tensor_ranks(tensor: int, legal: bool) -> None:
    assert (model_limits.problems(FLASH, "checkpoint", Parallelism(tensor)) == []) is legal


def test_why_sixteen_ranks_are_refused() -> None:
    assert model_limits.problems(FLASH, "checkpoint", Parallelism(16)) == [
        "8 groups of the output projection cannot be divided over 16 GPUs."
    ]
    assert (
        "257 experts"
        in model_limits.problems(
            replace(FLASH, moe=replace(FLASH.moe, routed_experts=257)) if FLASH.moe else FLASH,
            "checkpoint",
            Parallelism(2, data=256, expert=True),
        )[0]
    )


def test_padding_and_rows() -> None:
    assert [padded_heads(heads) for heads in (8, 64, 65, 128)] == [64, 64, 128, 128]
    parts = FLASH.compressed
    assert parts is not None
    assert [rows(parts, layer, 100_000) for layer in (0, 2, 3)] == [(128, 0), (128 + 512, 25_000), (128 + 781.25, 0)]
    assert rows(parts, 2, 100) == (100 + 25, 25)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"compress_ratios": [4] * 42}, "compress_ratios has 42 numbers; expected 0, 4 or 128 for each of 43 layers"),
        ({"compress_ratios": [4] * 42 + [16]}, "compress_ratios has 16 in it; expected 0, 4 or 128"),
        ({"compress_ratios": None}, "compress_ratios is None"),
        ({"head_dim": 256}, "head_dim is 256; the engine's cache of DeepSeek V4 is made for 512"),
        ({"vision_n_layers": 24}, "vision_n_layers is set, and models that see are not planned"),
        ({"expert_dtype": "int4"}, "expert_dtype is 'int4'; expected fp4 or fp8"),
        ({"quantization_config": None}, "quantization_config is not the fp8 in blocks"),
        (
            {"quantization_config": {**CONFIG["quantization_config"], "moe_quant_algo": "NVFP4"}},
            "quantization_config is not the fp8 in blocks",
        ),
        ({"n_routed_experts": None}, "n_routed_experts is missing"),
        ({"o_groups": None}, "o_groups is missing"),
        ({"architectures": ["DeepseekV41ForCausalLM"]}, "DeepseekV41ForCausalLM is not an architecture"),
    ],
)
def test_what_is_not_planned_is_named(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=f"^config.json: {sentence}"):
        parse({**CONFIG, **changes}, "config.json")


def answer(gpus: str, **changes: Any) -> Plan:
    return plan(replace(question("deepseek-v4-flash", gpu_set(gpus)), **changes))


def test_eight_h200() -> None:
    found = answer("8xH200")
    assert found.fits and not found.calibrated
    assert (found.precision, found.kv_bytes_per_token_per_gpu, found.max_model_len) == ("mxfp4", 3_915, 1_048_576)
    assert found.weight_bytes_per_gpu == 20_644_900_892
    assert found.engine_minimum == "0.20.0"
    assert found.flags["reasoning-parser"] == "deepseek_v4"
    assert "quantization" not in found.flags and "kv-cache-dtype" not in found.flags
    said = " ".join(found.warnings)
    assert "compressed attention was never measured" in said
    assert "DeepGEMM's and TileLang's" in said and "unpacked to bf16 (Marlin)" in said
    assert found.concurrent_requests == 1024
    besides = (10_778 - 4_096) * BLOCK_BYTES
    assert found.kv_bytes_per_request_per_gpu == besides and "6.2 GiB of each request besides" in said
    assert answer("8xH200", max_model_len=32_768).kv_cache_tokens < found.kv_cache_tokens / 10
    assert answer("8xH200", objective="throughput").data_parallel == 8


def test_a_setting_that_changes_the_room_is_not_guessed_at() -> None:
    made = json.loads(json.dumps(answer("8xH200").as_dict()))
    settings = {"max_model_len": "65536", "gpu_memory_utilization": 0.8}
    assert all("plan again with it" in sentence for sentence in departures(settings, made))
    assert len(departures(settings, made)) == 2


def test_one_card_is_too_small_and_two_are_not() -> None:
    found = answer("1xH200")
    assert not found.fits and found.changes[0].ask == "--gpus 2xH200"
    assert all("fp8" not in change.ask and "int4" not in change.ask for change in found.changes)
    assert answer("2xH200").fits


@pytest.mark.parametrize(
    ("gpus", "changes", "sentence"),
    [
        ("4xA100-40G", {}, "need Hopper or newer .*A100-40G is Ampere"),
        ("1xRTX4090", {}, "need Hopper or newer .*RTX 4090 is Ada"),
        ("8xH200", {"tensor": 3}, "64 attention heads cannot be divided over 3 GPUs"),
        ("8xH200", {"precision": "fp8"}, "serves DeepseekV4ForCausalLM as its files are.*leave out --precision fp8"),
        ("8xH200", {"kv_dtype": "bfloat16"}, "has a KV cache of fp8 rows only, not bfloat16"),
    ],
)
def test_what_cannot_be_asked_is_answered_in_a_sentence(gpus: str, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PlanError, match=sentence):
        answer(gpus, **changes)


def test_its_format_is_for_it_alone() -> None:
    asked = replace(question("qwen3-8b", gpu_set("1xH200")), precision="mxfp4")
    with pytest.raises(PlanError, match="is a format of DeepSeek V4's files"):
        plan(asked)
