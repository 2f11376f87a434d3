"""What is installed on which host, and what refuses it before the first change."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import DriverFacts, Offers, Package, Wanted
from ansible_collections.bedplate.llm.plugins.module_utils.driver_packages import is_other_kind
from ansible_collections.bedplate.llm.plugins.module_utils.driver_plan import make_plan
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_holders import Holder
from driver_hosts import (
    B200,
    DEBIAN,
    GB200,
    GOOD,
    H100,
    NEW,
    OFFERS,
    OLD,
    OTHER,
    RUNNING,
    UNKNOWN,
    V100,
    VIRGIN,
    WANTED,
    driven,
    kernel,
    packages,
)

ENGINE = Holder(4711, "python3", "bedplate-vllm.service", ("/dev/nvidia0",))
DAEMON = Holder(12, "nvidia-persisten", "nvidia-persistenced.service", ("/dev/nvidiactl",))
RHEL = replace(DEBIAN, distribution="rocky", version="9.5", manager="dnf")
UBUNTU = replace(DEBIAN, distribution="ubuntu", version="24.04")


def problems(facts: DriverFacts, wanted: Wanted = WANTED, offers: Offers | None = OFFERS) -> list[str]:
    return [problem.id for problem in make_plan(facts, wanted, offers).problems]


def told(facts: DriverFacts, wanted: Wanted = WANTED, offers: Offers | None = OFFERS) -> str:
    return " ".join(problem.sentence for problem in make_plan(facts, wanted, offers).problems)


def test_a_virgin_host_gets_one_version_of_everything():
    plan = make_plan(VIRGIN, WANTED, OFFERS)
    assert plan.problems == ()
    assert plan.kind == "open"
    assert dict(plan.packages) == {
        "firmware-nvidia-gsp": "535.261.03-1",
        "libcuda1": "535.261.03-1",
        "libnvidia-cfg1": "535.261.03-1",
        "libnvidia-ml1": "535.261.03-1",
        "libnvidia-nvvm4": "535.261.03-1",
        "libnvidia-ptxjitcompiler1": "535.261.03-1",
        "nvidia-open-kernel-dkms": "535.261.03-1",
        "nvidia-smi": "535.261.03-1",
        "nvidia-persistenced": "",
    }
    assert not plan.settled


def test_a_host_as_it_should_be_is_settled_without_asking_anybody():
    plan = make_plan(GOOD, WANTED)
    assert plan.settled
    assert plan.problems == ()


@pytest.mark.parametrize(
    ("facts", "changes", "unheld"),
    [
        (replace(GOOD, packages=packages(NEW)), "nvidia-smi", None),
        (replace(GOOD, packages=packages(held=False)), None, "libcuda1"),
        (replace(GOOD, packages=(*packages()[:-2], replace(packages()[-2], complete=False))), "nvidia-smi", None),
        # A kernel that came later, with its headers missing: the module is built with them.
        (replace(GOOD, kernels=(driven(RUNNING), kernel(OTHER, headers=False))), f"linux-headers-{OTHER}", None),
    ],
    ids=["another version", "not held", "never configured", "a kernel without headers"],
)
def test_what_has_drifted_is_not_settled(facts, changes, unheld):
    plan = make_plan(facts, WANTED)
    assert not plan.settled
    assert changes is None or changes in plan.changes
    assert unheld is None or unheld in plan.unheld


# Product, asked for -> kind, or the words of the refusal.
@pytest.mark.parametrize(
    ("gpus", "asked", "version", "expected"),
    [
        ((H100,), "auto", OLD, "open"),
        ((H100,), "proprietary", NEW, "proprietary"),
        ((V100,), "auto", NEW, "proprietary"),
        ((V100,), "open", OLD, "V100 works with the proprietary kernel module only"),
        ((B200,), "proprietary", NEW, "B200 works with the open kernel module only"),
        ((B200, V100), "auto", OLD, "no driver drives both"),
        ((B200,), "auto", OLD, "B200 needs branch 570 or newer"),
        ((V100,), "auto", "590.10.01", "V100 is not driven by branches after 580"),
        ((H100,), "proprietary", "620.10", "no proprietary kernel module from branch 620 on"),
        ((H100,), "open", "510.47.03", "the open kernel module begins with branch 515"),
        ((UNKNOWN,), "auto", OLD, "does not know device 9999"),
        ((UNKNOWN,), "open", OLD, "open"),
        ((), "auto", OLD, "finds no NVIDIA GPU"),
        ((), "open", OLD, "open"),
    ],
)
def test_the_module_follows_the_generation_and_impossible_pairs_are_refused(gpus, asked, version, expected):
    facts = replace(VIRGIN, gpus=gpus)
    wanted = Wanted(version=version, kernel_module=asked)
    plan = make_plan(facts, wanted)
    said = " ".join(problem.sentence for problem in plan.problems)
    if " " in expected:
        assert expected in said
        assert "nvidia_driver_" in said or "take one out" in said
    else:
        assert plan.kind == expected
        assert said == ""


@pytest.mark.parametrize(
    ("facts", "wanted", "offers", "expected"),
    [
        (replace(VIRGIN, system=replace(DEBIAN, version="11")), WANTED, OFFERS, ["system"]),
        (replace(VIRGIN, system=replace(DEBIAN, machine="riscv64")), WANTED, None, ["system"]),
        (replace(VIRGIN, kernels=()), WANTED, OFFERS, ["kernel"]),
        (VIRGIN, Wanted(), OFFERS, ["version"]),
        (VIRGIN, Wanted(version=NEW), OFFERS, ["version"]),
        (VIRGIN, Wanted(version=OLD, build="prebuilt"), OFFERS, ["build"]),
        (replace(VIRGIN, kernels=(kernel(OTHER, headers=False),)), WANTED, OFFERS, ["headers"]),
        (VIRGIN, WANTED, replace(OFFERS, error="x : Depends: y"), ["resolver"]),
        (VIRGIN, WANTED, replace(OFFERS, removes=("openssh-server",)), ["removes"]),
        (VIRGIN, WANTED, replace(OFFERS, removes=("nvidia-kernel-dkms",)), []),
        (replace(VIRGIN, secure_boot=True), WANTED, OFFERS, ["secure-boot"]),
        (replace(VIRGIN, secure_boot=True, signing_key_enrolled=True), WANTED, OFFERS, []),
        (replace(VIRGIN, holders=(ENGINE,)), WANTED, OFFERS, ["holders"]),
        (replace(VIRGIN, holders=(DAEMON,)), WANTED, OFFERS, []),
        # Nothing is exchanged below them.
        (replace(GOOD, holders=(ENGINE,), secure_boot=True), WANTED, None, []),
        (replace(VIRGIN, system=RHEL), WANTED, None, ["source"]),
        (replace(VIRGIN, nvswitches=4), WANTED, OFFERS, ["version"]),
        # All of it in order, so that one run tells everything.
        (
            replace(VIRGIN, holders=(ENGINE,), secure_boot=True, kernels=(kernel(OTHER, headers=False),)),
            Wanted(version=NEW),
            OFFERS,
            ["version", "headers", "secure-boot", "holders"],
        ),
    ],
)
def test_refusals(facts, wanted, offers, expected):
    assert problems(facts, wanted, offers) == expected


@pytest.mark.parametrize(
    ("facts", "wanted", "words"),
    [
        (VIRGIN, Wanted(), ["nvidia_driver_version is not set", "offers 535.261.03 as a whole"]),
        (VIRGIN, Wanted(version=NEW), [NEW, "nvidia-open-kernel-dkms (only 535.261.03)", "offers 535.261.03"]),
        (VIRGIN, Wanted(version=NEW, kernel_module="proprietary"), []),
        (
            replace(VIRGIN, holders=(ENGINE,)),
            WANTED,
            ["python3 (process 4711 of", "systemctl stop bedplate-vllm.service"],
        ),
        (replace(VIRGIN, secure_boot=True), WANTED, ["mokutil --import", "Enroll MOK", "run this again"]),
        (
            replace(VIRGIN, secure_boot=True, signing_key="/var/lib/dkms/mok.pub"),
            WANTED,
            ["mokutil --import /var/lib/dkms/mok.pub"],
        ),
        (replace(VIRGIN, kernels=(kernel(OTHER, headers=False),)), WANTED, [OTHER, f"linux-headers-{OTHER}"]),
        (replace(VIRGIN, nvswitches=4), WANTED, ["nvidia-fabricmanager"]),
    ],
)
def test_a_refusal_says_what_was_found_and_what_to_do(facts, wanted, words):
    said = told(facts, wanted)
    assert bool(said) == bool(words), said
    for word in words:
        assert word in said, said


@pytest.mark.parametrize(
    ("facts", "wanted", "expected"),
    [
        (VIRGIN, WANTED, ""),
        (replace(VIRGIN, nvswitches=4), WANTED, "nvswitch"),
        (replace(VIRGIN, nvswitches=4), replace(WANTED, fabric_manager="absent"), ""),
        (VIRGIN, replace(WANTED, fabric_manager="present"), "nvswitch"),
        (replace(VIRGIN, gpus=(B200,) * 8), replace(WANTED, version="580.95.05"), "nvlink5"),
        (replace(VIRGIN, gpus=(B200,)), replace(WANTED, version="580.95.05"), ""),
        (replace(VIRGIN, gpus=(GB200,) * 8), replace(WANTED, version="580.95.05"), ""),
    ],
)
def test_a_fabric_manager_is_for_switches(facts, wanted, expected):
    assert make_plan(facts, wanted).fabric == expected


# Distribution, source, version, kind -> packages with the driver's version, and the others.
@pytest.mark.parametrize(
    ("system", "wanted", "exact", "beside", "stream"),
    [
        (
            UBUNTU,
            Wanted(version="580.95.05"),
            "nvidia-kernel-common-580-server libnvidia-compute-580-server nvidia-compute-utils-580-server"
            " nvidia-utils-580-server nvidia-fabricmanager-580 libnvidia-nscq-580",
            "linux-modules-nvidia-580-server-open-6.1.0-50-amd64"
            " linux-modules-nvidia-580-server-open-6.1.0-50-cloud-amd64",
            "",
        ),
        (
            UBUNTU,
            Wanted(version="580.95.05", build="dkms", kernel_module="proprietary", fabric_manager="absent"),
            "nvidia-dkms-580-server libnvidia-compute-580-server nvidia-compute-utils-580-server"
            " nvidia-utils-580-server",
            "",
            "",
        ),
        (
            UBUNTU,
            Wanted(source="vendor", version="570.10"),
            "nvidia-dkms-570-open libnvidia-compute-570 nvidia-compute-utils-570 nvidia-utils-570"
            " nvidia-fabricmanager-570 libnvidia-nscq-570",
            "",
            "",
        ),
        (
            UBUNTU,
            Wanted(source="mirror", version="590.10"),
            "nvidia-dkms-open libnvidia-compute nvidia-compute-utils nvidia-utils nvidia-fabricmanager libnvidia-nscq",
            "",
            "",
        ),
        (
            replace(DEBIAN, machine="aarch64", version="13"),
            Wanted(source="vendor", version="580.95.05"),
            "nvidia-kernel-open-dkms nvidia-driver-cuda nvidia-persistenced nvidia-fabricmanager libnvidia-nscq",
            "",
            "",
        ),
        (
            RHEL,
            Wanted(source="vendor", version="570.10"),
            "kmod-nvidia-open-dkms nvidia-driver-cuda nvidia-persistenced nvidia-fabricmanager-570 libnvidia-nscq-570",
            "",
            "nvidia-driver:570-open",
        ),
        (
            replace(RHEL, version="10.0"),
            Wanted(source="vendor", version="580.95.05", kernel_module="proprietary", persistence=False),
            "kmod-nvidia-latest-dkms nvidia-driver-cuda nvidia-fabricmanager libnvidia-nscq",
            "",
            "",
        ),
        (replace(RHEL, version="9"), Wanted(source="vendor", version="580.1", kernel_module="proprietary"), "", "",
         "nvidia-driver:580-dkms"),
    ],
)  # fmt: skip
def test_package_names(system, wanted, exact, beside, stream):
    facts = replace(VIRGIN, system=system, nvswitches=4)
    plan = make_plan(facts, wanted)
    assert plan.problems == ()
    assert plan.module_stream == stream
    if exact:
        assert [name for name, _version in plan.packages] == [*exact.split(), *beside.split()]


def test_a_preinstalled_driver_is_asked_for_nothing():
    facts = replace(VIRGIN, system=replace(DEBIAN, distribution="", version=""), kernels=())
    plan = make_plan(facts, Wanted(source="preinstalled"))
    assert (plan.packages, plan.problems) == ((), ())


def test_all_installed_parts_move_along_since_they_are_held_and_the_other_module_goes():
    others = tuple(Package(name, f"{OLD}-1", True) for name in ("nvidia-alternative", "nvidia-open-kernel-support"))
    offers = replace(OFFERS, versions={**OFFERS.versions, "nvidia-alternative": (f"{NEW}-0+deb12u1", f"{OLD}-1")})
    plan = make_plan(
        replace(GOOD, packages=(*GOOD.packages, *others)), Wanted(version=NEW, kernel_module="proprietary"), offers
    )
    assert plan.problems == ()
    assert ("nvidia-alternative", f"{NEW}-0+deb12u1") in plan.packages
    assert plan.drops == ("nvidia-open-kernel-dkms", "nvidia-open-kernel-support")
    assert not {"nvidia-open-kernel-dkms", "nvidia-open-kernel-support"} & {name for name, _version in plan.packages}


@pytest.mark.parametrize(
    ("name", "kind", "other"),
    [
        ("nvidia-kernel-dkms", "open", True),
        ("nvidia-kernel-open-dkms", "open", False),
        ("nvidia-dkms-580-server-open", "proprietary", True),
        ("nvidia-kernel-common-580-server", "open", False),
        ("linux-modules-nvidia-580-server-6.8.0-50-generic", "open", True),
        ("kmod-nvidia-latest-dkms", "open", True),
        ("dkms", "open", False),
        ("libcuda1", "proprietary", False),
    ],
)
def test_packages_with_the_other_module(name, kind, other):
    assert is_other_kind(name, kind) is other
