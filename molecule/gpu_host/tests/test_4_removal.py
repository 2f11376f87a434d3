"""The driver goes, from the machine of test_2."""

from __future__ import annotations

from conftest import driver, installed
from scenario import changed

KERNELS = ("6.1.0-50-cloud-amd64", "6.1.0-50-amd64")


def test_removal_takes_away_all_of_it_and_nothing_else(host):
    assert changed(driver("gpu1", {}, entry="remove")) > 0
    assert not [name for name in installed(host) if name.startswith(("nvidia-", "libnvidia-", "libcuda1"))]
    files = host.check_output("sudo find /etc /run/bedplate -name '*bedplate*'")
    assert not [path for path in files.split() if "nvidia" in path or "nouveau" in path]
    for kernel in KERNELS:
        assert host.file(f"/boot/vmlinuz-{kernel}").exists
        assert host.run(f"/sbin/modinfo -k {kernel} nvidia-current").rc != 0
        assert "nouveau.conf" not in host.check_output(f"lsinitramfs /boot/initrd.img-{kernel}")
    assert changed(driver("gpu1", {}, entry="remove")) == 0
