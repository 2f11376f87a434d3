"""What is recorded from a machine makes the stand-in say the same again."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nvml_harness
import pynvml
import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import gpu_nvml
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import (
    Driver,
    Gpu,
    GpuFacts,
    Mig,
    MigInstance,
    NvLink,
)

PROGRAM = Path(__file__).resolve().parents[1] / "bench/gpu/dump.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_dump", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


dump = load()


def worn(profile: Path) -> GpuFacts:
    with nvml_harness.wearing(profile):
        reading = gpu_nvml.read(pynvml)
    return GpuFacts(gpus=reading.gpus, driver=reading.driver)


@pytest.mark.parametrize("name", sorted(set(nvml_harness.PROFILES) - {"driver-mismatch", "driver-not-loaded"}))
def test_a_recorded_profile_says_the_same_again(name, tmp_path):
    facts = worn(nvml_harness.PROFILES[name])
    again = tmp_path / "again.profile"
    again.write_text(dump.profile_of(facts, "Recorded."))
    assert worn(again) == facts


def test_links_between_gpus_are_recorded(tmp_path):
    gpu = Gpu(0, name="NVIDIA A100", nvlink=NvLink(4, 3, 0, 3, ("0000:0f:00.0", "0000:47:00.0")))
    facts = GpuFacts(gpus=(gpu,), driver=Driver(version="580.1", nvml_version="13.580.1"))
    profile = tmp_path / "links.profile"
    profile.write_text(dump.profile_of(facts, "Recorded."))
    assert worn(profile).gpus[0].nvlink == gpu.nvlink


def test_what_tells_one_machine_from_another_is_not_recorded():
    gpu = Gpu(3, uuid="GPU-secret", pci_device_id="2330", mig=Mig(True, True, (MigInstance(uuid="MIG-secret"),)))
    assert "secret" not in repr(dump.nameless(gpu))


def test_nvidia_smi_is_recorded_without_names(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\necho '<gpu><uuid>secret</uuid><serial>secret</serial><board_id>secret</board_id><name>H100</name>"
        "<gpu_fabric_guid>secret</gpu_fabric_guid><clusterUuid>secret</clusterUuid></gpu>'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert "secret" not in dump.nvidia_smi()
    assert "<name>H100</name>" in dump.nvidia_smi()


def test_it_runs_where_nothing_is_installed(tmp_path):
    """A Python that finds neither ansible-core nor the collection: only the checkout itself."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", PROGRAM, tmp_path],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "This Python has no pynvml" in done.stdout
    record = json.loads((tmp_path / "facts.json").read_text())
    assert record["bedplate_gpus"]["source"]["unavailable"]["nvml"]


def test_a_gpu_that_refuses_is_recorded_as_refusing(tmp_path):
    facts = worn(nvml_harness.PROFILES["8xH100"])
    gpu = replace(facts.gpus[0], persistence=None, unreadable={"persistence": "Timeout"})
    profile = tmp_path / "refusing.profile"
    profile.write_text(dump.profile_of(replace(facts, gpus=(gpu,)), "Recorded."))
    assert worn(profile).gpus == (gpu,)
