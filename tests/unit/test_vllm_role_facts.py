"""What the vllm role says of a device, in expressions of its own: requirements, space and environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.filter.core import FilterModule
from ansible_collections.bedplate.llm.plugins.filter.cuda import FilterModule as Cuda
from jinja2.nativetypes import NativeEnvironment

ROLE = Path(__file__).parents[2] / "roles/vllm"
FACTS: dict[str, Any] = yaml.safe_load((ROLE / "vars/main.yml").read_text())


def resolve(expression: str, **known: Any) -> Any:
    """An expression of the role, with those of the role's facts that it names."""
    environment = NativeEnvironment()
    environment.filters.update(FilterModule().filters())
    environment.filters.update({f"bedplate.llm.{name}": function for name, function in Cuda().filters().items()})
    for name in ("__vllm_common_environment", "__vllm_device_environment", "__vllm_libraries_of"):
        known.setdefault(name, FACTS[name])
    return environment.from_string(expression).render(**known)


def install_task(name: str) -> dict[str, Any]:
    block = next(task["block"] for task in yaml.safe_load((ROLE / "tasks/install.yml").read_text()) if "block" in task)
    found: dict[str, Any] = next(task for task in block if task["name"].startswith(name))
    return found


@pytest.mark.parametrize(
    ("device", "eager", "compiles"),
    [("cuda", False, True), ("cuda", True, True), ("cpu", False, True), ("cpu", True, False)],
)
def test_a_compiler_is_needed_on_a_gpu_also_without_compiled_graphs(device: str, eager: bool, compiles: bool) -> None:
    assert resolve(FACTS["__vllm_compiles"], __vllm_device=device, __vllm_enforce_eager=eager) is compiles


@pytest.mark.parametrize(
    ("device", "end"),
    [
        ("cuda", "install the packages gcc and python3.12-dev."),
        ("cpu", "install the packages gcc and python3.12-dev, or set vllm_enforce_eager to true and do without."),
    ],
)
def test_going_without_a_compiler_is_offered_only_where_it_helps(device: str, end: str) -> None:
    task = install_task("Require a compiler")
    way_out = resolve(task["vars"]["__vllm_or_do_without"], __vllm_device=device)
    message = task["ansible.builtin.assert"]["fail_msg"]
    said = resolve(message, __vllm_or_do_without=way_out, __vllm_engine={"target": {"python": "3.12"}})
    assert said.endswith(end)


@pytest.mark.parametrize(
    ("device", "libraries"),
    [("cuda", {"libcuda.so.1", "libnvidia-ml.so.1"}), ("cpu", {"libnuma.so.1"})],
)
def test_each_device_has_its_libraries_of_the_host(device: str, libraries: set[str]) -> None:
    assert set(resolve(FACTS["__vllm_libraries"], __vllm_device=device)) == libraries


@pytest.mark.parametrize(("device", "sizes"), [("cuda", 4), ("cpu", 6)])
def test_space_is_asked_for_in_sizes_of_the_wheels(device: str, sizes: int) -> None:
    expression = install_task("Require space")["vars"]["__vllm_bytes_needed"]
    factor = resolve(FACTS["__vllm_space_factor"], __vllm_device=device)
    wheels = {"artefacts": [{"size": 100}, {"size": 20}]}
    assert resolve(expression, __vllm_space_factor=factor, __vllm_engine=wheels) == sizes * 120


def test_a_gpu_host_needs_no_cuda_toolkit() -> None:
    expression = FACTS["__vllm_owned_environment"]
    on_gpu = resolve(expression, __vllm_device="cuda")
    assert on_gpu.pop("VLLM_USE_FLASHINFER_SAMPLER") == "0"
    assert on_gpu == resolve(expression, __vllm_device="cpu") == FACTS["__vllm_common_environment"]


@pytest.mark.parametrize(
    ("device", "site", "home"),
    [
        ("cuda", {}, ""),
        ("cuda", {"cuda_toolkit_source": "none"}, ""),
        ("cuda", {"cuda_toolkit_source": "mirror"}, "/usr/local/cuda-13.0"),
        ("cuda", {"cuda_toolkit_source": "vendor", "cuda_toolkit_version": ""}, "/usr/local/cuda-13.0"),
        ("cuda", {"cuda_toolkit_source": "vendor", "cuda_toolkit_version": "13.1"}, "/usr/local/cuda-13.1"),
        ("cpu", {"cuda_toolkit_source": "vendor"}, ""),
        ("cuda", {"vllm_cuda_home": "/opt/cuda"}, "/opt/cuda"),
    ],
)
def test_only_a_site_with_a_toolkit_tells_the_engine_where_it_is(device: str, site: dict[str, str], home: str) -> None:
    engine = {"artefacts": [{"path": "wheels/nvidia_cuda_runtime-13.0.96-py3-none-any.whl"}]}
    known = {"vllm_cuda_home": "", "__vllm_device": device, "__vllm_engine": engine, **site}
    known["__vllm_toolkit_version"] = resolve(FACTS["__vllm_toolkit_version"], **known)
    found = str(resolve(FACTS["__vllm_cuda_home"], **known)).strip()
    assert found == home
    environment = resolve(
        FACTS["__vllm_owned_environment"],
        __vllm_device=device,
        __vllm_cuda_home=found,
        __vllm_toolkit_environment=FACTS["__vllm_toolkit_environment"],
    )
    assert ("CUDA_HOME" in environment, "PATH" in environment) == (bool(home), bool(home))
