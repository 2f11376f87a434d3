"""The kernel that came last, booted: on a copy of the machine of test_2, with a device that says it is an H100.

What is asserted is said by modprobe, udev, systemd and the kernel of the machine that booted.  No driver is bound to
anything: nobody can make a GPU.
"""

from __future__ import annotations

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import STATE_ROOT
from boot import boot
from conftest import LAB

KERNEL, VERSION = "6.1.0-50-amd64", "535.309.01"
H100 = "pci:v000010DEd00002330sv000010DEsd000016C1bc03sc02i00"
BLOCK = "/etc/modprobe.d/bedplate-nouveau.conf"

# The bus of the copy has QEMU's pci-testdev, which no driver wants.  udev asks for a module with what it says here.
POSE = f'SUBSYSTEM=="pci", ATTR{{vendor}}=="0x1b36", ATTR{{device}}=="0x0005", ENV{{MODALIAS}}="{H100}"\n'
FILES = {"/etc/udev/rules.d/79-pose.rules": POSE, "/etc/modules-load.d/asked.conf": "nouveau\n"}
# udev keeps the settings in mind.
COLDPLUG = "udevadm control --reload; udevadm trigger --settle --action=add --subsystem-match=pci"
LOADED = "cut -d ' ' -f 1 /proc/modules; ls -1d /sys/bus/pci/drivers/*"
DRIVES = "/sys/bus/pci/drivers/nouveau"

IN_INITRAMFS = {
    "initramfs: without settings": f"modprobe --config /none --show-depends {H100}",
    "initramfs: with the role's": (
        f"mkdir /role; cat {BLOCK} > /role/role.conf; modprobe --config /role --show-depends {H100}"
    ),
}
# The last four change the copy, one after the other.
AT_THE_END = {
    "kernel": "uname -r",
    "loaded": LOADED,
    "systemd": "journalctl --boot --output cat --unit systemd-modules-load",
    "udev": "udevadm info --query property --property MODALIAS /sys/bus/pci/devices/0000:00:01.0",
    "would load": f"modprobe --show-depends {H100}",
    "version": "modinfo --field version nvidia-current",
    "nvidia": "modprobe nvidia",
    "log": "dmesg --notime | grep -i -e nvidia -e nvrm",
    "by name": f"modprobe nouveau; {LOADED}; modprobe --remove nouveau",
    # Debian's packages have settings of their own: nouveau is blocked there, and the GPU promised to nvidia.
    "only the role's": (
        f"mv /etc/modprobe.d/*nvidia* /root/; systemctl restart systemd-modules-load; {COLDPLUG}; {LOADED};"
        f" modprobe --show-depends {H100}"
    ),
    "neither, udev": f"mv {BLOCK} /root/; {COLDPLUG}; {LOADED}; modprobe --remove nouveau",
    "neither, systemd": f"systemctl restart systemd-modules-load; {LOADED}",
}


@pytest.fixture(scope="module")
def booted() -> dict[str, str]:
    state = STATE_ROOT / str(LAB.declared("gpu1")["lab_name"]) / "machines" / "gpu1"
    return boot(state, KERNEL, IN_INITRAMFS, AT_THE_END, FILES)


def test_the_kernel_that_came_last_boots_with_its_own_initramfs(booted):
    assert booted["kernel"] == KERNEL


def test_its_initramfs_has_nouveau_and_the_block_that_keeps_it_from_the_gpu(booted):
    assert f"/lib/modules/{KERNEL}/kernel/drivers/gpu/drm/nouveau/nouveau.ko" in booted["initramfs: without settings"]
    assert booted["initramfs: with the role's"] == ""


def test_nouveau_is_not_loaded_though_systemd_and_a_gpu_asked_for_it(booted):
    assert "Module 'nouveau' is deny-listed" in booted["systemd"].splitlines()
    assert booted["udev"] == f"MODALIAS={H100}"
    assert "nouveau" not in booted["loaded"]


def test_the_gpu_is_promised_to_nvidias_module_and_to_no_other(booted):
    assert booted["would load"].splitlines() == [
        "install modprobe -i nvidia-current $CMDLINE_OPTS NVreg_EnableStreamMemOPs=1"
    ]


def test_nvidias_module_is_linked_into_the_kernel_that_booted_and_misses_only_the_gpu(booted):
    assert booted["version"] == VERSION
    assert "could not insert 'nvidia_current': No such device" in booted["nvidia"]
    assert "NVRM: No NVIDIA GPU found." in booted["log"].splitlines()


def test_whoever_loads_nouveau_by_its_name_has_one_that_drives_nothing(booted):
    found = booted["by name"].split()
    assert "nouveau" in found
    assert DRIVES not in found


def test_the_roles_block_alone_is_enough(booted):
    assert f"insmod /lib/modules/{KERNEL}/updates/dkms/nvidia-current.ko" in booted["only the role's"]
    assert "nouveau" not in booted["only the role's"]


@pytest.mark.parametrize("asking", ["udev", "systemd"])
def test_without_any_block_who_asked_for_nouveau_gets_it(booted, asking):
    """The control: all of the above can fail."""
    assert {"nouveau", DRIVES} <= set(booted[f"neither, {asking}"].split())
