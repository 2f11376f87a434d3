"""A lab machine wears GPUs: which profiles may be named, and what goes onto the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nvml_harness
import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import lab_container, lab_gpu, lab_seed, lab_tools
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import LabError

PROFILE = nvml_harness.PROFILES["4xA10"]


def test_no_profile_is_no_gpus():
    assert lab_gpu.find("llm1", "", nvml_harness.SOURCE) is None


@pytest.mark.parametrize("wanted", ["4xA10", str(PROFILE)])
def test_a_profile_is_found_by_name_and_by_path(wanted):
    gpus = lab_gpu.find("llm1", wanted, nvml_harness.SOURCE)
    assert gpus is not None
    assert gpus.profile == PROFILE


@pytest.mark.parametrize("name", sorted(nvml_harness.PROFILES))
def test_every_profile_that_is_shipped_can_be_worn(name):
    assert lab_gpu.find("llm1", name, nvml_harness.SOURCE)


@pytest.mark.parametrize("wanted", ["9xH100", "/nowhere/4xA10.profile"])
def test_an_unknown_profile_is_refused_with_those_that_there_are(wanted):
    with pytest.raises(LabError, match=f"lab_gpu_profile of llm1 is '{wanted}'.*1xRTX4090, .*8xH100, "):
        lab_gpu.find("llm1", wanted, nvml_harness.SOURCE)


@pytest.mark.parametrize(
    ("text", "words"),
    [("gpu.count\n", "line 1 is 'gpu.count'"), ("# only words\n", "it has 0 lines"), ("a = b\n" * 2049, "2049 lines")],
)
def test_a_file_that_is_no_profile_is_refused(text, words, tmp_path):
    profile = tmp_path / "mine.profile"
    profile.write_text(text)
    with pytest.raises(LabError, match=words):
        lab_gpu.find("llm1", str(profile), nvml_harness.SOURCE)


def test_the_label_changes_with_the_profile(tmp_path):
    profile = tmp_path / "mine.profile"
    labels = set()
    for text in ("gpu.count = 1\n", "gpu.count = 2\n"):
        profile.write_text(text)
        labels.add(lab_gpu.Gpus(profile, nvml_harness.SOURCE).label)
    assert len(labels) == 2
    assert all(label.startswith("mine@") for label in labels)


def test_a_source_that_does_not_compile_is_told(tmp_path):
    (tmp_path / lab_gpu.SOURCE).write_text("int broken(\n")
    with pytest.raises(LabError, match="cc cannot build"):
        lab_gpu.build(tmp_path)


def test_without_a_compiler_it_is_installed_with_the_headers():
    missing = lab_tools.missing_packages("container", False, lambda program: program != "cc" or None, gpus=True)
    assert missing == ["gcc", "libc6-dev"]


@pytest.fixture
def files() -> list[lab_seed.SeedFile]:
    found: list[lab_seed.SeedFile] = lab_gpu.files(lab_gpu.Gpus(PROFILE, nvml_harness.SOURCE))
    return found


def test_a_program_on_the_machine_sees_the_gpus(files, tmp_path, monkeypatch):
    """The files as a container gets them, asked by a Python that has nothing else."""
    monkeypatch.setattr(os, "chown", lambda *_arguments: None)
    lab_container.create(tmp_path, files)
    upper = tmp_path / "upper"
    program = "import json, pynvml as n; n.nvmlInit(); print(json.dumps([n.nvmlDeviceGetCount(), n.__file__]))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={
            "LD_LIBRARY_PATH": str((upper / lab_gpu.LIBRARY).parent),
            "PYTHONPATH": str((upper / lab_gpu.BINDING).parent),
            "BEDPLATE_GPU_PROFILE": str(upper / lab_gpu.PROFILE),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [4, str(upper / lab_gpu.BINDING)]


def test_the_library_looks_where_the_profile_is_put():
    header = (nvml_harness.SOURCE / lab_gpu.HEADER).read_text()
    assert f'#define PROFILE_FILE "/{lab_gpu.PROFILE}"' in header


def test_a_virtual_machine_gets_the_same_bytes(files, tmp_path):
    archive = tmp_path / "seed.tar"
    archive.write_bytes(lab_seed.seed_archive(files))
    subprocess.run(["tar", "--extract", f"--directory={tmp_path}", f"--file={archive}"], check=True)
    for file in files:
        assert Path(tmp_path, file.path).read_bytes() == file.content
