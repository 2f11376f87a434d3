"""The toolkit from the scenario's mirror: packages of NVIDIA's names, with a stand-in for the compiler."""

from __future__ import annotations

from conftest import LAB, SCENARIO

LIBRARY = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so"


def test_it_lies_beside_others_and_on_nobodys_path(host):
    assert "release 13.0" in host.check_output("/usr/local/cuda-13.0/bin/nvcc --version")
    assert not host.file("/usr/local/cuda").exists
    assert host.run("command -v nvcc").rc != 0
    assert host.run("bash -lc 'command -v nvcc'").rc != 0


def test_no_upgrade_moves_it(host):
    held = set(host.check_output("apt-mark showhold").split())
    assert held == {
        *("cuda-nvcc-13-0", "cuda-cudart-dev-13-0", "cuda-nvrtc-dev-13-0"),
        *("libcublas-dev-13-0", "libcurand-dev-13-0"),
    }


def test_a_toolkit_that_does_not_fit_the_engine_is_refused(refused):
    said = refused({"toolkit": True, "cuda_toolkit_version": "12.8"})
    assert "cuda_toolkit_version is 12.8, and the engine is built for CUDA 13.0" in said


def test_a_toolkit_that_the_driver_is_too_old_for_is_refused(host, refused):
    host.check_output(f"sudo touch {LIBRARY}.570.172.08 && sudo ln -s libnvidia-ml.so.570.172.08 {LIBRARY}.1")
    try:
        said = refused({"toolkit": True})
    finally:
        host.check_output(f"sudo rm {LIBRARY}.570.172.08 {LIBRARY}.1")
    assert "CUDA 13.0 needs a driver of branch 580 or newer, and this one is 570.172.08" in said
    assert "Nothing was changed" in said


def test_a_package_that_went_missing_is_brought_back_and_held(host):
    host.check_output("sudo apt-get remove -y --allow-change-held-packages libcurand-dev-13-0")
    done = LAB.play(str(SCENARIO / "converge.yml"), {})
    assert done.returncode == 0, done.stdout[-4000:]
    assert host.package("libcurand-dev-13-0").is_installed
    assert "libcurand-dev-13-0" in host.check_output("apt-mark showhold")
