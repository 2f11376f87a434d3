"""What the tools of a host print, and what follows from its files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import dkms, driver_host, driver_parse, driver_transaction
from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import Module, Package, System
from ansible_collections.bedplate.llm.plugins.module_utils.driver_packages import (
    Repository,
    choose,
    components,
    is_drivers,
    is_kernels,
    pin,
    sources,
    upstream,
)

DEBIAN = System("debian", "12", "x86_64", "6.1.0-50-amd64", "apt")

# As Debian 12 printed them, shortened.
MODINFO = """\
filename:       /lib/modules/6.1.0-50-amd64/updates/dkms/nvidia-current-open.ko
import_ns:      DMA_BUF
version:        535.261.03
license:        Dual MIT/GPL
name:           nvidia
signer:         DKMS module signing key
"""
PROPRIETARY = "filename: /x/nvidia-current.ko.xz\nversion: 535.309.01\nlicense: NVIDIA\n"
MADISON = """\
nvidia-driver | 535.309.01-0+deb12u1 | http://mirror/debian-security bookworm-security/non-free amd64 Packages
nvidia-driver | 535.261.03-1 | http://mirror/debian bookworm/non-free amd64 Packages
nvidia-driver | 535.261.03-1 | http://mirror2/debian bookworm/non-free amd64 Packages
 libcuda1 | 535.261.03-1 | http://mirror/debian bookworm/non-free amd64 Packages
"""
TARGETS = """\
MetaKey: main/binary-amd64/Packages
Component: main
Created-By: Packages
Release: bookworm
Repo-URI: http://mirror/debian/
Sourcesentry: /etc/apt/sources.list.d/0000sources.list:1

MetaKey: main/i18n/Translation-en
Created-By: Translations
Component: main
Release: bookworm
Repo-URI: http://mirror/debian/

