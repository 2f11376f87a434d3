"""SM4 for kernels without it: what is installed and built, what forbids it, and what the checks say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import sm4_module as sm4
from ansible_collections.bedplate.llm.plugins.module_utils import sm4_module_host
from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import Offers, System
from ansible_collections.bedplate.llm.plugins.module_utils.sm4_module import Build, Facts, Kernel

RUNNING, LATER, BACKPORT = "6.1.0-55-amd64", "6.1.0-56-amd64", "6.12.115+deb12-amd64"
DEBIAN = System("debian", "12", "x86_64", RUNNING, "apt")
UBUNTU = System("ubuntu", "24.04", "x86_64", "6.8.0-50-generic", "apt")
UNUSABLE = "The kernel cannot encrypt with xts(sm4): run the role sm4_module."
SOURCE = {"linux-source-6.1": "6.1.192-2"}


def kernel(release: str, headers: bool = True, built: bool = False) -> Kernel:
    return Kernel(release, headers, f"linux-headers-{release}", built)


def build(release: str = "", version: str = "6.1.192") -> Build:
    return Build(f"bedplate-sm4-{sm4.series_of(release or RUNNING)}", version, release)


VIRGIN = Facts(
    DEBIAN,
    (kernel(RUNNING, headers=False),),
    {"linux-image-amd64": "6.1.192-2", f"linux-image-{RUNNING}": "6.1.192-2"},
    unusable=UNUSABLE,
)
TOOLS = {"dkms": "3.0.10", **SOURCE, f"linux-headers-{RUNNING}": "6.1.192-2", "linux-headers-amd64": "6.1.192-2"}
GOOD = Facts(
    DEBIAN,
    (kernel(RUNNING, built=True),),
    {**VIRGIN.packages, **TOOLS},
    (build(RUNNING),),
    loaded_at_boot=True,
)
WANTED = ("dkms", "linux-source-6.1", f"linux-headers-{RUNNING}", "linux-headers-amd64")
OFFERS = Offers(dict.fromkeys(WANTED, ("1",)))


@pytest.mark.parametrize(
    ("release", "series"),
    [(RUNNING, "6.1"), (BACKPORT, "6.12"), ("7.3.2+deb13-amd64", "7.3"), ("6.1.0-56-cloud-amd64", "6.1")],
)
def test_the_series_of_a_kernel(release, series):
    assert sm4.series_of(release) == series


@pytest.mark.parametrize(
    ("facts", "packages", "build_for", "stale"),
    [
        (VIRGIN, WANTED, (RUNNING,), ()),
        (GOOD, (), (), ()),
        # A kernel that came without its headers, or whose build failed.
        (
            replace(GOOD, kernels=(*GOOD.kernels, kernel(LATER, headers=False))),
            (f"linux-headers-{LATER}",),
            (LATER,),
            (),
        ),
        (replace(GOOD, kernels=(*GOOD.kernels, kernel(LATER))), (), (LATER,), ()),
        # DKMS says that it installed the module, and the kernel does not find it.
        (replace(GOOD, kernels=(kernel(RUNNING),)), (), (RUNNING,), ()),
        # Another series needs another source.
        (replace(GOOD, kernels=(*GOOD.kernels, kernel(BACKPORT))), ("linux-source-6.12",), (BACKPORT,), ()),
        # The distribution has a newer source of the same series.
        (
            replace(GOOD, packages={**GOOD.packages, "linux-source-6.1": "6.1.193-1"}),
            (),
            (RUNNING,),
            (Build("bedplate-sm4-6.1", "6.1.192"),),
        ),
        # Its package was removed: it comes again, and what was built stays until then.
        (
            replace(GOOD, packages={name: "1" for name in GOOD.packages if name != "linux-source-6.1"}),
            ("linux-source-6.1",),
            (RUNNING,),
            (),
        ),
        # Kernels that have it from their distribution.
        (Facts(UBUNTU, (Kernel("6.8.0-50-generic", False, "x", True),)), (), (), ()),
        (Facts(replace(DEBIAN, machine="aarch64"), (kernel(RUNNING, built=True),)), (), (), ()),
        # A kernel from outside that has it.
        (Facts(UBUNTU), (), (), ()),
    ],
)
def test_what_has_to_be_installed_and_built(facts, packages, build_for, stale):
    plan = sm4.make_plan(facts)
    assert (plan.packages, plan.build_for, plan.stale, plan.problems) == (packages, build_for, stale, ())
    assert plan.settled is not bool(packages or build_for or stale)


@pytest.mark.parametrize(
    ("facts", "offers", "id_", "words"),
    [
        (Facts(UBUNTU, unusable="x"), None, "system", ["ubuntu 24.04", "linux-modules-6.8.0-50-generic"]),
        (Facts(UBUNTU, (Kernel("6.8.0-50-generic"),), unusable="x"), None, "system", ["Debian's kernels only"]),
        (Facts(DEBIAN, unusable="x"), None, "kernel", ["no kernel in /boot"]),
        (
            VIRGIN,
            Offers({**OFFERS.versions, f"linux-headers-{RUNNING}": ()}),
            "headers",
            [f"Kernel {RUNNING} could boot next, has no headers", f"no linux-headers-{RUNNING}"],
        ),
        (VIRGIN, Offers({**OFFERS.versions, "linux-source-6.1": ()}), "packages", ["have no linux-source-6.1"]),
        (VIRGIN, replace(OFFERS, error="held broken packages"), "resolver", ["held broken packages"]),
        (VIRGIN, replace(OFFERS, removes=("theirs",)), "removes", ["would remove theirs"]),
        (replace(VIRGIN, secure_boot=True), OFFERS, "secure-boot", ["mokutil --import /var/lib/dkms/mok.pub"]),
        (
            replace(VIRGIN, secure_boot=True, signing_key="/var/lib/dkms/mok.pub", signing_key_enrolled=False),
            OFFERS,
            "secure-boot",
            ["run `mokutil --import /var/lib/dkms/mok.pub` there", "Enroll MOK"],
        ),
    ],
)
def test_what_forbids_it_is_one_sentence_with_the_next_step(facts, offers, id_, words):
    plan = sm4.make_plan(facts, offers)
    assert [problem.id for problem in plan.problems] == [id_]
    assert not plan.settled
    for word in words:
        assert word in plan.problems[0].sentence


@pytest.mark.parametrize(
    "facts",
    [
        replace(VIRGIN, secure_boot=True, signing_key="/var/lib/dkms/mok.pub", signing_key_enrolled=True),
        # Nothing is built, so nothing has to be signed.
        replace(GOOD, secure_boot=True),
    ],
)
def test_secure_boot_forbids_nothing_when_the_key_is_known_or_nothing_is_built(facts):
    assert sm4.make_plan(facts, OFFERS).problems == ()


def failing(facts: Facts) -> set[str]:
    found = [check for check in sm4.checks(facts, sm4.make_plan(facts)) if not check.ok]
    assert all(check.reason and check.remedy for check in found)
    return {check.id for check in found}


@pytest.mark.parametrize(
    ("facts", "names"),
    [
        (GOOD, set()),
        (VIRGIN, {"kernel-has-sm4", "module-every-kernel", "next-kernel", "loaded-at-boot"}),
        (replace(GOOD, unusable=UNUSABLE), {"kernel-has-sm4"}),
        (replace(GOOD, kernels=(*GOOD.kernels, kernel(LATER))), {"module-every-kernel"}),
        (replace(GOOD, kernels=(*GOOD.kernels, kernel(LATER, headers=False))), {"module-every-kernel", "next-kernel"}),
        (replace(GOOD, loaded_at_boot=False), {"loaded-at-boot"}),
        # The next kernel would come without headers, and DKMS would pass over it in silence.
        (
            replace(GOOD, packages={name: "1" for name in GOOD.packages if name != "linux-headers-amd64"}),
            {"next-kernel"},
        ),
        # A newer source is no fault of the host.
        (replace(GOOD, packages={**GOOD.packages, "linux-source-6.1": "6.1.193-1"}), set()),
        (Facts(UBUNTU, (Kernel("6.8.0-50-generic", False, "x", True),), loaded_at_boot=True), set()),
    ],
)
def test_the_checks(facts, names):
    assert failing(facts) == {f"sm4_module.{name}" for name in names}


@pytest.mark.parametrize(
    ("facts", "reasons"),
    [
        (VIRGIN, 0),
        (GOOD, 0),
        # A kernel that is not in /boot any more, or is the operator's and not this machine's.
        (replace(GOOD, unusable=UNUSABLE, kernels=(kernel(LATER, built=True),), builds=(build(LATER),)), 1),
        (replace(GOOD, unusable=UNUSABLE, kernels=(kernel(LATER),)), 0),
        # It is in /boot with a module that it does not take: no restart mends that.
        (replace(GOOD, unusable=UNUSABLE), 0),
    ],
)
def test_a_restart_is_asked_for_only_where_it_brings_sm4(facts, reasons):
    assert len(sm4.reboot_reasons(facts)) == reasons


def test_what_dkms_says():
    text = """\
