"""NVML says no in many ways, and each of them leaves the rest readable."""

from __future__ import annotations

from pathlib import Path

import nvml_harness
import pynvml
import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import gpu_nvml
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import Gpu, NvLink, Reading, SourceError

ONE = nvml_harness.PROFILES["8xH100"].read_text() + "gpu.count = 1\n"


def read(tmp_path: Path, *lines: str, base: str = ONE) -> Reading:
    profile = tmp_path / "gpu.profile"
    profile.write_text(base + "\n".join(lines) + "\n")
    with nvml_harness.wearing(profile):
        return gpu_nvml.read(pynvml)


def read_one(tmp_path: Path, *lines: str) -> Gpu:
    (gpu,) = read(tmp_path, *lines).gpus
    return gpu


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("init = !driver_not_loaded", "NVML does not start: the kernel module is not loaded."),
        (
            "init = !driver_mismatch",
            "NVML does not start: the kernel module and the library are of different versions.",
        ),
        ("init = !no_permission", "NVML does not start: Insufficient Permissions."),
        ("init = !unknown", "NVML does not start: Unknown Error."),
        ("gpu.count = !no_permission", "NVML does not count the GPUs: Insufficient Permissions."),
    ],
)
def test_a_library_that_does_not_start_says_why_and_what_it_is(line, words, tmp_path):
    with pytest.raises(SourceError) as caught:
        read(tmp_path, line)
    assert str(caught.value) == words
    assert caught.value.driver.library_version == "580.95.05"
    assert caught.value.simulated


def test_a_missing_library_is_told_apart_from_a_broken_one(monkeypatch):
    def refuse(_name):
        raise OSError("no such file")

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setattr(pynvml, "CDLL", refuse)
    with pytest.raises(SourceError, match=r"libnvidia-ml\.so\.1 is not installed"):
        gpu_nvml.read(pynvml)


@pytest.mark.parametrize("error", ["no_permission", "unknown", "timeout", "not_ready"])
def test_a_refused_value_has_a_reason_and_stands_alone(error, tmp_path):
    gpu = read_one(tmp_path, f"gpu.0.persistence = !{error}")
    assert gpu.persistence is None
    assert list(gpu.unreadable) == ["persistence"]
    assert gpu.name == "NVIDIA H100 80GB HBM3"
    assert gpu.error is None


@pytest.mark.parametrize("error", ["not_supported", "not_found", "no_data", "invalid_argument"])
def test_a_value_that_the_gpu_does_not_have_is_no_finding(error, tmp_path):
    gpu = read_one(tmp_path, f"gpu.0.persistence = !{error}")
    assert gpu.persistence is None
    assert gpu.unreadable == {}


def test_every_single_value_may_be_refused_without_hiding_the_gpu(tmp_path):
    keys = {line.split(" = ")[0].replace("gpu.*.", "gpu.0.") for line in ONE.splitlines() if line.startswith("gpu.")}
    for key in sorted(keys - {"gpu.count"}):
        gpu = read_one(tmp_path, f"{key} = !no_permission")
        assert gpu.error is None, key


@pytest.mark.parametrize("error", ["gpu_is_lost", "reset_required"])
@pytest.mark.parametrize("line", ["gpu.0.* = !{}", "gpu.0.handle = !{}", "gpu.0.memory.total = !{}"])
def test_a_lost_gpu_is_a_gpu_with_an_error(line, error, tmp_path):
    gpu = read_one(tmp_path, line.format(error))
    assert gpu.error
    assert gpu.memory.total_bytes is None


def test_a_lost_gpu_keeps_the_address_that_it_told(tmp_path):
    gpu = read_one(tmp_path, "gpu.0.memory.total = !gpu_is_lost")
    assert gpu.pci_address == "0000:1b:00.0"


def test_a_gpu_without_the_newer_calls_is_read_with_the_older_ones(tmp_path, monkeypatch):
    functions = pynvml._nvmlGetFunctionPointer

    def older(name):
        if name in ("nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetGpuFabricInfoV", "nvmlDeviceGetRemappedRows"):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return functions(name)

    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer", older)
    gpu = read_one(tmp_path, "gpu.0.retired_pages.pending = 1")
    assert gpu.memory.total_bytes == 81559 * 2**20
    assert gpu.memory.reserved_bytes is None
    assert gpu.fabric is not None
    assert gpu.fabric.state == "completed"
    assert gpu.row_remap.pending is True
    assert gpu.unreadable == {}


def test_a_pynvml_that_lacks_a_function_lacks_the_value(tmp_path, monkeypatch):
    monkeypatch.delattr(pynvml, "nvmlDeviceGetArchitecture")
    gpu = read_one(tmp_path)
    assert gpu.architecture is None
    assert gpu.unreadable == {}


def test_links_to_other_gpus_name_their_peers(tmp_path):
    lines = ["gpu.0.nvlink.links = 4", "gpu.0.nvlink.*.to_switch = 0", "gpu.0.nvlink.3.active = 0"]
    lines += [f"gpu.0.nvlink.{link}.bus_id = 00000000:{bus}:00.0" for link, bus in enumerate(("43", "43", "DF", "52"))]
    assert read_one(tmp_path, *lines).nvlink == NvLink(4, 3, 0, 4, ("0000:43:00.0", "0000:df:00.0"))


@pytest.mark.parametrize(
    ("state", "status", "expected"),
    [(1, 0, ("not_started", "success")), (2, 0, ("in_progress", "success")), (3, 999, ("completed", "Unknown Error"))],
)
def test_the_fabric_says_how_far_it_has_come(state, status, expected, tmp_path):
    fabric = read_one(tmp_path, f"gpu.0.fabric.state = {state}", f"gpu.0.fabric.status = {status}").fabric
    assert fabric is not None
    assert (fabric.state, fabric.status) == expected


def test_a_fabric_has_a_name_when_it_spans_machines(tmp_path):
    uuid = "01234567-89ab-cdef-0123-456789abcdef"
    fabric = read_one(tmp_path, f"gpu.0.fabric.cluster_uuid = {uuid}").fabric
    assert fabric is not None
    assert fabric.cluster_uuid == uuid


def test_processors_above_the_first_word_are_counted(tmp_path):
    gpu = read_one(tmp_path, "gpu.0.cpu_affinity = 1,60-70,500", "gpu.0.numa_node = 65")
    assert gpu.cpu_affinity == "1,60-70,500"
    assert gpu.numa_node == 65


def test_a_process_whose_memory_the_driver_does_not_know_has_none(tmp_path):
    gpu = read_one(tmp_path, "gpu.0.processes = 1", "gpu.0.process.0.pid = 7")
    assert gpu.processes is not None
    assert [(process.pid, process.memory_used_bytes) for process in gpu.processes] == [(7, None)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("13.580.95.05+simulated", "580.95.05"), ("12.535.104", "535.104"), ("580", None), (None, None), ("12.5", None)],
)
def test_the_librarys_version_is_in_that_of_nvml(text, expected):
    assert gpu_nvml.library_version(text) == expected


def test_the_last_line_that_fits_counts_and_whole_segments_only(tmp_path):
    gpu = read_one(tmp_path, "gpu.*.name = first", "gpu.0.name = second", "gpu.0.nam = third", "gpu.00.name = fourth")
    assert gpu.name == "second"