Created-By: Packages
Component: contrib
Release: bookworm
Repo-URI: http://mirror/debian/
Sourcesentry: /etc/apt/sources.list.d/nvidia-distribution-bedplate.sources:1
"""


def test_the_module_of_a_kernel_and_its_kind():
    assert driver_parse.parse_modinfo(MODINFO) == Module(
        "535.261.03", "open", "DKMS module signing key", "nvidia-current-open"
    )
    assert driver_parse.parse_modinfo(PROPRIETARY) == Module("535.309.01", "proprietary", "", "nvidia-current")
    assert driver_parse.parse_modinfo("") is None


def test_debian_loads_another_file_by_the_name_nvidia():
    assert driver_parse.redirected("install nvidia modprobe -i nvidia-current-open $CMDLINE_OPTS\n") == (
        "nvidia-current-open"
    )
    assert driver_parse.redirected("options x y=1\n") == "nvidia"


def test_kernels_that_could_boot():
    names = ["vmlinuz-6.1.0-9-amd64", "vmlinuz-6.1.0-10-amd64", "vmlinuz-0-rescue-abc", "initrd.img-6.1.0-9-amd64"]
    assert dkms.boot_images(names) == ["6.1.0-9-amd64", "6.1.0-10-amd64"]
    assert dkms.boot_images(["vmlinuz-5.14.0-503.el9_5.x86_64", "vmlinuz-0-rescue-a"]) == ["5.14.0-503.el9_5.x86_64"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\tlinux\t/boot/vmlinuz-6.1.0-50-amd64 root=UUID=1 ro quiet\n", {"6.1.0-50-amd64"}),
        ("linux /vmlinuz-5.14.0-503.el9_5.x86_64\ninitrd /initramfs\n", {"5.14.0-503.el9_5.x86_64"}),
        ("initrd /boot/initrd.img-6.1.0\n", set()),
    ],
)
def test_what_the_boot_loader_lists(text, expected):
    assert driver_parse.loader_entries(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("blacklist nouveau\n", True),
        ("install nouveau /bin/false\n", True),
        ("# blacklist nouveau\n", False),
        ("blacklist nouveau-fake\n", False),
    ],
)
def test_what_keeps_nouveau_away(text, expected):
    assert driver_parse.blocks_nouveau(text) is expected


def test_what_is_in_an_initramfs():
    listing = "etc/modprobe.d/bedplate-nouveau.conf\nusr/lib/modules/6.1/kernel/drivers/gpu/drm/nouveau/nouveau.ko\n"
    assert driver_parse.initramfs_content(listing, ["bedplate-nouveau.conf"]) == (True, True)
    assert driver_parse.initramfs_content(listing, ["other.conf"]) == (True, False)
    assert driver_parse.initramfs_content("usr/lib/modules/6.1/kernel/fs/ext4.ko\n", []) == (False, False)


def test_installed_packages_with_holds_and_half_configured_ones():
    text = "libcuda1:amd64\t535-1\thi \nnvidia-smi\t535-1\tiF \nold\t1\trc \ngone\t\tun \n"
    assert driver_parse.parse_dpkg(text) == [
        Package("libcuda1", "535-1", True, True),
        Package("nvidia-smi", "535-1", False, False),
    ]
    locks = "nvidia-driver-cuda-3:580.95.05-1.el9.*\n"
    assert driver_parse.parse_rpm("nvidia-driver-cuda\t3:580.95.05-1.el9\nkernel\t(none):5.14\n", locks) == [
        Package("nvidia-driver-cuda", "3:580.95.05-1.el9", True),
        Package("kernel", "5.14", False),
    ]


def test_what_is_offered():
    assert driver_parse.parse_madison(MADISON) == {
        "nvidia-driver": ("535.309.01-0+deb12u1", "535.261.03-1"),
        "libcuda1": ("535.261.03-1",),
    }
    assert driver_parse.parse_repoquery("a\t1-1\na\t2-1\n") == {"a": ("2-1", "1-1")}
    assert driver_parse.parse_simulation("Inst a [1]\nRemv b [1] [c ]\nPurg d [2]\n") == ("b", "d")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("535.261.03-1", "535.261.03"),
        ("3:580.95.05-1.el9", "580.95.05"),
        ("580.95.05-0ubuntu0.24.04.1", "580.95.05"),
        ("535.171.04-1~deb12u1", "535.171.04"),
    ],
)
def test_the_drivers_version_of_a_packages(version, expected):
    assert upstream(version) == expected


def test_the_newest_package_of_a_driver_is_chosen():
    assert choose("535.261.03", ("535.309.01-1", "535.261.03-2", "535.261.03-1")) == "535.261.03-2"
    assert choose("535.261", ("535.261.03-1",)) is None


def test_what_belongs_to_the_driver():
    ours = "libcuda1 nvidia-smi nvlsm libnvidia-ml1 linux-modules-nvidia-580-server-open-6.8.0-50-generic cuda-drivers"
    others = "nvidia-container-toolkit libnvidia-container1 nvidia-cuda-toolkit libcudart12 cuda-toolkit-13 python3-x"
    assert all(is_drivers(name) for name in ours.split())
    assert not any(is_drivers(name) for name in others.split())
    assert is_kernels("linux-image-amd64") and is_kernels("kernel-core") and not is_kernels("linux-base")


def test_the_pin_names_the_version_and_what_it_is_of():
    text = pin("535.261.03")
    assert "Pin: version 535.261.03-*\n" in text
    assert "libcuda1*" in text
    assert pin("") == ""


def test_missing_parts_of_the_distribution_come_from_its_own_mirrors_and_the_second_run_says_the_same():
    ours = "/etc/apt/sources.list.d/nvidia-distribution-bedplate.sources"
    repositories = driver_parse.parse_index_targets(TARGETS)
    expected = (
        "Types: deb\nURIs: http://mirror/debian\nSuites: bookworm\nComponents: contrib non-free non-free-firmware\n"
    )
    assert sources(DEBIAN, "bookworm", repositories, ours) == expected
    everything = [Repository("http://mirror/debian", "bookworm", name, "/x") for name in ("main", *components(DEBIAN))]
    assert sources(DEBIAN, "bookworm", everything, ours) == ""
    foreign = [Repository("http://docker", "bookworm", "stable", "/x")]
    assert sources(DEBIAN, "bookworm", foreign, ours) == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [("/x is already enrolled", True), ("/x is not enrolled", False), ("EFI variables are not supported", None)],
)
def test_whether_a_key_is_enrolled(words, expected):
    assert dkms.parse_test_key(words) is expected


def make(path: Path, content: str = "", mtime: float | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    if mtime is not None:
        os.utime(path, (mtime, mtime))


def test_a_hosts_kernels_by_its_files(tmp_path):
    for release in ("6.1.0-50-amd64", "6.1.0-56-amd64"):
        make(tmp_path / "boot" / f"vmlinuz-{release}")
        make(tmp_path / "boot" / f"initrd.img-{release}", mtime=1000 if "50" in release else 3000)
    make(tmp_path / "lib/modules/6.1.0-50-amd64/build/Makefile")
    make(tmp_path / "boot/grub/grub.cfg", "\tlinux /boot/vmlinuz-6.1.0-56-amd64 root=x\n")
    make(tmp_path / "etc/modprobe.d/bedplate-nouveau.conf", "blacklist nouveau\n", mtime=2000)

    def run(argv):
        if argv[0] == "modinfo":
            return MODINFO if argv[2] == "6.1.0-50-amd64" and argv[3] == "nvidia-current-open" else None
        return {"lsinitramfs": "x/nouveau.ko\netc/modprobe.d/bedplate-nouveau.conf\n"}.get(argv[0])

    old, new = driver_host.kernels(tmp_path, DEBIAN, run)
    assert (old.release, old.running, old.listed, old.headers) == ("6.1.0-50-amd64", True, False, True)
    assert (new.release, new.running, new.listed, new.headers) == ("6.1.0-56-amd64", False, True, False)
    assert old.module is not None and old.module.version == "535.261.03"
    assert new.module is None
    assert old.initramfs is not None and old.initramfs.stale
    assert new.initramfs is not None and not new.initramfs.stale and new.initramfs.blocks_nouveau


# --- transactions ---


def test_apt_moves_all_packages_at_once_and_never_lifts_the_holds():
    update, install = driver_transaction.install("apt", [("a", "1-1"), ("b", "")], "", 60, locked=["a"])
    assert update[-1] == "update"
    assert install[-2:] == ["a=1-1", "b"]
    assert "--allow-change-held-packages" in install
    assert "DPkg::Lock::Timeout=60" in install
    assert "--download-only" not in install


def test_staging_downloads_only():
    assert "--download-only" in driver_transaction.install("apt", [("a", "1")], "", 60, stage=True)[-1]
    (command,) = driver_transaction.install("dnf", [("a", "1")], "s:1", 60, stage=True)
    assert "--downloadonly" in command


def test_dnf_chooses_the_stream_and_lifts_the_lock_for_the_transaction():
    commands = driver_transaction.install("dnf", [("a", "1")], "nvidia-driver:580-open", 60, locked=["a"])
    assert [command[-2:] for command in commands] == [
        ["reset", "nvidia-driver"],
        ["enable", "nvidia-driver:580-open"],
        ["delete", "a"],
        ["install", "a-1"],
    ]


def test_removal_takes_away_what_it_names_and_nothing_else():
    unhold, purge = driver_transaction.remove("apt", ["a"], 60, ["a"])
    assert unhold == ["apt-mark", "unhold", "a"]
    assert purge[-2:] == ["purge", "a"]
    assert "--auto-remove" not in purge


def test_what_is_pending():
    present = {"a": Package("a", "1"), "b": Package("b", "1", complete=False), "c": Package("c", "1")}
    wanted = [("a", "2"), ("b", "1"), ("c", ""), ("d", "")]
    assert driver_transaction.pending(wanted, present) == ["a", "b", "d"]


def test_a_module_that_does_not_compile_is_told_with_its_kernel():
    said = driver_transaction.failure(
        ["apt-get"], "Error! Bad return status for module build on kernel: 6.1.0-56-amd64 (x86_64)\nE: Sub-process\n"
    )
    assert "6.1.0-56-amd64" in said and "Do not restart" in said
    assert "E: no space" in driver_transaction.failure(["apt-get"], "x\nE: no space\n")
