"""A real machine, recorded by tests/bench/gpu/dump.py: its three voices must say the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import gpu_smi

RECORDED = Path(__file__).parents[1] / "bench/gpu"
MACHINES = sorted(folder.name for folder in RECORDED.iterdir() if (folder / "facts.json").exists())
# What nvidia-smi does not print, or not in the recording, and what is added to its answer afterwards.
BEYOND_SMI = {"uuid", "product", "kernel_driver", "compute_capability", "nvlink", "numa_node", "cpu_affinity"}
# What a stand-in cannot have: it drives no card.
BEYOND_STAND_IN = {"kernel_driver"}


def gpus_of(machine: str) -> list[dict]:
    facts = json.loads((RECORDED / machine / "facts.json").read_text())["bedplate_gpus"]
    assert facts["source"]["answered"] == "nvml"
    assert facts["simulated"] is False
    return facts["gpus"]


def without(gpu: dict, names: set[str]) -> dict:
    return {name: value for name, value in gpu.items() if name not in names}


def test_there_is_a_recording():
    assert MACHINES == ["2xH100", "2xH200"]


@pytest.mark.parametrize("machine", MACHINES)
def test_nvidia_smi_says_what_nvml_says(machine):
    read = gpu_smi.parse((RECORDED / machine / "nvidia-smi.xml").read_text())
    beyond = BEYOND_SMI | {"memory"}
    said = [without(json.loads(json.dumps(asdict(gpu))), beyond) for gpu in read.gpus]
    assert said == [without(gpu, beyond) for gpu in gpus_of(machine)]
    for gpu, recorded in zip(read.gpus, gpus_of(machine), strict=True):
        # nvidia-smi prints whole MiB.
        assert asdict(gpu.memory) == pytest.approx(recorded["memory"], abs=1024**2)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_stand_in_says_what_the_machine_said(machine):
    golden = json.loads((Path(__file__).parent / f"gpu_profiles/{machine}.json").read_text())
    said = [without(gpu, BEYOND_STAND_IN) for gpu in golden["gpus"]]
    assert said == [without(gpu, BEYOND_STAND_IN) for gpu in gpus_of(machine)]


@pytest.mark.parametrize("machine", MACHINES)
def test_a_healthy_machine_failed_no_check(machine):
    checks = json.loads((RECORDED / machine / "facts.json").read_text())["checks"]
    assert len(checks) > 15
    assert [check for check in checks if not check["ok"]] == []
