"""What the engine reports of its KV cache, against the plan."""

from __future__ import annotations

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.plan_reported import reported_tokens, room_check

# Shortened from vLLM 0.32's /metrics.
LINE = (
    'vllm:cache_config_info{{block_size="16",cache_dtype="auto",engine="{engine}",gpu_memory_utilization="0.92",'
    'kv_cache_max_concurrency="254.79",kv_cache_size_tokens="{tokens}",num_gpu_blocks="130453"}} 1.0'
)


def metrics(*tokens: int) -> str:
    lines = [LINE.format(engine=engine, tokens=number) for engine, number in enumerate(tokens)]
    return "\n".join(["# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig", *lines, ""])


def test_every_engine_is_heard():
    assert reported_tokens(metrics(2_087_248, 2_087_000)) == [2_087_248, 2_087_000]


@pytest.mark.parametrize(
    ("planned", "tokens", "ok", "said"),
    [
        (2_087_344, (2_087_248,), True, "(-0.0%)"),
        (1_000_000, (1_200_000,), True, "(+20.0%)"),
        (1_000_000, (960_000,), True, "(-4.0%)"),
        (1_000_000, (1_000_000, 900_000), False, "holds 900,000 tokens and the plan says 1,000,000 (-10.0%)"),
    ],
)
def test_room_that_is_missing_is_found(planned, tokens, ok, said):
    check = room_check(planned, metrics(*tokens))
    assert (check.id, check.ok) == ("vllm.planned-room", ok)
    assert said in check.reason
    assert bool(check.remedy) != ok


def test_an_engine_that_says_nothing_keeps_no_promise():
    assert not room_check(1000, "vllm:num_requests_running 0\n").ok
