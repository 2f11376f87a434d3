"""On a machine that was never touched: check mode tells all of it, refusals say why, and nothing changes."""

from __future__ import annotations

import pytest
from conftest import H100, LOOK, V100, driver, fitted, info, sm4
from scenario import said

VERSION, KERNEL = "535.261.03", "6.1.0-50-cloud-amd64"
SECURE_BOOT = "efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@pytest.fixture(autouse=True)
def _nothing_changes(virgin):
    before = virgin.check_output(LOOK)
    yield
    assert virgin.check_output(LOOK) == before


def refused(variables, entry="main") -> str:
    done = driver("spare1", variables, entry=entry)
    words = said(done)
    assert done.returncode != 0, words
    return words


def test_check_mode_says_what_would_be_installed():
    done = driver("spare1", {}, "--check", "--diff")
    assert done.returncode == 0, said(done)
    for line in (
        f"+nvidia-open-kernel-dkms {VERSION}-1",
        "+linux-headers-6.1.0-50-cloud-amd64",
        "+blacklist nouveau",
        "+Components: contrib non-free non-free-firmware",
        f"+Pin: version {VERSION}-*",
    ):
        assert line in done.stdout, done.stdout


def test_without_a_version_it_names_those_that_are_offered_as_a_whole():
    words = refused({"nvidia_driver_version": ""})
    assert (
        f"nvidia_driver_version is not set: the source distribution, with the open kernel module, offers {VERSION}"
        in words
    )


def test_a_version_whose_open_module_does_not_exist_is_refused_with_what_there_is():
    """So it is in Debian 12: the security update has everything but the open module."""
    words = refused({"nvidia_driver_version": "535.309.01"})
    assert f"does not have it of nvidia-open-kernel-dkms (only {VERSION})" in words


def test_a_module_that_cannot_drive_the_gpu_is_refused(virgin):
    with fitted(virgin, V100):
        words = refused({"nvidia_driver_kernel_module": "open"})
    assert "nvidia_driver_kernel_module is open, and V100 works with the proprietary kernel module only" in words


def test_a_gpu_that_nobody_knows_is_not_guessed_at(virgin):
    with fitted(virgin, "0x9999"):
        assert "does not know device 9999" in refused({})
    assert virgin.check_output("cat /sys/bus/pci/devices/*/device") == H100


@pytest.fixture
def kernel_from_elsewhere(virgin):
    """An image in /boot whose headers nobody has."""
    virgin.check_output("sudo touch /boot/vmlinuz-6.9.9-elsewhere")
    yield
    virgin.check_output("sudo rm /boot/vmlinuz-6.9.9-elsewhere")


def test_a_kernel_whose_headers_nobody_has_is_found_before_anything_changes(kernel_from_elsewhere):
    words = refused({})
    assert "Kernel 6.9.9-elsewhere could boot next, has no headers" in words
    assert "no linux-headers-6.9.9-elsewhere" in words


# Nobody can make a folder in sysfs, and this computer may have no such firmware: the real /sys, with that folder in it.
FIRMWARE = f"""
set -e
mkdir -p /srv/sys/firmware/efi/efivars
printf '\\006\\000\\000\\000\\001' > /srv/sys/firmware/{SECURE_BOOT}
for real in /sys/*; do
    mkdir -p /srv/sys/${{real##*/}}
    [ $real = /sys/firmware ] || mount --rbind --make-rprivate $real /srv/sys/${{real##*/}}
done
mount --rbind --make-rprivate /srv/sys /sys
"""
NO_FIRMWARE = """
umount --lazy /sys
for real in /srv/sys/*; do if mountpoint --quiet $real; then umount --lazy $real; fi; done
"""


@pytest.fixture
def secure_boot(virgin):
    """The firmware's variable, where a kernel shows it."""
    virgin.check_output("sudo sh -c %s", FIRMWARE)
    yield
    virgin.check_output("sudo sh -c %s", NO_FIRMWARE)


def test_secure_boot_is_found_first_and_the_next_step_is_told(secure_boot):
    words = refused({})
    assert "Secure Boot is on" in words
    assert "mokutil --import" in words
    assert "The driver that runs now was left alone" in words


def refused_sm4() -> str:
    done = sm4("spare1")
    assert done.returncode != 0, said(done)
    return said(done)


def test_check_mode_says_what_sm4_takes():
    done = sm4("spare1", "--check", "--diff")
    assert done.returncode == 0, said(done)
    for line in (
        "+dkms",
        "+linux-source-6.1",
        f"+linux-headers-{KERNEL}",
        f"-kernel {KERNEL} SM4 none",
        "+sm4_generic",
    ):
        assert line in done.stdout, done.stdout


def test_sm4_is_not_begun_where_one_kernel_could_not_have_it(kernel_from_elsewhere):
    words = refused_sm4()
    assert "Nothing was changed on spare1" in words
    assert "Kernel 6.9.9-elsewhere could boot next, has no headers" in words
    assert "have no linux-source-6.9" in words


def test_sm4_is_not_begun_where_the_firmware_would_refuse_it(secure_boot):
    words = refused_sm4()
    assert "Secure Boot is on, and it would refuse a module that is built on this host" in words
    assert "mokutil --import /var/lib/dkms/mok.pub" in words


@pytest.fixture
def user_of_the_gpu(virgin):
    """A service that has the driver's device open."""
    virgin.check_output("sudo touch /dev/nvidia0")
    virgin.check_output(
        "sudo systemd-run --quiet --collect --unit engine bash -c 'exec 3</dev/nvidia0; exec sleep 600'"
    )
    yield "engine.service"
    assert virgin.check_output("systemctl is-active engine") == "active"
    virgin.check_output("sudo systemctl stop engine; sudo rm /dev/nvidia0")


def test_who_uses_the_gpu_is_named_and_left_alone(virgin, user_of_the_gpu):
    assert "engine.service" in info(virgin)["users"][0]
    words = refused({})
    assert f"of {user_of_the_gpu}); stop it with `systemctl stop {user_of_the_gpu}`" in words


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"nvidia_driver_version": "535.261.03-1"}, ["nvidia_driver_version", "535.261.03-1"]),
        ({"nvidia_driver_source": "mirror"}, ["nvidia_driver_repository", "url, key, fingerprint"]),
        ({"nvidia_driver_module_parameters": {"a b": 1}}, ["nvidia_driver_module_parameters", "a b=1"]),
    ],
)
def test_a_wrong_variable_is_named_with_its_value(variables, words):
    output = refused(variables, entry="validate")
    for word in words:
        assert word in output
