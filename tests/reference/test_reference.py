"""The planner's figures against what vLLM itself computes for the same configuration: run by `make reference`."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import model_configs
import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import (
    model_architecture,
    model_catalogue,
    model_kv,
    model_limits,
    model_weights,
)
from ansible_collections.bedplate.llm.plugins.module_utils.model_weights import Parallelism

CATALOGUE = {entry.name: entry for entry in model_catalogue.load()}
RANDOM = range(54)
REQUESTS = [[1, 1], [500, 16], [4097, 2048], [30000, 8192]]


def question(config: dict[str, Any], parallelism: Parallelism, kv_dtypes: list[str]) -> dict[str, Any]:
    return {
        "config": config,
        "tensor": parallelism.tensor,
        "pipeline": parallelism.pipeline,
        "data": parallelism.data,
        "expert": parallelism.expert,
        "mtp": False,
        "kv_dtypes": kv_dtypes,
        "requests": REQUESTS,
    }


def of_catalogue(name: str, quantized: bool, *sizes: Any) -> dict[str, Any]:
    entry = CATALOGUE[name]
    config = model_configs.whole(dict(entry.config))
    arch = entry.architecture
    if not quantized and arch.compressed is None:
        config.pop("quantization_config", None)
    kv_dtypes = (
        ["auto", "fp8_ds_mla"] if arch.indexer else ["auto", "fp8", "fp8_ds_mla"] if arch.mla else ["auto", "fp8"]
    )
    # DeepSeek V4 has one type of cache, whose pages are asked for together as the engine packs them.
    kv_dtypes = kv_dtypes if arch.compressed is None else []
    return question(config, Parallelism(*sizes), kv_dtypes)


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
FP8_BLOCK = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic", "fmt": "e4m3"}


def stored_as(section: dict[str, Any], name: str, tensor: int) -> dict[str, Any]:
    asked = of_catalogue(name, False, tensor)
    return {**asked, "config": {**asked["config"], "quantization_config": section}}


def of_seed(seed: int) -> dict[str, Any]:
    pick = random.Random(-seed - 1)
    config = model_configs.make(seed)
    expert = config["architectures"][0] != "Gemma3ForCausalLM" and "moe_intermediate_size" in config
    parallelism = Parallelism(
        tensor=pick.choice(model_configs.tensor_sizes(config)),
        pipeline=pick.choice([1, 1, 2, 3]),
        data=pick.choice([1, 1, 2]) if expert else 1,
        expert=expert and pick.random() < 0.5,
    )
    if "compress_ratios" in config:
        return question(config, parallelism, [])
    # vLLM has no plain fp8 cache for sparse attention: it would take DeepSeek's rows, whose widths are fixed.
    sparse = "index_topk" in config
    return question(config, parallelism, ["auto"] if sparse else ["auto", "fp8"])


QUESTIONS = {
    **{f"{name} whole": of_catalogue(name, False) for name in CATALOGUE},
    **{
        f"{name} on {entry_tensor} x {pipeline}": of_catalogue(name, False, entry_tensor, pipeline)
        for name, entry_tensor, pipeline in (
            ("deepseek-r1-distill-qwen-1.5b", 4, 1),
            ("deepseek-r1-distill-qwen-7b", 4, 3),
            ("deepseek-r1-distill-qwen-32b", 8, 2),
            ("llama-3.3-70b", 16, 4),
            ("qwen3-0.6b", 2, 2),
            ("qwen3-14b", 8, 3),
            ("deepseek-v3", 8, 2),
            ("deepseek-v3.2", 16, 1),
        )
    },
    "deepseek-r1 fp8 on 8": of_catalogue("deepseek-r1", True, 8),
    "deepseek-r1 fp8 on 16": of_catalogue("deepseek-r1", True, 16),
    "deepseek-r1 fp8 on 8, experts spread": of_catalogue("deepseek-r1", True, 8, 1, 1, True),
    "deepseek-r1 fp8 on 8 x 2, experts spread": of_catalogue("deepseek-r1", True, 8, 1, 2, True),
    "deepseek-r1 fp8, data parallel": of_catalogue("deepseek-r1", True, 1, 1, 16, True),
    "deepseek-v3.2 fp8 on 8": of_catalogue("deepseek-v3.2", True, 8),
    "deepseek-v4-flash on 2": of_catalogue("deepseek-v4-flash", True, 2),
    "deepseek-v4-flash on 8": of_catalogue("deepseek-v4-flash", True, 8),
    "deepseek-v4-flash on 8, experts spread": of_catalogue("deepseek-v4-flash", True, 8, 1, 1, True),
    "deepseek-v4-flash, data parallel": of_catalogue("deepseek-v4-flash", True, 1, 1, 8, True),
    "deepseek-v4-flash on 2 x 4, experts spread": of_catalogue("deepseek-v4-flash", True, 2, 1, 4, True),
    "deepseek-v4-flash on 4 x 2 stages": of_catalogue("deepseek-v4-flash", True, 4, 2),
    "deepseek-v4-flash with multi-token prediction": {**of_catalogue("deepseek-v4-flash", True, 8), "mtp": True},
    "deepseek-r1 with multi-token prediction": {**of_catalogue("deepseek-r1", False, 8), "mtp": True},
    "distill-qwen-7b awq": stored_as(AWQ, "deepseek-r1-distill-qwen-7b", 1),
    "distill-qwen-7b awq on 4": stored_as(AWQ, "deepseek-r1-distill-qwen-7b", 4),
    **{f"random {seed}": of_seed(seed) for seed in RANDOM},
}

# Not 4-bit groups that would be cut: the CPU's kernels take them, those for GPUs do not (auto_awq.py); nor more ranks
# than DeepSeek V4's output has groups, which are divided by only after the weights are loaded (fp8_utils.py).
REFUSED = {
    "7b on 8": of_catalogue("deepseek-r1-distill-qwen-7b", False, 8),
    "1.5b on 3": of_catalogue("deepseek-r1-distill-qwen-1.5b", False, 3),
    "14b fp8 on 8": stored_as(FP8_BLOCK, "deepseek-r1-distill-qwen-14b", 8),
    "qwen3-4b fp8 on 8": stored_as(FP8_BLOCK, "qwen3-4b", 8),
    "deepseek-r1 fp8 on 32": of_catalogue("deepseek-r1", True, 32),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    engine = os.environ.get("BEDPLATE_ENGINE")
    assert engine, "BEDPLATE_ENGINE does not name the engine's interpreter; run `make reference`"
    home = str(tmp_path_factory.mktemp("home"))
    # Several models have the same shape: what is the same question is asked once.
    everything = {**QUESTIONS, **REFUSED}
    unique = {json.dumps(asked, sort_keys=True): asked for asked in everything.values()}
    done = subprocess.run(
        [engine, "-I", str(Path(__file__).with_name("ask_vllm.py"))],
        input=json.dumps(list(unique.values())),
        capture_output=True,
        text=True,
        cwd=home,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": home,
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_LEVEL": "ERROR",
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # The engine's libraries greet on standard output; the answers are the last line.
    answered = dict(zip(unique, json.loads(done.stdout.splitlines()[-1]), strict=True))
    return {name: answered[json.dumps(asked, sort_keys=True)] for name, asked in everything.items()}


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_the_engine_computes(answers: dict[str, Any], name: str) -> None:
    asked, answer = QUESTIONS[name], answers[name]
    arch = model_architecture.parse(asked["config"], name)
    sizes = Parallelism(asked["tensor"], asked["pipeline"], asked["data"], asked["expert"])
    assert "error" not in answer, answer["error"]
    assert model_limits.problems(arch, "checkpoint", sizes) == []

    heaviest = max(stage["weight_bytes"] for stage in answer["stages"])
    assert (
        model_weights.weight_bytes_per_gpu(arch, "checkpoint", sizes, asked["mtp"]) - absorbed(arch, sizes) == heaviest
    )

    for kv_dtype in asked["kv_dtypes"]:
        layers = [stage["layers"][kv_dtype] for stage in answer["stages"]]
        found = max(sum(size for size, _window in stage) for stage in layers)
        ours = model_kv.kv_bytes_per_token_per_gpu(arch, kv_dtype, sizes.tensor, sizes.pipeline, 1, asked["mtp"])
        assert ours == found
    if arch.compressed is not None:
        return
    windows = [window for stage in answer["stages"] for _size, window in stage["layers"]["auto"]]
    if arch.indexer is None and not asked["mtp"]:
        assert windows == [arch.window(layer) for layer in range(arch.layers)]


@pytest.mark.parametrize("name", [name for name, asked in QUESTIONS.items() if asked["pipeline"] == 1])
def test_how_the_engine_divides_the_cache(answers: dict[str, Any], name: str) -> None:
    asked, answer = QUESTIONS[name], answers[name]["stages"][0]
    arch = model_architecture.parse(asked["config"], name)
    assert "pool" in answer or arch.compressed is None
    if "pool" not in answer:
        assert arch.indexer is not None, "only the indexer's cache has pages of another size"
        return
    block_bytes, block_tokens, groups = answer["pool"]
    pool = model_kv.pool(arch, "auto", asked["tensor"], 1, block_size=block_tokens, mtp=asked["mtp"])
    assert (pool.block_bytes, len(pool.windows)) == (block_bytes, groups)
    assert [pool.request_blocks(*request) for request in REQUESTS] == answer["blocks"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_the_engine_refuses(answers: dict[str, Any], name: str) -> None:
    asked = REFUSED[name]
    arch = model_architecture.parse(asked["config"], name)
    assert model_limits.problems(arch, "checkpoint", Parallelism(asked["tensor"])) != []
    assert answers[name].get("error", "").startswith(("AssertionError", "ValueError")), answers[name]


def absorbed(arch: model_architecture.Architecture, sizes: Parallelism) -> int:
    """W_UK and W_UV, which the engine makes after loading fp8 weights; the meta device does not get so far."""
    if arch.mla is None or arch.quantization is None:
        return 0
    assert sizes.pipeline == 1
    widths = arch.mla.qk_nope_head_dim + arch.mla.v_head_dim
    return arch.layers * arch.mla.kv_lora_rank * widths * arch.heads // sizes.tensor * 2
