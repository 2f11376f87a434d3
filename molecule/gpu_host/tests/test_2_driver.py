"""The driver that converge.yml brought, its upgrade, and a kernel that comes later, in this order.

What is asserted is asked of modinfo, apt and dpkg themselves, not of our module.
"""

from __future__ import annotations

import pytest
from conftest import LOOK, driver, failing, info, installed
from scenario import changed, said

OPEN, UPGRADE = "535.261.03", "535.309.01"
KERNEL, LATER = "6.1.0-50-cloud-amd64", "6.1.0-50-amd64"
# Debian 12's newer release has no open module; an H100 works with either.
UPGRADED = {
    "nvidia_driver_version": UPGRADE,
    "nvidia_driver_kernel_module": "proprietary",
    "nvidia_driver_module_parameters": {"NVreg_EnableStreamMemOPs": 1},
}
REASONS = "/run/bedplate/reboot.d/nvidia_driver"
# Debian's initramfs has no graphics of its own; with a splash screen it has.
SPLASH = """\
#!/bin/sh
[ "$1" = prereqs ] && exit
. /usr/share/initramfs-tools/hook-functions
manual_add_modules nouveau
"""
HOOK = "/etc/initramfs-tools/hooks/splash"


def modinfo(host, kernel: str, field: str, name: str) -> str:
    return host.check_output(f"/sbin/modinfo -k {kernel} -F {field} {name}")


def held(host) -> set[str]:
    return set(host.check_output("apt-mark showhold").split())


def versions(host) -> dict[str, str]:
    """The driver's packages; those that have versions of their own are left out."""
    ours = (
        "libcuda1",
        "libnvidia-",
        "nvidia-smi",
        "nvidia-kernel-dkms",
        "nvidia-open-kernel-dkms",
        "nvidia-alternative",
    )
    return {name: version for name, version in installed(host).items() if name.startswith(ours)}


def test_the_module_for_the_kernel_that_boots_next_is_the_open_one_of_that_version(host):
    assert modinfo(host, KERNEL, "version", "nvidia-current-open") == OPEN
    assert modinfo(host, KERNEL, "license", "nvidia-current-open") == "Dual MIT/GPL"
    assert modinfo(host, KERNEL, "vermagic", "nvidia-current-open").startswith(KERNEL)
    assert host.run(f"/sbin/modprobe --dry-run --show-depends --set-version {KERNEL} nvidia").rc == 0


def test_every_part_has_that_version_and_is_held(host):
    found = versions(host)
    assert {"libcuda1", "nvidia-smi", "nvidia-open-kernel-dkms", "libnvidia-ml1"} <= set(found)
    assert {version.partition("-")[0] for version in found.values()} == {OPEN}
    assert set(found) <= held(host)


def test_no_upgrade_of_the_system_would_move_it_held_or_not(host):
    """The source offers a newer version: the pin keeps it away as well."""
    assert f"Candidate: {OPEN}-1" in host.check_output("apt-cache policy nvidia-smi")
    assert f"{UPGRADE}-0+deb12u1" in host.check_output("apt-cache policy nvidia-smi")
    assert "nvidia" not in host.check_output("apt-get --simulate dist-upgrade | grep ^Inst || true")
    assert '"nvidia"' in host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")


def test_nouveau_is_kept_away_in_the_initramfs_too(host):
    assert "blacklist nouveau" in host.check_output("/sbin/modprobe --showconfig")
    listing = host.check_output(f"lsinitramfs /boot/initrd.img-{KERNEL}")
    assert "etc/modprobe.d/bedplate-nouveau.conf" in listing


def test_a_restart_is_asked_for_with_its_reason_and_all_else_holds(host):
    assert "has no NVIDIA module" in host.file(REASONS).content_string
    found = info(host, source="distribution", version=OPEN)
    assert found["next_step"] == "Restart the host."
    assert failing(found) == {"loaded"}


@pytest.fixture
def engine(host):
    """A service that uses the GPU through the driver."""
    host.check_output("sudo touch /dev/nvidia0")
    host.check_output("sudo systemd-run --quiet --collect --unit engine bash -c 'exec 3</dev/nvidia0; exec sleep 3600'")
    process = host.check_output("systemctl show --value --property MainPID engine")
    yield process
    host.check_output("sudo systemctl stop engine; sudo rm /dev/nvidia0")


def test_a_new_version_is_staged_below_an_engine_and_installed_only_without_it(host, engine):
    packages = host.check_output("dpkg --list")
    assert changed(driver("gpu1", UPGRADED, entry="stage")) > 0
    assert host.check_output("ls /var/cache/apt/archives | grep nvidia-kernel-dkms") != ""
    assert host.check_output("dpkg --list") == packages
    before = host.check_output(LOOK)
    done = driver("gpu1", UPGRADED)
    assert done.returncode != 0
    assert f"(process {engine} of engine.service); stop it with `systemctl stop engine.service`" in said(done)
    assert host.check_output(LOOK) == before
    assert host.check_output("systemctl show --value --property MainPID engine") == engine


def test_an_upgrade_moves_everything_in_one_transaction_and_holds_it_again(host):
    done = driver("gpu1", UPGRADED)
    assert changed(done) > 0
    assert {version.partition("-")[0] for version in versions(host).values()} == {UPGRADE}
    assert modinfo(host, KERNEL, "version", "nvidia-current") == UPGRADE
    assert modinfo(host, KERNEL, "license", "nvidia-current") == "NVIDIA"
    assert host.run(f"/sbin/modinfo -k {KERNEL} nvidia-current-open").rc != 0
    assert set(versions(host)) <= held(host)
    assert failing(info(host, source="distribution", version=UPGRADE, kernel_module="proprietary")) == {"loaded"}
    assert "NVreg_EnableStreamMemOPs=1" in host.check_output(
        "/sbin/modprobe --showconfig | grep '^options nvidia_current '"
    )


def test_the_run_after_an_upgrade_changes_nothing(host):
    before = host.check_output(LOOK)
    assert changed(driver("gpu1", UPGRADED)) == 0
    assert host.check_output(LOOK) == before


@pytest.fixture(scope="module")
def later_kernel(host):
    """An upgrade of the system brings a kernel, and nobody thinks of its headers.  Its initramfs has nouveau."""
    host.check_output("printf %%s %s | sudo tee %s && sudo chmod 755 %s", SPLASH, HOOK, HOOK)
    host.check_output(
        f"sudo env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends linux-image-{LATER}"
    )


def test_a_kernel_without_the_module_is_found_and_no_restart_is_offered(host, later_kernel):
    found = info(host, source="distribution", version=UPGRADE, kernel_module="proprietary")
    assert found["kernels_without_module"] == [LATER]
    assert found["reboot_reasons"] == []
    assert "module-every-kernel" in failing(found)
    assert found["next_step"].startswith("Install driver")


def test_the_role_gives_it_headers_and_a_module_and_holds_the_kernels_when_asked(host, later_kernel):
    assert changed(driver("gpu1", {**UPGRADED, "nvidia_driver_hold_kernel": True})) > 0
    for kernel in (KERNEL, LATER):
        assert modinfo(host, kernel, "version", "nvidia-current") == UPGRADE
        assert f"linux-image-{kernel}" in held(host)
        assert "bedplate-nouveau.conf" in host.check_output(f"lsinitramfs /boot/initrd.img-{kernel}")
    assert host.file(REASONS).exists
