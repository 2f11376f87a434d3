"""Platform names: the kernel's, NVIDIA's and the distribution's, and one sentence for what is not supported."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.bedplate.llm.plugins.filter.nvidia_platform import nvidia_platform
from ansible_collections.bedplate.llm.plugins.module_utils import nvidia_platform as platforms


@pytest.mark.parametrize(
    ("machine", "nvidia", "deb", "rpm"),
    [
        ("x86_64", "x86_64", "amd64", "x86_64"),
        ("amd64", "x86_64", "amd64", "x86_64"),
        ("aarch64", "sbsa", "arm64", "aarch64"),
        ("arm64", "sbsa", "arm64", "aarch64"),
        (" AArch64\n", "sbsa", "arm64", "aarch64"),
    ],
)
def test_an_architecture_has_the_name_of_each_side(machine, nvidia, deb, rpm):
    found = (platforms.nvidia_arch(machine), platforms.deb_arch(machine), platforms.rpm_arch(machine))
    assert found == (nvidia, deb, rpm)


@pytest.mark.parametrize("machine", ["ppc64le", "i686", "armv7l", "riscv64", ""])
def test_an_architecture_without_packages_is_refused_by_its_name(machine):
    for name in (platforms.nvidia_arch, platforms.deb_arch, platforms.rpm_arch):
        with pytest.raises(platforms.PlatformError, match=f"architecture {machine!r} is not supported"):
            name(machine)


@pytest.mark.parametrize(
    ("distribution", "version", "folder"),
    [
        ("Debian", "12", "debian12"),
        ("Debian", "12.11", "debian12"),
        ("Debian", "13.1", "debian13"),
        ("debian", "13", "debian13"),
        ("Ubuntu", "22.04", "ubuntu2204"),
        ("Ubuntu", "24.04", "ubuntu2404"),
        ("Ubuntu", "24.04.3 LTS", "ubuntu2404"),
        ("RedHat", "9.6", "rhel9"),
        ("Rocky", "9.5", "rhel9"),
        ("AlmaLinux", "10.0", "rhel10"),
        ("CentOS", "10", "rhel10"),
        ("OracleLinux", "9.4", "rhel9"),
        ("rhel", "10.1", "rhel10"),
    ],
)
def test_a_system_has_its_folder(distribution, version, folder):
    assert platforms.repo_distribution(distribution, version) == folder


@pytest.mark.parametrize(
    ("distribution", "version"),
    [
        ("Debian", "11"),
        ("Debian", "n/a"),
        ("Debian", "trixie/sid"),
        ("Ubuntu", "24.10"),
        ("Ubuntu", "24"),
        ("Ubuntu", "20.04"),
        ("RedHat", "8.10"),
        # Compared as text, "10" < "9" has sent RHEL 10 down the path of RHEL 7.
        ("Rocky", "7.9"),
        ("Fedora", "42"),
        ("SLES", "15.6"),
        ("", ""),
    ],
)
def test_a_system_that_is_not_supported_is_named_with_those_that_are(distribution, version):
    with pytest.raises(platforms.PlatformError) as refused:
        platforms.repo_distribution(distribution, version)
    assert f"The system {distribution} {version} is not supported" in str(refused.value)
    assert "debian 12 and 13; ubuntu 22.04 and 24.04; rhel 9 and 10" in str(refused.value)


@pytest.mark.parametrize(
    ("platform", "end"),
    [
        (("Ubuntu", "24.04", "aarch64"), "/ubuntu2404/sbsa/"),
        (("Rocky", "9.5", "aarch64"), "/rhel9/sbsa/"),
        (("Debian", "13", "x86_64"), "/debian13/x86_64/"),
    ],
)
def test_the_repository_is_made_of_both_names(platform, end):
    assert platforms.cuda_repository(*platform).endswith(end)


def test_debian_on_arm_has_no_repository_and_is_told_what_else_there_is():
    with pytest.raises(platforms.PlatformError, match=r"no network repository for debian12 on sbsa.*mirror"):
        platforms.cuda_repository("Debian", "12", "aarch64")
    assert platforms.describe("Debian", "12", "aarch64")["cuda_repository"] == ""


def test_every_fingerprint_is_one_of_a_system_that_is_supported():
    assert set(platforms.KEYS) <= {"debian12", "debian13", "ubuntu2204", "ubuntu2404", "rhel9", "rhel10"}
    for fingerprint in platforms.KEYS.values():
        assert len(fingerprint) == 40
        assert set(fingerprint) <= set("0123456789ABCDEF")


def test_debian_13_is_signed_by_the_newer_key():
    assert platforms.key_fingerprint("Debian", "13") != platforms.key_fingerprint("Debian", "12")
    assert platforms.key_fingerprint("RedHat", "10.0") is None


def test_the_filter_reads_a_hosts_facts():
    facts = {"distribution": "Ubuntu", "distribution_version": "24.04", "architecture": "aarch64"}
    found = nvidia_platform(facts)
    assert (found["nvidia_arch"], found["deb_arch"], found["distribution"]) == ("sbsa", "arm64", "ubuntu2404")
    with pytest.raises(AnsibleFilterError, match="no architecture; gather them first"):
        nvidia_platform({**facts, "architecture": ""})
    with pytest.raises(AnsibleFilterError, match="ppc64le"):
        nvidia_platform({**facts, "architecture": "ppc64le"})
