"""What the engine reports of its memory is kept, and a plan that promised more is found out."""

from __future__ import annotations

import json
import re

import pytest
from conftest import run

METRICS = "sudo curl --silent --unix-socket /run/bedplate-vllm/api.sock http://localhost/metrics"


@pytest.fixture(scope="module")
def tokens(server) -> int:
    """As the engine says it, asked by somebody else."""
    found = re.search(r'kv_cache_size_tokens="(\d+)"', server.check_output(METRICS))
    assert found
    return int(found[1])


def test_what_the_engine_reports_stands_beside_its_release_and_in_the_metrics(server, tokens):
    release = server.check_output(
        "systemctl show --property Environment --value bedplate-vllm | grep -o 'BEDPLATE_RELEASE=[0-9a-f]*'"
    ).partition("=")[2]
    record = json.loads(server.check_output(f"cat /var/lib/bedplate/releases/{release}.measured.json"))
    assert record["release"] == release
    assert record["reported"]["kv_cache_tokens"] == tokens
    kept = server.check_output("cat /var/lib/bedplate/metrics/vllm.prom")
    assert f'bedplate_vllm_kv_cache_tokens{{source="reported"}} {tokens}' in kept.splitlines()


@pytest.mark.parametrize(("share", "keeps"), [(1, True), (2, False)])
def test_an_engine_with_less_room_than_its_plan_is_found_out(tokens, share, keeps):
    plan = {
        "schema": 1,
        "model": "by hand",
        "gpus": "1xH100",
        "fits": True,
        "flags": {},
        "calibrated": True,
        "kv_cache_tokens": tokens * share,
    }
    # Without what preflight says to it: this machine has no GPU at all.
    done = run("bedplate.llm.verify", "-e", json.dumps({"vllm_plan": plan, "preflight_plan": {}}))
    said = " ".join((done.stdout + done.stderr).split())
    assert (done.returncode == 0) is keeps, said[-3000:]
    broken = f"vllm.planned-room: The KV cache holds {tokens:,} tokens and the plan says {tokens * share:,} (-50.0%)"
    assert (broken in said) is not keeps
