"""Which toolkit may be used, and when the description of a host's GPUs is of this driver and these GPUs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import container_toolkit as toolkit
from ansible_collections.bedplate.llm.plugins.module_utils.container_toolkit import Gpus, Seen, Spec
from ansible_collections.bedplate.llm.plugins.module_utils.container_toolkit_look import gpus_of, specs

# Shortened from what nvidia-ctk 1.17 writes.
YAML = """\
---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  hooks:
  - args:
    - nvidia-cdi-hook
    - create-symlinks
    - --link
    - libcuda.so.580.95.05::/usr/lib/x86_64-linux-gnu/libcuda.so
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05
    hostPath: /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: "0"
kind: nvidia.com/gpu
"""
LISTED = """\
INFO[0000] Found 5 CDI devices
nvidia.com/gpu=0
nvidia.com/gpu=1
nvidia.com/gpu=GPU-aa
nvidia.com/gpu=GPU-bb
nvidia.com/gpu=all
"""
GPUS = Gpus("580.95.05", ("GPU-aa", "GPU-bb"))
GOOD = Seen(
    engine="podman 4.3.1",
    toolkit="1.19.1",
    specs=(Spec("/run/cdi/nvidia.yaml", ("580.95.05",)),),
    devices=toolkit.parse_devices(LISTED),
    watches=True,
)


def failing(seen: Seen, gpus: Gpus = GPUS) -> dict[str, str]:
    return {check.id.partition(".")[2]: check.reason for check in toolkit.evaluate(seen, gpus) if not check.ok}


@pytest.mark.parametrize("version", ["1.19.1", "1.19.1-1", "1.20.0", "2.0.0-1"])
def test_a_version_at_or_above_the_floor_may_be_used(version: str) -> None:
    assert toolkit.version_problem(version, "it") == ""


@pytest.mark.parametrize(
    ("version", "said", "not_said"),
    [
        ("1.19.0", "CVE-2026-24260", "CVE-2025-23266"),
        ("1.19.1~rc.2", "CVE-2026-24260", "CVE-2025-23266"),
        ("1.17.7-1", "CVE-2025-23266", "CVE-2025-23359"),
        ("1.16.1", "CVE-2024-0132", "none"),
        ("latest", "is not a version of the toolkit", "CVE"),
        ("", "is not a version of the toolkit", "CVE"),
    ],
)
def test_an_older_one_is_refused_with_its_faults(version: str, said: str, not_said: str) -> None:
    problem = toolkit.version_problem(version, "container_toolkit_version")
    assert problem.startswith("container_toolkit_version is")
    assert said in problem
    assert not_said not in problem
    assert problem.endswith(".")


def test_the_floor_is_the_newest_fix() -> None:
    assert max(toolkit.FIXES, key=lambda fix: toolkit.version_key(fix.version)).version == toolkit.FLOOR


def test_the_tools_words_are_read() -> None:
    said = "NVIDIA Container Toolkit CLI version 1.19.1\ncommit: abc\n"
    assert toolkit.parse_version(said) == "1.19.1"
    assert GOOD.devices == ("0", "1", "GPU-aa", "GPU-bb", "all")
    assert toolkit.library_versions(YAML) == ("580.95.05",)


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        (YAML, True),
        ('{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": []}', True),
        ("kind: management.nvidia.com/gpu\n", False),
        ("kind: nvidia.com/gpu-more\n", False),
        ('{"kind": "vendor.com/device"}', False),
    ],
)
def test_a_description_of_gpus_is_known_by_its_kind(text: str, ours: bool) -> None:
    assert toolkit.is_spec(text) is ours


def test_a_host_that_is_right_has_no_failing_check() -> None:
    assert failing(GOOD) == {}
    assert toolkit.decide(GOOD, GPUS, needs_reload=False, enabled=True, active=True) == []


@pytest.mark.parametrize(
    ("seen", "gpus", "check", "said"),
    [
        (GOOD, replace(GPUS, driver="580.126.20"), "cdi-driver", "driver 580.95.05, loaded is 580.126.20"),
        (replace(GOOD, specs=()), GPUS, "cdi-driver", "libraries of driver none"),
        (GOOD, replace(GPUS, names=("GPU-aa", "MIG-1", "MIG-2")), "cdi-gpus", "missing MIG-1, MIG-2; not there any"),
        (GOOD, replace(GPUS, names=("GPU-aa",)), "cdi-gpus", "not there any more GPU-bb"),
        (replace(GOOD, devices=("0", "all")), GPUS, "cdi-gpus", "missing 1 more"),
        (replace(GOOD, devices=("0", "1:0", "1:1", "all")), GPUS, "cdi-gpus", "1 too many"),
        (replace(GOOD, devices=()), GPUS, "cdi-gpus", "missing 2 more"),
    ],
)
def test_a_description_of_another_driver_or_other_gpus_is_made_anew(
    seen: Seen, gpus: Gpus, check: str, said: str
) -> None:
    assert said in failing(seen, gpus)[check]
    assert "generate" in toolkit.decide(seen, gpus, needs_reload=False, enabled=True, active=True)


def test_without_a_driver_nothing_is_made_and_the_remedy_is_the_driver() -> None:
    nothing = replace(GOOD, specs=(), devices=())
    assert toolkit.decide(nothing, Gpus(), needs_reload=False, enabled=True, active=True) == []
    checks = {check.id: check for check in toolkit.evaluate(nothing, Gpus())}
    assert checks["container_toolkit.cdi-driver"].remedy == "run the role nvidia_driver first."


def test_a_second_description_by_hand_is_named() -> None:
    by_hand = Spec("/etc/cdi/nvidia.yaml", ("550.54.14",))
    seen = replace(GOOD, specs=(by_hand, *GOOD.specs))
    assert set(failing(seen)) == {"cdi-one-spec", "cdi-driver"}
    assert "/etc/cdi/nvidia.yaml, /run/cdi/nvidia.yaml" in failing(seen)["cdi-one-spec"]


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"engine_problem": "This host has no podman."}, "engine"),
        ({"toolkit": ""}, "version-floor"),
        ({"toolkit": "1.17.4"}, "version-floor"),
        ({"watches": False}, "cdi-refresh"),
    ],
)
def test_what_else_keeps_containers_from_gpus_is_a_check(change: dict[str, object], check: str) -> None:
    assert list(failing(replace(GOOD, **change))) == [check]  # type: ignore[arg-type]


def test_steps_are_taken_in_order_and_only_when_needed() -> None:
    none = replace(GOOD, specs=())
    steps = toolkit.decide(none, GPUS, needs_reload=True, enabled=False, active=False)
    assert steps == ["daemon-reload", "enable", "start", "generate"]


def test_a_split_gpu_stands_for_its_parts() -> None:
    fact = {
        "driver": {"version": "580.95.05", "module_version": None},
        "gpus": [
            {"uuid": "GPU-aa", "mig": {"enabled": False, "instances": []}},
            {"uuid": "GPU-bb", "mig": {"enabled": True, "instances": [{"uuid": "MIG-1"}, {"uuid": "MIG-2"}]}},
            {"uuid": None, "error": "is lost"},
        ],
    }
    assert gpus_of(fact) == Gpus("580.95.05", ("GPU-aa", "MIG-1", "MIG-2"))
    assert gpus_of({}) == Gpus()


def test_only_descriptions_of_gpus_are_found(tmp_path: Path) -> None:
    (tmp_path / "nvidia.yaml").write_text(YAML)
    (tmp_path / "other.json").write_text('{"kind": "vendor.com/net"}')
    (tmp_path / "nvidia.yaml.bak").write_text(YAML)
    assert specs([str(tmp_path), str(tmp_path / "none")]) == (Spec(str(tmp_path / "nvidia.yaml"), ("580.95.05",)),)
