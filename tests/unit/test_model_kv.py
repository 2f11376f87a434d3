"""The cache to the byte: published figures, blocks, windows, and what must hold for any model."""

from __future__ import annotations

from dataclasses import replace

import model_configs
import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import model_catalogue
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import ModelError, parse
from ansible_collections.bedplate.llm.plugins.module_utils.model_kv import (
    kv_bytes_for_request,
    kv_bytes_per_token_per_gpu,
    pool,
)

MODELS = {entry.name: entry.architecture for entry in model_catalogue.load()}
R1, V32, QWEN7B = MODELS["deepseek-r1"], MODELS["deepseek-v3.2"], MODELS["deepseek-r1-distill-qwen-7b"]


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("deepseek-r1-distill-qwen-1.5b", 28_672),
        ("deepseek-r1-distill-qwen-7b", 57_344),
        ("deepseek-r1-distill-llama-8b", 131_072),
        ("deepseek-r1-distill-qwen-14b", 196_608),
        ("deepseek-r1-distill-qwen-32b", 262_144),
        ("deepseek-r1-distill-llama-70b", 327_680),
        ("deepseek-r1", 70_272),
    ],
)
def test_bytes_per_token_are_the_published_number(name: str, published: int) -> None:
    assert kv_bytes_per_token_per_gpu(MODELS[name], "auto", 1, 1) == published


@pytest.mark.parametrize(
    ("kv_dtype", "tensor", "pipeline", "context", "mtp", "expected"),
    [
        ("auto", 8, 1, 1, False, 61 * 576 * 2),  # latent attention: the same on every rank
        ("fp8", 8, 1, 1, False, 61 * 576),
        ("fp8_ds_mla", 8, 1, 1, False, 40_016),
        ("nvfp4_ds_mla", 8, 1, 1, False, 61 * 352),
        ("auto", 8, 2, 1, False, 31 * 576 * 2),
        ("auto", 8, 1, 8, False, 8_784),
        ("auto", 8, 1, 1, True, 62 * 576 * 2),
        ("auto", 8, 2, 1, True, 31 * 576 * 2),  # the last stage has 30 layers and that of multi-token prediction
    ],
)
def test_deepseek_r1(kv_dtype: str, tensor: int, pipeline: int, context: int, mtp: bool, expected: int) -> None:
    assert kv_bytes_per_token_per_gpu(R1, kv_dtype, tensor, pipeline, context, mtp) == expected


def test_sparse_attention_has_its_indexers_keys_besides() -> None:
    assert kv_bytes_per_token_per_gpu(V32, "auto", 8, 1) == 61 * (1152 + 132)
    assert kv_bytes_per_token_per_gpu(V32, "fp8_ds_mla", 8, 1) == 61 * (656 + 132)
    assert kv_bytes_per_token_per_gpu(V32, "fp8", 8, 1) == 61 * (656 + 132)


def test_heads_are_copied_when_there_are_more_ranks() -> None:
    found = [kv_bytes_per_token_per_gpu(QWEN7B, "auto", tensor, 1) for tensor in (1, 2, 4, 28)]
    assert found == [57_344, 28_672, 14_336, 14_336]


def test_packed_rows_are_for_latent_attention_only() -> None:
    with pytest.raises(
        ModelError, match="fp8_ds_mla is that of DeepSeek's latent attention, which Qwen2ForCausalLM lacks"
    ):
        kv_bytes_per_token_per_gpu(QWEN7B, "fp8_ds_mla", 1, 1)
    with pytest.raises(ModelError, match="the cache's type is 'int2'; expected one of auto"):
        kv_bytes_per_token_per_gpu(QWEN7B, "int2", 1, 1)


def test_the_pool_that_was_measured() -> None:
    """Small models on a CPU with 1 GiB: 233,008 tokens of latent attention, 524,288 of two heads of 64."""
    assert R1.mla is not None
    latent = replace(R1, layers=4)
    assert pool(latent, "auto", 1, 1).blocks(2**30) * 16 == 233_008
    grouped = replace(QWEN7B, layers=4, kv_heads=2, head_dim=64)
    assert pool(grouped, "auto", 1, 1, block_size=128).blocks(2**30) * 128 == 524_288


def test_the_h200_that_was_measured() -> None:
    """111.47 GiB of cache gave 2,087,248 tokens for the 7B shape ; the GiB are rounded."""
    tokens = pool(QWEN7B, "auto", 1, 1).blocks(int(111.47 * 2**30)) * 16
    assert abs(tokens - 2_087_248) / 2_087_248 < 0.0001


def test_requests_take_whole_blocks() -> None:
    assert [kv_bytes_for_request(QWEN7B, tokens, "auto", 1, 1) // 57_344 for tokens in (1, 16, 17)] == [16, 16, 32]
    assert kv_bytes_for_request(R1, 65, "auto", 8, 1, block_size=64) == 128 * 70_272
    # Spread over eight ranks, each holds a block of 64 for 512 tokens.
    assert kv_bytes_for_request(R1, 512, "auto", 8, 1, 8, 64) == 64 * 70_272


def test_windows_hold_no_more_than_their_window() -> None:
    """Two groups of full layers and ten of sliding ones share blocks of two layers' width."""
    windows = tuple(None if layer % 6 == 5 else 512 for layer in range(12))
    gemma = replace(QWEN7B, layers=12, windows=windows)
    page = 16 * 4 * 128 * 2 * 2
    cache = pool(gemma, "auto", 1, 1)
    assert (cache.block_bytes, cache.windows) == (2 * page, (512, 512, 512, 512, 512, None))
    assert cache.request_blocks(16_000, 2048) == 1000 + 5 * (160 + 1)
    assert cache.request_blocks(16, 2048) == 1 + 5 * 2


@pytest.mark.parametrize("seed", range(45))
def test_what_holds_for_any_model(seed: int) -> None:
    config = model_configs.make(seed)
    arch = parse(config, "config.json")
    whole = kv_bytes_per_token_per_gpu(arch, "auto", 1, 1)
    for tensor in model_configs.tensor_sizes(config):
        each = kv_bytes_per_token_per_gpu(arch, "auto", tensor, 1)
        assert whole / tensor <= each <= whole
    assert kv_bytes_per_token_per_gpu(arch, "auto", 1, 2) * 2 >= whole
    if arch.compressed:
        assert kv_bytes_per_token_per_gpu(arch, "fp8", 1, 1) == whole
    elif not arch.indexer:
        assert kv_bytes_per_token_per_gpu(arch, "fp8", 1, 1) * 2 == whole
    costs = [kv_bytes_for_request(arch, tokens, "auto", 1, 1, in_flight=64) for tokens in (1, 100, 2000, 30_000)]
    assert costs == sorted(costs)
    if not arch.windows and not arch.compressed:
        assert costs[-1] == 30_000 * whole
