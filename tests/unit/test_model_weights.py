"""Weights to the byte: published counts, files and tables, and what must hold for any model."""

from __future__ import annotations

from dataclasses import replace

import model_configs
import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import model_catalogue, model_quantization
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import ModelError, parse
from ansible_collections.bedplate.llm.plugins.module_utils.model_weights import (
    Parallelism,
    checkpoint_bytes,
    parameters,
    pipeline_layers,
    tensors,
    weight_bytes_per_gpu,
)

GIB = 2**30
ENTRIES = model_catalogue.load()
MODELS = {entry.name: entry.architecture for entry in ENTRIES}
R1 = MODELS["deepseek-r1"]
ONE = Parallelism()


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("deepseek-r1-distill-qwen-1.5b", 1_777_088_000),
        ("deepseek-r1-distill-qwen-7b", 7_615_616_512),
        ("deepseek-r1-distill-llama-8b", 8_030_261_248),
        ("deepseek-r1-distill-qwen-14b", 14_770_033_664),
        ("deepseek-r1-distill-qwen-32b", 32_763_876_352),
        ("deepseek-r1-distill-llama-70b", 70_553_706_496),
        ("deepseek-r1", 671_026_419_200),
        ("deepseek-v3.1", 671_026_419_200),
        ("qwen3-0.6b", 596_049_920),
        ("qwen3-1.7b", 1_720_574_976),
        ("qwen3-4b", 4_022_468_096),
        ("qwen3-8b", 8_190_735_360),
        ("qwen3-14b", 14_768_307_200),
        ("qwen3-32b", 32_762_123_264),
        ("llama-3.3-70b", 70_553_706_496),
    ],
)
def test_parameters_are_the_published_number(name: str, published: int) -> None:
    assert parameters(MODELS[name]) == published


# bf16, fp8 and AWQ in GiB on one GPU.  The fp8 figures count a 32-bit scale for each block of 128 x 128.
@pytest.mark.parametrize(
    ("name", "bf16", "fp8", "awq"),
    [
        ("deepseek-r1-distill-qwen-1.5b", 3.31, 2.09, 1.50),
        ("deepseek-r1-distill-qwen-7b", 14.19, 8.11, 5.19),
        ("deepseek-r1-distill-llama-8b", 14.96, 8.46, 5.33),
        ("deepseek-r1-distill-qwen-14b", 27.51, 15.21, 9.29),
        ("deepseek-r1-distill-qwen-32b", 61.03, 31.97, 18.00),
        ("deepseek-r1-distill-llama-70b", 131.42, 67.68, 37.04),
        ("deepseek-r1", 1249.9, 626.9, 327.4),
    ],
)
def test_sizes_are_those_of_the_checked_table(name: str, bf16: float, fp8: float, awq: float) -> None:
    digits = 1 if bf16 > 1000 else 2
    found = [checkpoint_bytes(MODELS[name], precision) / GIB for precision in ("bf16", "fp8_block", "awq_int4")]
    assert [round(size, digits) for size in found] == [bf16, fp8, awq]


def test_the_files_of_deepseek_r1() -> None:
    """163 files of 688,586,727,753 bytes are published; their headers are the difference."""
    found = checkpoint_bytes(R1, mtp=True)
    assert found == 688_574_839_360
    assert 0 < 688_586_727_753 - found < 163 * 200_000
    # An earlier sum, 688,574,831,904, counted scales by weight, 4 / 16,384: half a block less for each kv_a_proj, which
    # has 576 outputs.  The rest is the correction bias of the last layer, in 16 bits there.
    assert found - 688_574_831_904 == 62 * 56 * 4 // 2 + 256 * 2


def test_a_bf16_index_is_met_to_the_byte() -> None:
    assert checkpoint_bytes(MODELS["deepseek-r1-distill-qwen-7b"]) == 15_231_233_024


def test_latent_attention_keeps_its_absorbed_matrices_when_quantised() -> None:
    extra = 61 * 512 * 128 * 256 * 2
    assert weight_bytes_per_gpu(R1, "checkpoint", ONE) - checkpoint_bytes(R1) == extra
    assert weight_bytes_per_gpu(R1, "bf16", ONE) == checkpoint_bytes(R1, "bf16")


