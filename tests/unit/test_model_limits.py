"""What the engine refuses is refused before, with the reason; what it accepts is not."""

from __future__ import annotations

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import model_catalogue
from ansible_collections.bedplate.llm.plugins.module_utils.model_limits import divisors, problems
from ansible_collections.bedplate.llm.plugins.module_utils.model_weights import Parallelism

MODELS = {entry.name: entry.architecture for entry in model_catalogue.load()}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("deepseek-r1-distill-qwen-1.5b", [1, 2, 4]),
        ("deepseek-r1-distill-qwen-7b", [1, 2, 4]),
        ("deepseek-r1-distill-llama-8b", [1, 2, 4, 8, 16]),
        ("deepseek-r1-distill-qwen-14b", [1, 2, 4, 8]),
        ("deepseek-r1-distill-qwen-32b", [1, 2, 4, 8]),
        ("deepseek-r1-distill-llama-70b", [1, 2, 4, 8, 16]),
        ("deepseek-r1", [1, 2, 4, 8, 16]),
    ],
)
def test_tensor_parallel_sizes(name: str, sizes: list[int]) -> None:
    assert divisors(MODELS[name], 16) == sizes


@pytest.mark.parametrize(
    ("name", "precision", "sizes", "context", "reason"),
    [
        ("deepseek-r1-distill-qwen-7b", "bf16", Parallelism(8), 1, "28 attention heads cannot be divided over 8 GPUs."),
        ("deepseek-r1-distill-qwen-1.5b", "bf16", Parallelism(3), 1, "3 GPUs are no multiple of the 2 key-value heads"),
        ("qwen3-32b", "bf16", Parallelism(64, expert=True), 1, "has no experts, so there is nothing to spread"),
        ("qwen3-32b", "bf16", Parallelism(1, data=4), 1, "4 independent services do the same"),
        ("deepseek-r1", "bf16", Parallelism(64, data=8, expert=True), 1, "256 experts cannot be spread over 512 GPUs"),
        ("deepseek-r1", "checkpoint", Parallelism(32), 1, "mlp.experts.gate_proj leaves 64 outputs to a GPU"),
        ("deepseek-r1-distill-qwen-1.5b", "awq_int4", Parallelism(4), 1, "mlp.down_proj leaves 2240 inputs to a GPU"),
        ("deepseek-r1-distill-qwen-14b", "awq_int4", Parallelism(8), 1, "mlp.down_proj leaves 1728 inputs to a GPU"),
        ("deepseek-r1-distill-qwen-14b", "fp8_block", Parallelism(8), 1, "fp8 blocks of 128"),
        ("qwen3-8b", "bf16", Parallelism(1, pipeline=40), 1, "36 layers cannot be divided over 40 pipeline stages"),
        ("qwen3-8b", "bf16", Parallelism(0), 1, "tensor parallelism is 0; give 1 or more."),
        ("deepseek-r1", "checkpoint", Parallelism(8), 3, "8 tensor ranks cannot be divided by a decode context of 3"),
        (
            "llama-3.3-70b",
            "bf16",
            Parallelism(8),
            2,
            "a decode context of 2 needs as many copies of each key-value head",
        ),
    ],
)
def test_refusals(name: str, precision: str, sizes: Parallelism, context: int, reason: str) -> None:
    found = problems(MODELS[name], precision, sizes, context)
    assert any(reason in sentence for sentence in found), found
    assert all("\n" not in sentence and sentence.endswith((".", "another.")) for sentence in found)


@pytest.mark.parametrize(
    ("name", "precision", "sizes", "context"),
    [
        ("deepseek-r1", "checkpoint", Parallelism(8), 8),
        ("deepseek-r1", "checkpoint", Parallelism(16), 1),
        ("deepseek-r1", "checkpoint", Parallelism(8, 2), 1),
        ("deepseek-r1", "checkpoint", Parallelism(8, data=4, expert=True), 1),
        ("deepseek-r1", "checkpoint", Parallelism(1, data=32, expert=True), 1),
        ("deepseek-r1", "awq_int4", Parallelism(8), 1),
        ("llama-3.3-70b", "bf16", Parallelism(16), 2),
        ("deepseek-r1-distill-qwen-14b", "awq_int4", Parallelism(4), 1),
    ],
)
def test_what_is_accepted(name: str, precision: str, sizes: Parallelism, context: int) -> None:
    assert problems(MODELS[name], precision, sizes, context) == []
