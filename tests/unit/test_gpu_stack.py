"""One version fact: which pair of the driver's parts does not agree; nothing twice, nothing of what is not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import module_runner
import pytest
from ansible_collections.bedplate.llm.plugins.filter.cuda import engine_cuda as engine_cuda_of
from ansible_collections.bedplate.llm.plugins.module_utils.cuda_versions import driver_problem, engine_cuda
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import Driver
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_health import driver_library
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_stack import Cdi, Stack, checks, parse_cdi
from ansible_collections.bedplate.llm.plugins.modules import gpu_stack_info

NOW, OLD = "580.95.05", "570.172.08"
KERNEL, OTHER = "6.1.0-40-amd64", "6.1.0-41-amd64"
WHOLE = Stack(
    kernel=KERNEL,
    loaded=NOW,
    loaded_open=True,
    modules={KERNEL: NOW, OTHER: NOW},
    libraries={"libcuda.so.1": NOW, "libnvidia-ml.so.1": NOW},
    tools={"nvidia-smi": NOW, "nvidia-persistenced": NOW},
    fabric_manager=NOW,
    cdi=(Cdi("/etc/cdi/nvidia.yaml", (NOW,)),),
    firmware=(NOW,),
    engine_cuda="13.0",
)
IDS = [
    "gpu.driver-library",
    "gpu_stack.libraries",
    "gpu_stack.module-loaded",
    "gpu_stack.module-next-boot",
    "gpu_stack.nvidia-persistenced",
    "gpu_stack.nvidia-smi",
    "gpu_stack.fabric-manager",
    "gpu_stack.cdi",
    "gpu_stack.firmware",
    "gpu_stack.engine-cuda",
]


def test_a_whole_host_passes_a_check_for_every_pair():
    found = checks(WHOLE)
    assert [check.id for check in found] == IDS
    assert all(check.ok and check.reason.endswith(".") and not check.remedy for check in found)


@pytest.mark.parametrize(
    ("changes", "failing", "words"),
    [
        # Updated under a loaded module: a reboot is due, and that is said once.
        ({"loaded": OLD}, ["gpu.driver-library"], f"kernel module is {OLD} and the library {NOW}"),
        ({"libraries": {**WHOLE.libraries, "libcuda.so.1": OLD}}, ["gpu_stack.libraries"], f"libcuda.so.1 {OLD}"),
        # The package of the module was updated alone; nothing shows until the next boot.
        (
            {"modules": {KERNEL: OLD}},
            ["gpu_stack.module-loaded", "gpu_stack.module-next-boot", "gpu_stack.firmware"],
            f"the one on disk for this kernel is {OLD}",
        ),
        ({"modules": {KERNEL: NOW, OTHER: OLD}}, ["gpu_stack.module-next-boot"], f"kernel {OTHER} ({OLD})"),
        ({"tools": {"nvidia-smi": OLD}}, ["gpu_stack.nvidia-smi"], f"nvidia-smi is {OLD}, and the driver is {NOW}"),
        ({"tools": {"nvidia-persistenced": OLD}}, ["gpu_stack.nvidia-persistenced"], OLD),
        ({"fabric_manager": OLD}, ["gpu_stack.fabric-manager"], "CUDA says 802"),
        ({"cdi": (Cdi("/etc/cdi/a.yaml", (OLD,)),)}, ["gpu_stack.cdi"], f"/etc/cdi/a.yaml mounts libraries of {OLD}"),
        ({"cdi": (Cdi("/var/run/cdi/a.yaml", (OLD, NOW)),)}, ["gpu_stack.cdi"], "/var/run/cdi/a.yaml mounts"),
        ({"firmware": (OLD,)}, ["gpu_stack.firmware"], f"is there for {OLD}, and the module is {NOW}"),
        ({"engine_cuda": "12.8", "loaded": OLD, "libraries": {}, "modules": {}, "tools": {}, "fabric_manager": None,
          "cdi": (), "firmware": ()}, [], ""),
        ({"loaded": OLD, "libraries": {}, "modules": {}, "tools": {}, "fabric_manager": None, "cdi": (),
          "firmware": ()}, ["gpu_stack.engine-cuda"], "CUDA 13.0 needs a driver of branch 580 or newer"),
    ],
)  # fmt: skip
def test_the_pair_that_does_not_agree_is_named_with_what_to_do(changes, failing, words):
    found = [check for check in checks(replace(WHOLE, **changes)) if not check.ok]
    assert [check.id for check in found] == failing
    assert words in " ".join(check.reason for check in found)
    assert all(check.remedy.endswith(".") for check in found)


def test_a_driver_that_waits_for_its_reboot_has_the_version_that_comes_after_it():
    """Everything on disk is new: only the loaded module is not, and nothing else is blamed."""
    found = [check.id for check in checks(replace(WHOLE, loaded=OLD)) if not check.ok]
    assert found == ["gpu.driver-library"]


@pytest.mark.parametrize("name", [name for name in Stack.__dataclass_fields__ if name not in ("kernel", "loaded_open")])
def test_what_is_not_installed_is_no_finding(name):
    without = replace(WHOLE, **{name: getattr(Stack(), name)})
    found = checks(without)
    assert [check for check in found if not check.ok] == []
    assert len(found) < len(IDS)


@pytest.mark.parametrize(
    "stack", [Stack(), Stack(engine_cuda="13.0"), Stack(fabric_manager=NOW), Stack(firmware=(NOW,))]
)
def test_a_host_without_a_driver_has_no_check(stack):
    assert checks(stack) == []


def test_what_gpu_info_says_already_is_not_said_again():
    (check,) = [check for check in checks(replace(WHOLE, loaded=OLD)) if not check.ok]
    assert check == driver_library(Driver(module_version=OLD, library_version=NOW))
    said = ["gpu.driver-library", "gpu.fabric-manager"]
    assert [check.id for check in checks(WHOLE, said)] == [
        name for name in IDS if name not in ("gpu.driver-library", "gpu_stack.fabric-manager")
    ]
    # Before the reboot, gpu_info compares with what runs: that the new fabric manager fits the new driver is only here.
    assert "gpu_stack.fabric-manager" in [check.id for check in checks(replace(WHOLE, loaded=OLD), said)]


def test_a_cuda_that_the_table_does_not_know_is_not_judged():
    (check,) = [check for check in checks(replace(WHOLE, engine_cuda="99.1")) if check.id == "gpu_stack.engine-cuda"]
    assert check.ok
    assert "nothing was compared" in check.reason


# --- specifications -------------------------------------------------------------------------------------------------

YAML = f"""---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  mounts:
    - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{NOW}
      containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{NOW}
    - hostPath: /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{NOW}
    - hostPath: /usr/lib/x86_64-linux-gnu/libnvidia-egl-gbm.so.1.1.2