def test_deepseek_r1_on_eight_gpus() -> None:
    assert round(weight_bytes_per_gpu(R1, "checkpoint", Parallelism(8)) / GIB, 1) == 79.5
    # Cut or spread, 256 experts come to the same on eight, but for the scales of cut blocks.
    spread = weight_bytes_per_gpu(R1, "checkpoint", Parallelism(8, expert=True))
    assert abs(spread - weight_bytes_per_gpu(R1, "checkpoint", Parallelism(8))) < 2**20
    with_mtp = weight_bytes_per_gpu(R1, "checkpoint", Parallelism(8), True)
    assert 1.3 < (with_mtp - weight_bytes_per_gpu(R1, "checkpoint", Parallelism(8))) / GIB < 1.7


def test_latent_attention_stays_as_it_is_in_fp4() -> None:
    attention = 61 * (7168 * (1536 + 576) + 1536 * 24_576 + 512 * 32_768 + 16_384 * 7168)
    everything = parameters(R1) - 2 * 129_280 * 7168 - 58 * 256 * 7168
    quantised = checkpoint_bytes(R1, "nvfp4") - 2 * (parameters(R1) - everything + attention)
    assert abs(quantised / (everything - attention) - (0.5 + 1 / 16)) < 1e-4


def test_uneven_experts_count_for_the_fullest_rank() -> None:
    assert R1.moe is not None
    odd = replace(R1, moe=replace(R1.moe, routed_experts=9))
    on_two = weight_bytes_per_gpu(odd, "bf16", Parallelism(2, expert=True))
    assert on_two == weight_bytes_per_gpu(
        replace(R1, moe=replace(R1.moe, routed_experts=10)), "bf16", Parallelism(2, expert=True)
    ) - (58 * (7168 * 2 + 4))


def test_tied_embeddings_are_held_once_and_twice_over_a_pipeline() -> None:
    tied = MODELS["qwen3-0.6b"]
    table = 151936 * 1024 * 2
    assert weight_bytes_per_gpu(tied, "bf16", ONE) == 2 * parameters(tied)
    halves = weight_bytes_per_gpu(tied, "bf16", Parallelism(pipeline=2))
    assert halves == (2 * parameters(tied) - table - 1024 * 2) // 2 + table + 1024 * 2


def test_stages() -> None:
    assert [len(stage) for stage in pipeline_layers(61, 2)] == [31, 30]
    assert [len(stage) for stage in pipeline_layers(28, 3)] == [9, 10, 9]
    assert [len(stage) for stage in pipeline_layers(61, 4)] == [15, 15, 16, 15]


def test_modules_that_a_checkpoint_leaves_out_stay_as_they_are() -> None:
    quantization = model_quantization.Quantization(
        "awq", 4, 128, None, ("lm_head", "re:.*down_proj", "model.layers.0"), True
    )
    for module, left in (
        ("model.layers.1.mlp.down_proj", True),
        ("model.layers.0.mlp.up_proj", True),
        ("model.layers.10.mlp.up_proj", False),
        ("model.layers.1.mlp.up_proj", False),
    ):
        assert model_quantization.is_excluded(quantization, module) is left
    with pytest.raises(ModelError, match="precision is 'int3'; expected one of checkpoint, bf16"):
        weight_bytes_per_gpu(R1, "int3", ONE)


@pytest.mark.parametrize("seed", range(45))
def test_what_holds_for_any_model(seed: int) -> None:
    config = model_configs.make(seed)
    arch = parse(config, "config.json")
    specs = list(tensors(arch, mtp=True))
    assert len({spec.name for spec in specs}) == len(specs)
    counted = 0
    for spec in specs:
        size = 1
        for length in spec.shape:
            size *= length
        counted += size
    assert counted == parameters(arch, True)

    whole = weight_bytes_per_gpu(arch, "bf16", ONE)
    sizes = model_configs.tensor_sizes(config)
    held = [weight_bytes_per_gpu(arch, "bf16", Parallelism(size)) for size in sizes]
    # More ranks never hold more each, and together never less than the whole.
    assert held == sorted(held, reverse=True)
    assert all(size * each >= whole for size, each in zip(sizes, held, strict=True))
    assert weight_bytes_per_gpu(arch, "fp8", ONE) < whole
    for stages in (2, 3):
        assert whole / stages < weight_bytes_per_gpu(arch, "bf16", Parallelism(pipeline=stages)) <= whole
    if arch.moe:
        assert weight_bytes_per_gpu(arch, "bf16", Parallelism(data=2, expert=True)) < whole
