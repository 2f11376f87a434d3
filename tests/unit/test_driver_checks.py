"""What a verify report says of a driver, and when a restart is asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.driver_checks import (
    can_load,
    checks,
    kernels_without_module,
    next_step,
    reboot_ahead,
    reboot_reasons,
    stale_initramfs,
)
from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import (
    DriverFacts,
    Initramfs,
    Module,
    Package,
    Service,
    Wanted,
)
from ansible_collections.bedplate.llm.plugins.module_utils.driver_plan import make_plan
from driver_hosts import B200, GOOD, NEW, OLD, OTHER, RUNNING, VIRGIN, WANTED, driven, kernel, packages

PREINSTALLED = Wanted(source="preinstalled")
CLOSED = replace(WANTED, kernel_module="proprietary")
BARE = Initramfs("/boot/initrd.img", nouveau=True, blocks_nouveau=False)


def failing(facts: DriverFacts, wanted: Wanted = WANTED) -> list[str]:
    report = checks(facts, wanted, make_plan(facts, wanted))
    assert len({check.id for check in report}) == len(report)
    for check in report:
        assert check.reason.endswith("."), check
        assert check.ok or check.remedy.endswith("."), check
    return [check.id.partition(".")[2] for check in report if not check.ok]


@pytest.mark.parametrize("wanted", [WANTED, PREINSTALLED, replace(WANTED, hold_kernel=False)])
def test_a_good_host_passes_every_check(wanted):
    assert failing(GOOD, wanted) == []
    assert reboot_reasons(GOOD, wanted) == []
    assert next_step(GOOD, wanted, make_plan(GOOD, wanted)) == "Nothing."


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"loaded_version": None, "loaded_kind": None}, ["loaded"]),
        ({"loaded_version": "535.247.01"}, ["loaded", "library"]),
        ({"library_version": NEW}, ["library"]),
        ({"kernels": (driven(RUNNING), kernel(OTHER))}, ["module-every-kernel"]),
        ({"kernels": (driven(RUNNING), driven(OTHER, "535.247.01"))}, ["module-every-kernel"]),
        ({"gpus": (B200,), "loaded_kind": "proprietary"}, ["module-kind"]),
        ({"nouveau_loaded": True}, ["nouveau"]),
        ({"nouveau_blocked": False}, ["nouveau"]),
        ({"kernels": (driven(RUNNING), driven(OTHER, initramfs=BARE))}, ["nouveau"]),
        ({"secure_boot": True, "signing_key_enrolled": False}, ["secure-boot"]),
        ({"secure_boot": True, "signing_key_enrolled": True}, []),
        ({"kernels": (driven(RUNNING), replace(driven(OTHER), module=Module(OLD, "open")))}, []),
        (
            {"secure_boot": True, "kernels": (replace(driven(RUNNING), module=Module(OLD, "open")),)},
            ["secure-boot"],
        ),
        ({"fabric_manager": Service(True, True, True, OLD)}, []),
        ({"fabric_manager": Service(True, True, True, NEW)}, ["fabric-manager"]),
        ({"fabric_manager": Service(True, False, False, OLD)}, ["fabric-manager"]),
        ({"nvswitches": 4}, ["fabric-manager", "packages"]),
        ({"persistence": Service(True, False, False)}, ["persistence"]),
        ({"packages": (*packages(), Package("libnvidia-fbc1", f"{NEW}-1", True))}, ["one-version"]),
        ({"packages": (*packages(), Package("nvidia-modprobe", "535.161.07-1", True))}, []),
        ({"packages": (*packages(), Package("libnvidia-egl-wayland1", "1:1.1.10-1", True))}, []),
        ({"packages": packages(held=False)}, ["held"]),
        ({"unattended_away": False}, ["unattended"]),
    ],
)
def test_what_is_wrong_fails_its_check_and_no_other(changes, expected):
    assert failing(replace(GOOD, **changes)) == expected


def test_a_machine_that_boots_a_kernel_from_outside_is_judged_by_what_is_loaded():
    """As a virtual machine of a cloud: no kernel in /boot, no packages, no systemd."""
    facts = replace(GOOD, kernels=(), packages=(), running_module=None, nouveau_blocked=False, persistence=Service())
    assert failing(facts, PREINSTALLED) == []
    assert failing(replace(facts, library_version=NEW), PREINSTALLED) == ["library"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (GOOD, []),
        (replace(GOOD, nouveau_loaded=True, loaded_version=None), ["nouveau is loaded"]),
        (replace(GOOD, loaded_version="535.247.01"), ["535.247.01 is loaded, and 535.261.03 is installed"]),
        (replace(GOOD, loaded_kind="proprietary"), ["the proprietary module is loaded"]),
        (replace(GOOD, loaded_version=None, running_module=None), ["has no NVIDIA module"]),
        # Loading it is enough.
        (replace(GOOD, loaded_version=None), []),
        # Never while a kernel would come up without the driver, whatever else is true.
        (replace(GOOD, loaded_version="535.247.01", kernels=(driven(RUNNING), kernel(OTHER))), []),
        (replace(VIRGIN, nouveau_loaded=True), []),
    ],
)
def test_a_restart_is_asked_for_only_when_every_kernel_would_come_up_with_the_driver(facts, words):
    reasons = reboot_reasons(facts, WANTED)
    assert len(reasons) == len(words)
    for reason, word in zip(reasons, words, strict=True):
        assert word in reason


@pytest.mark.parametrize(
    ("facts", "loadable"),
    [
        (GOOD, False),
        (replace(GOOD, loaded_version=None), True),
        (replace(GOOD, loaded_version=None, nouveau_loaded=True), False),
        (replace(GOOD, loaded_version=None, running_module=None), False),
        (replace(GOOD, loaded_version=None, gpus=()), False),
    ],
)
def test_the_module_is_loaded_only_where_nothing_stands_in_its_way(facts, loadable):
    assert can_load(facts, WANTED) is loadable


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (VIRGIN, "Install driver 535.261.03 (open module): 9 packages change."),
        (replace(GOOD, kernels=(driven(RUNNING), kernel(OTHER))), f"Build the module for kernel {OTHER}"),
        (replace(GOOD, loaded_version="535.247.01"), "Restart the host."),
        (replace(GOOD, loaded_version=None), "Load the module."),
        (replace(VIRGIN, kernels=()), "This host has no kernel"),
    ],
)
def test_what_to_do_next(facts, words):
    assert words in next_step(facts, WANTED, make_plan(facts, WANTED))


def test_which_kernels_lack_the_module_and_which_initramfs_is_old():
    facts = replace(GOOD, kernels=(driven(RUNNING, NEW), driven(OTHER, initramfs=BARE)))
    assert kernels_without_module(facts, OLD) == (RUNNING,)
    assert stale_initramfs(facts) == (OTHER,)
    old = Initramfs("/boot/initrd.img", nouveau=False, blocks_nouveau=True, stale=True)
    assert stale_initramfs(replace(GOOD, kernels=(driven(RUNNING, initramfs=old),))) == (RUNNING,)


@pytest.mark.parametrize(
    ("facts", "wanted", "said"),
    [
        (GOOD, WANTED, []),
        (GOOD, replace(CLOSED, version=NEW), [f"{OLD} is loaded, and goes on beside {NEW}"]),
        (GOOD, CLOSED, ["the open module is loaded, and goes on until a restart"]),
        (VIRGIN, WANTED, []),
        (GOOD, PREINSTALLED, []),
    ],
    ids=["settled", "another version", "another kind", "nothing loaded", "not ours to change"],
)
def test_a_change_below_a_loaded_driver_is_known_to_take_a_restart(facts, wanted, said):
    ahead = reboot_ahead(facts, wanted, make_plan(facts, wanted))
    assert len(ahead) == len(said)
    assert all(part in sentence for part, sentence in zip(said, ahead, strict=True))
