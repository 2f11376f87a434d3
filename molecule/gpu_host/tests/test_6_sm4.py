"""SM4 for every kernel of a machine, and for the one that an upgrade brings.

On the machine that test_4 took the driver from: two kernels with headers are left there, and DKMS.  That such a module
encrypts, and what, is proved on a virtual machine: molecule/volumes.
"""

from __future__ import annotations

import pytest
from conftest import LOOK, sm4
from scenario import changed, said

KERNELS = ("6.1.0-50-amd64", "6.1.0-50-cloud-amd64")
REASONS = "/run/bedplate/reboot.d/sm4_module"
INSTALL = "sudo env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends"


def provided(host, kernel: str) -> str:
    """The files that this kernel would load when somebody asks it for SM4, as modprobe itself says."""
    return host.run(f"/sbin/modprobe --dry-run --show-depends --set-version {kernel} crypto-sm4").stdout


@pytest.fixture(scope="module")
def built(host):
    assert provided(host, KERNELS[0]) == ""
    done = sm4("gpu1")
    assert changed(done) > 0
    return done


def test_every_kernel_that_could_boot_finds_sm4_signed_and_of_its_own_version(host, built):
    for kernel in KERNELS:
        assert f"/lib/modules/{kernel}/updates/dkms/sm4_generic.ko" in provided(host, kernel)
        fields = host.check_output(f"/sbin/modinfo -k {kernel} sm4_generic")
        assert f"vermagic:       {kernel} " in fields
        assert "signer:         DKMS module signing key" in fields


def test_the_source_is_the_distributions_own_to_the_byte(host, built):
    version = host.check_output("dpkg-query --show --showformat='${source:Upstream-Version}' linux-source-6.1")
    names = ("sm4.c", "sm4_generic.c")
    members = " ".join(f"linux-source-6.1/crypto/{name}" for name in names)
    ours = " ".join(f"/usr/src/bedplate-sm4-6.1-{version}/{name}" for name in names)
    packed = f"tar -xOf /usr/src/linux-source-6.1.tar.xz --occurrence=1 {members}"
    assert host.check_output(f"{packed} | sha256sum") == host.check_output(f"cat {ours} | sha256sum")


def test_it_is_loaded_at_boot_and_a_restart_is_asked_for_with_its_reason(host, built):
    assert "sm4_generic" in host.file("/etc/modules-load.d/bedplate-sm4.conf").content_string
    assert "has no SM4, and every kernel that can boot next has it" in host.file(REASONS).content_string


def test_the_next_run_changes_nothing(host, built):
    before = host.check_output(LOOK)
    assert changed(sm4("gpu1")) == 0
    assert host.check_output(LOOK) == before


@pytest.fixture(scope="module")
def later(host, built) -> str:
    """The kernel of the day, as an upgrade brings it with its headers."""
    host.check_output(f"{INSTALL} linux-image-cloud-amd64 linux-headers-cloud-amd64")
    images = host.check_output("ls /boot | sed -n s/^vmlinuz-//p").split()
    (release,) = set(images) - set(KERNELS)
    return str(release)


def test_a_kernel_that_an_upgrade_brings_gets_it_by_itself(host, later):
    assert f"/lib/modules/{later}/updates/dkms/sm4_generic.ko" in provided(host, later)


@pytest.fixture(scope="module")
def without(host, later) -> str:
    """As when the headers came later than the kernel, and DKMS passed over it in silence."""
    version = host.check_output("ls /var/lib/dkms/bedplate-sm4-6.1 | grep ^6")
    host.check_output(f"sudo dkms unbuild bedplate-sm4-6.1/{version} -k {later}")
    assert provided(host, later) == ""
    return later


def test_a_kernel_that_it_cannot_be_built_for_ends_the_run_by_its_name(host, without):
    """Nobody is told to restart into it, though it was said before that kernel came."""
    assert host.file(REASONS).exists
    makefile = f"/usr/src/linux-headers-{without}/Makefile"
    host.check_output(f"sudo mv {makefile} {makefile}.away && printf 'all:\\n\\tfalse\\n' | sudo tee {makefile}")
    done = sm4("gpu1")
    host.check_output(f"sudo mv {makefile}.away {makefile}")
    assert done.returncode != 0
    assert f"building SM4 for kernel {without}" in said(done)
    assert "nothing was loaded" in said(done)
    assert provided(host, without) == ""
    assert not host.file(REASONS).exists


def test_a_kernel_without_it_is_found_and_the_role_gives_it_one(host, without):
    found = host.ansible("bedplate.llm.sm4_module_info", "", become=True, check=False)
    failing = {check["id"]: check["reason"] for check in found["checks"] if not check["ok"]}
    assert f"stays locked there: {without}." in failing["sm4_module.module-every-kernel"]
    assert found["reboot_reasons"] == []
    assert changed(sm4("gpu1")) > 0
    assert "updates/dkms/sm4_generic.ko" in provided(host, without)
    assert host.file(REASONS).exists
