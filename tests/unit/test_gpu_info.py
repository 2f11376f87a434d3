"""The module takes the best source that a host has, and says why not a better one."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import module_runner
import nvml_harness
import pynvml
import pytest
from ansible_collections.bedplate.llm.plugins.modules import gpu_info

XML = """<nvidia_smi_log><driver_version>580.95.05</driver_version>
<gpu id="00000000:1B:00.0"><product_name>NVIDIA H100 80GB HBM3</product_name></gpu></nvidia_smi_log>"""
MODULE = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.1  Release Build\n"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with nothing: no Python package, no program, no device."""
    nvml_harness.load()
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pynvml" else known(name))
    monkeypatch.setattr(gpu_info, "ROOT", tmp_path)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def program(host: Path, name: str, script: str) -> None:
    path = host / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def device(host: Path) -> None:
    folder = host / "sys/bus/pci/devices/0000:1b:00.0"
    folder.mkdir(parents=True)
    for name, text in {"vendor": "0x10de", "class": "0x030200", "device": "0x2330"}.items():
        (folder / name).write_text(f"{text}\n")


def look(host: Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """The facts and the checks that do not hold."""
    result = module_runner.run(gpu_info, pynvml_paths=[f"{host}/engines/*/site-packages"], **options)
    return result["ansible_facts"]["bedplate_gpus"], [check["id"] for check in result["checks"] if not check["ok"]]


def test_a_host_without_gpus_is_no_failure(host):
    facts, failing = look(host)
    assert (facts["source"]["answered"], facts["gpus"], failing) == ("none", [], [])


@pytest.mark.parametrize("check_mode", [False, True])
def test_without_pynvml_the_drivers_own_tool_is_asked(host, check_mode):
    program(host, "nvidia-smi", f'[ "$*" = "-q -x" ] && [ "$LC_ALL" = C ] && echo \'{XML}\'')
    facts, failing = look(host, _ansible_check_mode=check_mode)
    assert facts["source"]["answered"] == "nvidia-smi"
    assert "no pynvml" in facts["source"]["unavailable"]["nvml"]
    assert [gpu["product"] for gpu in facts["gpus"]] == ["H100"]
    assert failing == []


def test_the_engines_pynvml_is_as_good_as_the_hosts(host):
    for version in ("0.32", "0.33"):
        folder = host / f"engines/{version}/site-packages"
        folder.mkdir(parents=True)
        shutil.copy(pynvml.__file__, folder)
    with nvml_harness.wearing(nvml_harness.PROFILES["1xRTX4090"]):
        facts, failing = look(host)
    assert facts["source"] == {"answered": "nvml", "unavailable": {}}
    assert [gpu["product"] for gpu in facts["gpus"]] == ["RTX 4090"]
    assert failing == []


def test_without_a_driver_the_bus_is_read(host):
    device(host)
    facts, failing = look(host)
    assert facts["source"]["answered"] == "pci"
    assert set(facts["source"]["unavailable"]) == {"nvml", "nvidia-smi"}
    assert [(gpu["product"], gpu["memory"]["total_bytes"]) for gpu in facts["gpus"]] == [("H100", None)]
    assert failing == ["gpu.driver"]


def test_a_tool_that_hangs_is_not_waited_for(host):
    device(host)
    program(host, "nvidia-smi", f"exec {shutil.which('sleep', path=os.defpath)} 60")
    facts, _failing = look(host, timeout=1)
    assert "does not answer within 1 s" in facts["source"]["unavailable"]["nvidia-smi"]
    assert facts["source"]["answered"] == "pci"


def test_an_updated_library_under_an_old_module_is_a_finding(host):
    device(host)
    program(host, "nvidia-smi", 'echo "Failed to initialize NVML: Driver/library version mismatch"; exit 18')
    (host / "proc/driver/nvidia").mkdir(parents=True)
    (host / "proc/driver/nvidia/version").write_text(MODULE)
    library = host / "usr/lib/x86_64-linux-gnu"
    library.mkdir(parents=True)
    (library / "libnvidia-ml.so.580.95.05").touch()
    (library / "libnvidia-ml.so.1").symlink_to("libnvidia-ml.so.580.95.05")
    facts, failing = look(host)
    assert (facts["driver"]["module_version"], facts["driver"]["library_version"]) == ("570.1", "580.95.05")
    assert failing == ["gpu.driver", "gpu.driver-library"]


def test_the_fabric_manager_is_asked_for(host):
    program(host, "systemctl", "echo LoadState=loaded; echo ActiveState=active")
    program(host, "nv-fabricmanager", 'echo "Fabric Manager version is : 580.95.05"')
    facts, _failing = look(host)
    assert facts["fabric_manager"] == {"installed": True, "version": "580.95.05", "active_state": "active"}
