"""Every profile of a lab machine through the real pynvml and the real module.

`BEDPLATE_REGENERATE=1 pytest tests/unit/test_gpu_profiles.py` writes what is expected anew; read the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import module_runner
import nvml_harness
import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import GpuFacts, as_dict, from_dict
from ansible_collections.bedplate.llm.plugins.modules import gpu_info

EXPECTED = Path(__file__).with_name("gpu_profiles")
WHOLE = ["1xRTX4090", "2xH100", "2xH200", "4xA10", "8xA100-80G", "8xB200", "8xH100", "8xH200-nvswitch"]
BROKEN = {
    "driver-mismatch": ["gpu.driver", "gpu.driver-library"],
    "driver-not-loaded": ["gpu.driver"],
    "ecc-pending": ["gpu.row-remap", "gpu.row-remap-failed", "gpu.ecc-errors", "gpu.ecc-mode"],
    "fabric-not-ready": ["gpu.link-width", "gpu.nvlink", "gpu.fabric"],
    "gpu-lost": ["gpu.answers"],
    "h100-mig": ["gpu.mig"],
    "no-permission": ["gpu.answers", "gpu.readable"],
}


def look(profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> dict[str, Any]:
    """What the module says on a machine that wears the profile and has nothing else."""
    nvml_harness.load()
    monkeypatch.setattr(gpu_info, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with nvml_harness.wearing(nvml_harness.PROFILES[profile]):
        return module_runner.run(gpu_info, **options)


def written(result: dict[str, Any]) -> str:
    """One line for each GPU and each check, so that a difference can be read."""
    facts = dict(result["ansible_facts"]["bedplate_gpus"])
    del facts["host"]
    parts = [f' "{key}": {json.dumps(value)}' for key, value in facts.items() if key != "gpus"]
    for key, items in (("gpus", facts["gpus"]), ("checks", result["checks"])):
        parts.append(f' "{key}": [\n' + ",\n".join(f"  {json.dumps(item)}" for item in items) + "\n ]")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def test_every_profile_is_judged_here():
    assert sorted([*WHOLE, *BROKEN]) == sorted(nvml_harness.PROFILES)


@pytest.mark.parametrize("profile", sorted(nvml_harness.PROFILES))
def test_the_facts_of_a_profile_are_the_recorded_ones(profile, tmp_path, monkeypatch):
    result = look(profile, tmp_path, monkeypatch)
    assert result["changed"] is False
    recorded = EXPECTED / f"{profile}.json"
    if os.environ.get("BEDPLATE_REGENERATE"):
        recorded.write_text(written(result))
    assert written(result) == recorded.read_text()


@pytest.mark.parametrize("profile", WHOLE)
def test_a_whole_machine_fails_no_check(profile, tmp_path, monkeypatch):
    result = look(profile, tmp_path, monkeypatch, gpu_count=int(profile.partition("x")[0]))
    assert [check for check in result["checks"] if not check["ok"]] == []


@pytest.mark.parametrize(("profile", "failing"), BROKEN.items())
def test_a_broken_machine_fails_exactly_what_is_broken(profile, failing, tmp_path, monkeypatch):
    result = look(profile, tmp_path, monkeypatch)
    broken = [check for check in result["checks"] if not check["ok"]]
    assert [check["id"] for check in broken] == failing
    assert all(check["reason"].endswith(".") and check["remedy"].endswith(".") for check in broken)


@pytest.mark.parametrize("profile", sorted(nvml_harness.PROFILES))
def test_facts_survive_the_way_through_json(profile, tmp_path, monkeypatch):
    facts = look(profile, tmp_path, monkeypatch)["ansible_facts"]["bedplate_gpus"]
    assert as_dict(from_dict(GpuFacts, json.loads(json.dumps(facts)))) == facts


@pytest.mark.parametrize("profile", sorted(nvml_harness.PROFILES))
def test_nobody_takes_a_profile_for_hardware(profile, tmp_path, monkeypatch):
    assert look(profile, tmp_path, monkeypatch)["ansible_facts"]["bedplate_gpus"]["simulated"] is True


def test_one_lost_gpu_does_not_hide_the_others(tmp_path, monkeypatch):
    gpus = look("gpu-lost", tmp_path, monkeypatch)["ansible_facts"]["bedplate_gpus"]["gpus"]
    assert [gpu["index"] for gpu in gpus if gpu["error"]] == [3]
    assert [gpu["name"] for gpu in gpus if not gpu["error"]] == ["NVIDIA H100 80GB HBM3"] * 7


def test_fewer_gpus_than_expected_are_a_finding_and_no_failure(tmp_path, monkeypatch):
    result = look("gpu-lost", tmp_path, monkeypatch, gpu_count=8)
    (count,) = [check for check in result["checks"] if check["id"] == "gpu.count"]
    assert not count["ok"]
    assert "7 GPUs (H100), simulated, and the inventory expects 8." in count["reason"]


def test_an_impossible_expectation_is_refused(tmp_path, monkeypatch):
    with pytest.raises(module_runner.ModuleFailedError, match="gpu_count is -1"):
        look("8xH100", tmp_path, monkeypatch, gpu_count=-1)