"""


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        (YAML, (NOW,)),
        (YAML + f"    - hostPath: /usr/lib/libcuda.so.{OLD}\n", (OLD, NOW)),
        ('{"kind": "nvidia.com/gpu", "x": ["/usr/lib64/libcuda.so.580.95.05"]}', (NOW,)),
        ('kind: "nvidia.com/gpu"\n', ()),
        ("kind: vendor.com/device\nx: /usr/lib/libcuda.so.1.2\n", None),
        ("", None),
    ],
)
def test_a_specification_tells_which_libraries_it_mounts(text, versions):
    found = parse_cdi("/etc/cdi/x.yaml", text)
    assert (found.versions if found else None) == versions


def test_a_specification_without_libraries_is_no_finding():
    assert "gpu_stack.cdi" not in [check.id for check in checks(replace(WHOLE, cdi=(Cdi("/etc/cdi/mig.yaml", ()),)))]


# --- CUDA -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["wheels/torch-2.14.0.whl", "wheels/nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.whl"], "13.0"),
        (["wheels/nvidia_cuda_runtime_cu12-12.8.90-py3-none-any.whl"], "12.8"),
        (["wheels/nvidia_cuda_nvcc-13.0.88-py3-none-any.whl"], ""),
        ([], ""),
    ],
)
def test_the_engines_cuda_is_that_of_the_runtime_among_its_wheels(paths, expected):
    assert engine_cuda(paths) == expected
    assert engine_cuda_of({"artefacts": [{"path": path} for path in paths]}) == expected


def test_the_engine_of_the_lock_file_has_a_cuda_that_the_table_knows():
    lock = Path(__file__).parents[2] / "requirements" / "engine-cuda.txt"
    pins = dict(line.split(" ")[0].split("==") for line in lock.read_text().splitlines() if "==" in line)
    found = engine_cuda([f"wheels/nvidia_cuda_runtime-{pins['nvidia-cuda-runtime']}-py3-none-any.whl"])
    assert driver_problem(found, "1.0") is not None


@pytest.mark.parametrize(
    ("cuda", "driver", "minimum"),
    [
        ("13.0", "580.65.06", None),
        ("13.0", "590.48.01", None),
        ("13.2", "575.57.08", 580),
        ("12.8", "525.60.13", None),
        ("12.8", "520.61.05", 525),
        ("11.8", "470.1", None),
        ("99.0", "100.1", None),
        ("", "570.1", None),
        ("13.0", "", None),
    ],
)
def test_a_cuda_needs_the_first_branch_that_runs_it(cuda, driver, minimum):
    problem = driver_problem(cuda, driver)
    assert (
        problem is None if minimum is None else f"branch {minimum} or newer, and this one is {driver}" in str(problem)
    )


# --- the module -----------------------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(gpu_stack_info, "ROOT", tmp_path)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def program(host: Path, name: str, script: str) -> None:
    write(host / "bin" / name, f"#!/bin/sh\n{script}\n")
    (host / "bin" / name).chmod(0o755)


def look(**options: Any) -> dict[str, Any]:
    return module_runner.run(gpu_stack_info, **options)


def test_a_bare_host_has_nothing_and_no_check(host):
    found = look(engine_cuda="13.0")
    assert found["checks"] == []
    assert found["changed"] is False


@pytest.mark.parametrize("check_mode", [False, True])
def test_everything_is_read_from_where_a_host_has_it(host, check_mode):
    write(
        host / "proc/driver/nvidia/version",
        f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {NOW}  Release\n",
    )
    for name in ("libcuda", "libnvidia-ml"):
        # Debian: a chain of links.
        write(host / f"usr/lib/x86_64-linux-gnu/nvidia/current/{name}.so.{NOW}", "")
        link = host / f"usr/lib/x86_64-linux-gnu/{name}.so.1"
        link.symlink_to(f"nvidia/current/{name}.so.{NOW}")
    for kernel in (KERNEL, OTHER, "6.1.0-39-amd64"):
        (host / "lib/modules" / kernel).mkdir(parents=True)
    # One kernel has the vendor's module, one Debian's, one has none.
    program(
        host, "modinfo", f"case $* in *{KERNEL}*\\ nvidia|*{OTHER}*\\ nvidia-current) echo {NOW};; *) exit 1;; esac"
    )
    program(
        host, "nvidia-smi", f'[ "$*" = --version ] && printf "NVIDIA-SMI version  : {NOW}\\nNVML version : 580.95\\n"'
    )
    program(host, "nvidia-persistenced", f'echo "nvidia-persistenced:  version {NOW}"')
    program(host, "nv-fabricmanager", f'echo "Fabric Manager version is : {NOW}"')
    write(host / "etc/cdi/nvidia.yaml", YAML)
    write(host / "var/run/cdi/other.json", '{"kind": "vendor.com/x"}')
    write(host / f"lib/firmware/nvidia/{NOW}/gsp_ga10x.bin.xz", "")
    write(host / "lib/firmware/nvidia/gp100/acr.bin", "")
    found = look(engine_cuda="13.0", said=["gpu.driver-library"], _ansible_check_mode=check_mode)
    assert {key: value for key, value in found["stack"].items() if key != "kernel"} == {
        "loaded": NOW,
        "loaded_open": True,
        "modules": {KERNEL: NOW, OTHER: NOW},
        "libraries": {"libcuda.so.1": NOW, "libnvidia-ml.so.1": NOW},
        "tools": {"nvidia-smi": NOW, "nvidia-persistenced": NOW},
        "fabric_manager": NOW,
        "cdi": [{"path": "/etc/cdi/nvidia.yaml", "versions": [NOW]}],
        "firmware": [NOW],
        "engine_cuda": "13.0",
    }
    assert [check["id"] for check in found["checks"]] == [
        name for name in IDS if name not in ("gpu.driver-library", "gpu_stack.module-loaded")
    ]
    assert all(check["ok"] for check in found["checks"])


def test_a_tool_that_does_not_answer_is_not_waited_for(host, monkeypatch):
    monkeypatch.setattr(gpu_stack_info, "SECONDS", 0.2)
    program(host, "nvidia-smi", "exec /bin/sleep 60")
    assert look()["stack"]["tools"] == {}
