"""The CUDA toolkit: which one fits the engine and the driver, and what of it a host lacks."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.filter.cuda import cuda_toolkit_problems
from ansible_collections.bedplate.llm.plugins.module_utils import cuda_toolkit as toolkit
from ansible_collections.bedplate.llm.plugins.module_utils.cuda_toolkit import Found, Wanted
from ansible_collections.bedplate.llm.plugins.module_utils.package_manager import parse_locks
from ansible_collections.bedplate.llm.plugins.modules import cuda_toolkit as module

SETTINGS: dict[str, Any] = {
    "version": "13.0",
    "engine_cuda": "13.0",
    "packages": ["cuda-nvcc"],
    "source": "mirror",
    "runtime": "",
    "repository": {"url": "https://mirror.invalid/", "key": "x"},
}
WANTED = Wanted("13.0", ("cuda-nvcc", "cuda-cudart-dev"))
NAMES = ("cuda-nvcc-13-0", "cuda-cudart-dev-13-0")
WHOLE = Found("apt", dict.fromkeys(NAMES, "13.0.88-1"), NAMES, "13.0", "580.95.05")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"version": "13.0", "engine_cuda": "13.1"}, []),
        ({"source": "none", "runtime": "container", "engine_cuda": "", "version": "", "repository": {}}, []),
        ({"source": "preinstalled", "repository": {}}, []),
        ({"source": "vendor", "repository": {"key": "x"}}, []),
        ({"runtime": "container"}, ["an image brings its own CUDA; set cuda_toolkit_source to none"]),
        ({"engine_cuda": ""}, ["has no CUDA"]),
        ({"engine_cuda": "", "version": ""}, ["has no CUDA", "cuda_toolkit_version is ''; give major and minor"]),
        ({"version": "12.8"}, ["is 12.8, and the engine is built for CUDA 13.0"]),
        ({"version": "13.1"}, ["is 13.1, newer than the engine's CUDA 13.0"]),
        ({"version": "13.10", "engine_cuda": "13.9"}, ["newer than the engine's"]),
        ({"version": "13"}, ["is '13'; give major and minor"]),
        ({"packages": []}, ["is empty; give at least cuda-nvcc"]),
        ({"packages": ["cuda-nvcc", "-oX"]}, ["has '-oX'"]),
        ({"repository": {"key": "x"}}, ["has no url"]),
        ({"repository": {"url": "https://mirror.invalid/"}}, ["has no key"]),
        ({"source": "vendor", "repository": {}}, ["has no key"]),
    ],
)
def test_settings_that_cannot_work_are_refused_in_a_sentence_each(changes, words):
    found = cuda_toolkit_problems({**SETTINGS, **changes})
    assert len(found) == len(words), found
    for sentence, word in zip(found, words, strict=True):
        assert word in sentence
        assert sentence.endswith(".")


def test_the_version_is_part_of_every_name():
    assert WANTED.names("apt") == list(NAMES)
    assert WANTED.names("dnf") == ["cuda-nvcc-13-0", "cuda-cudart-devel-13-0"]
    assert Wanted("12.8", ("cuda-nvcc",)).home == "/usr/local/cuda-12.8"


@pytest.mark.parametrize(
    ("found", "missing", "loose", "failing"),
    [
        (WHOLE, [], [], []),
        (Found("apt", {}, ()), list(NAMES), list(NAMES), ["packages", "held", "compiler"]),
        (Found("apt", {NAMES[0]: "1"}, NAMES, "13.0"), [NAMES[1]], [], ["packages"]),
        (Found("apt", WHOLE.installed, NAMES[:1], "13.0"), [], [NAMES[1]], ["held"]),
        # Another version beside it is nobody's business; another one in its place is.
        (Found("apt", {**WHOLE.installed, "cuda-nvcc-12-8": "12.8.1-1"}, NAMES, "13.0"), [], [], []),
        (Found("apt", WHOLE.installed, NAMES, "13.1"), [], [], ["compiler"]),
        (Found("apt", WHOLE.installed, NAMES, ""), [], [], ["compiler"]),
    ],
)
def test_what_a_host_lacks_is_installed_and_held_and_else_a_failing_check(found, missing, loose, failing):
    assert (toolkit.missing(WANTED, found), toolkit.loose(WANTED, found)) == (missing, loose)
    bad = [check for check in toolkit.checks(WANTED, found) if not check.ok]
    assert [check.id for check in bad] == [f"cuda_toolkit.{name}" for name in failing]
    assert all(check.remedy for check in bad)


def test_packages_that_need_not_be_held_are_not():
    assert toolkit.loose(Wanted("13.0", ("cuda-nvcc",), hold=False), Found("apt", {}, ())) == []


@pytest.mark.parametrize(
    ("driver", "refused"), [("570.172.08", True), ("580.65.06", False), ("590.48.01", False), ("", False)]
)
def test_a_driver_that_is_too_old_for_it_is_named(driver, refused):
    said = toolkit.refusal(WANTED, Found("apt", {}, (), driver=driver))
    assert bool(said) is refused
    if said:
        assert "CUDA 13.0 needs a driver of branch 580 or newer, and this one is 570.172.08" in said


def test_what_the_tools_print_is_read():
    nvcc = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 13.0, V13.0.88\n"
    assert (toolkit.parse_nvcc(nvcc), toolkit.parse_nvcc("")) == ("13.0", "")
    states = {
        "a": "install ok installed",
        "b": "deinstall ok config-files",
        "c": "hold ok installed",
        "d": "x ok unpacked",
    }
    dpkg = "".join(f"{name}\t{state}\t{name}-1\n" for name, state in states.items())
    assert toolkit.parse_dpkg(dpkg) == {"a": "a-1", "c": "c-1"}
    assert toolkit.parse_rpm("a\t1-1\npackage b is not installed\n") == {"a": "1-1"}
    locks = "cuda-nvcc-13-0-0:13.0.88-1.*\n# comment\ncuda-cudart-devel-13-0-0:13.0.96-1.*\n"
    assert parse_locks(locks) == ("cuda-nvcc-13-0", "cuda-cudart-devel-13-0")


def test_an_installation_removes_nothing_and_waits_for_others():
    argv = module.install_argv("apt", ["x"], False, 60)
    assert {"--no-remove", "--no-install-recommends", "-oDPkg::Lock::Timeout=60"} <= set(argv)
    assert "--download-only" not in argv
    assert "--download-only" in module.install_argv("apt", ["x"], True, 60)
    assert "--downloadonly" in module.install_argv("dnf", ["x"], True, 60)
