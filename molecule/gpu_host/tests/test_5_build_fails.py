"""A kernel for which the module does not compile: the run says which one, and nobody is told to restart the host.

On the machine that was a virgin until here. Its own kernel goes first, so that only the broken one has to be tried.
"""

from __future__ import annotations

import pytest
from conftest import driver, failing, info
from scenario import said

KERNEL, BROKEN = "6.1.0-50-cloud-amd64", "6.9.9-broken"
# Headers that are there, and with which nothing can be built.
PLANT = f"""
set -e
DEBIAN_FRONTEND=noninteractive apt-get purge --yes linux-image-{KERNEL} >/dev/null
mkdir -p /lib/modules/{BROKEN}/build/include
printf 'all modules:\\n\\t@echo no such kernel; exit 1\\n' >/lib/modules/{BROKEN}/build/Makefile
touch /boot/vmlinuz-{BROKEN}
"""


@pytest.fixture(scope="module")
def attempt(virgin):
    virgin.check_output("sudo sh -c %s", PLANT)
    return driver("spare1")


def test_the_run_ends_with_the_name_of_the_kernel(attempt):
    assert attempt.returncode != 0
    assert f"cannot be built for kernel {BROKEN}" in said(attempt)
    assert "Do not restart this host" in said(attempt)


def test_nobody_is_told_to_restart_it(attempt, virgin):
    assert not virgin.file("/run/bedplate/reboot.d/nvidia_driver").exists
    found = info(virgin, source="distribution", version="535.261.03")
    assert found["kernels_without_module"] == [BROKEN]
    assert found["reboot_reasons"] == []
    assert {"module-every-kernel", "one-version", "packages"} <= failing(found)


def test_what_was_installed_is_held_all_the_same(attempt, virgin):
    assert {"nvidia-open-kernel-dkms", "libcuda1"} <= set(virgin.check_output("apt-mark showhold").split())


def test_a_kernel_that_dkms_passes_over_in_silence_is_found_too(attempt, virgin):
    """Without all of its headers DKMS skips a kernel and reports success."""
    virgin.check_output(f"sudo rmdir /lib/modules/{BROKEN}/build/include")
    again = driver("spare1")
    assert again.returncode != 0
    assert f"cannot be built for kernel {BROKEN}" in said(again)
    assert "kernel headers" in said(again)
    assert not virgin.file("/run/bedplate/reboot.d/nvidia_driver").exists


def test_half_a_driver_can_be_removed(attempt, virgin):
    done = driver("spare1", entry="remove")
    assert done.returncode == 0, said(done)[-3000:]
    assert virgin.run("dpkg --list nvidia-open-kernel-dkms").rc != 0