bedplate-sm4-6.1/6.1.190: added
bedplate-sm4-6.1/6.1.192, 6.1.0-55-amd64, x86_64: installed
bedplate-sm4-6.12/6.12.115, 6.12.115+deb12-amd64, x86_64: installed (WARNING! Diff between built and installed module!)
bedplate-sm4-6.12/6.12.115, 6.12.117+deb12-amd64, x86_64: built
nvidia-current-open/535.261.03, 6.1.0-55-amd64, x86_64: installed
"""
    assert sm4.parse_dkms(text) == (
        Build("bedplate-sm4-6.1", "6.1.190"),
        Build("bedplate-sm4-6.1", "6.1.192", "6.1.0-55-amd64"),
        Build("bedplate-sm4-6.12", "6.12.115", "6.12.115+deb12-amd64"),
        Build("bedplate-sm4-6.12", "6.12.115"),
    )


def test_dkms_builds_one_series_and_all_kernels_of_it():
    text = sm4.dkms_conf("6.1", "6.1.192")
    assert 'PACKAGE_NAME="bedplate-sm4-6.1"\nPACKAGE_VERSION="6.1.192"\n' in text
    assert 'BUILD_EXCLUSIVE_KERNEL="^6\\.1\\."\n' in text
    assert 'AUTOINSTALL="yes"\n' in text
    assert 'BUILT_MODULE_NAME[1]="sm4_generic"\n' in text


def test_the_difference_names_packages_and_kernels():
    plan = sm4.make_plan(VIRGIN)
    diff = sm4.diff(VIRGIN, plan)
    assert f"kernel {RUNNING} SM4 none\n" in diff["before"]
    assert f"kernel {RUNNING} SM4 the source's\n" in diff["after"]
    assert "linux-source-6.1 (not installed)\n" in diff["before"]


def test_a_host_by_its_files_and_tools(tmp_path):
    for path in (
        f"boot/vmlinuz-{RUNNING}",
        f"boot/vmlinuz-{LATER}",
        f"lib/modules/{RUNNING}/build/Makefile",
        "etc/modules-load.d/bedplate-sm4.conf",
        "var/lib/dkms/mok.pub",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n')
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/crypto").write_text("name : aes\n")

    def run(argv):
        said = {
            ("apt-get", "--version"): "apt",
            ("dkms", "status"): f"bedplate-sm4-6.1/6.1.192, {RUNNING}, x86_64: installed\n",
            ("modprobe", "--dry-run", "--quiet", "--set-version", RUNNING, "crypto-sm4"): "",
            ("mokutil", "--test-key", "/var/lib/dkms/mok.pub"): "/var/lib/dkms/mok.pub is not enrolled",
        }
        if argv[0] == "dpkg-query":
            return "dkms\t3.0.10\tii \nlinux-source-6.1\t6.1.192-2\tiF \n"
        return said.get(tuple(argv))

    facts = sm4_module_host.look(tmp_path, run)
    assert facts.kernels == (kernel(RUNNING, built=True), kernel(LATER, headers=False))
    assert facts.packages == {"dkms": "3.0.10"}  # a package that was never configured is none
    assert facts.builds == (build(RUNNING),)
    assert (facts.loaded_at_boot, facts.signing_key, facts.signing_key_enrolled) == (
        True,
        "/var/lib/dkms/mok.pub",
        False,
    )
