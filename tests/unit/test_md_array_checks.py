"""What the checks of an array say, and what to do then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_checks import State, of_array, of_host, waiting
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_decision import (
    ASSEMBLE,
    CREATE,
    KEEP,
    REFUSE,
    Decision,
)
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_found import Disk, Running
from md_samples import (
    ALONE,
    ARRAY,
    FAILED,
    STRIPED,
    UUID,
    WHOLE,
    absent,
    blank,
    member,
    member_disk,
    running,
)

DISKS = (member_disk(0, "md127"), member_disk(1, "md127"))
FILLING = running(member(0), member(1, "spare"), degraded=1, action="recover", done=1 << 17, total=1 << 18)


def state(live: Running | None = WHOLE, disks: tuple[Disk, ...] = DISKS, **changed: Any) -> State:
    fields: dict[str, Any] = {"leads_to": "/dev/md127", "configuration": "/etc/mdadm/mdadm.conf", **changed}
    return State(fields.pop("decision", Decision(KEEP)), disks, live, **fields)


def held(found: State) -> dict[str, bool]:
    return {check.id.removeprefix("md_array.weights-"): check.ok for check in of_array(ARRAY, found)}


def one(found: State, statement: str) -> Any:
    return next(check for check in of_array(ARRAY, found) if check.id == f"md_array.weights-{statement}")


def test_a_whole_array():
    checks = dict.fromkeys(("there", "whole", "bitmap", "found-by-name", "comes-up-at-boot", "disks-alike"), True)
    assert held(state()) == checks
    assert one(state(), "there").reason == f"weights runs as /dev/md127: raid1 of 2 disks, UUID {UUID}"
    assert waiting(ARRAY, state()) == []


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        (Decision(CREATE), "weights was not made yet"),
        (Decision(ASSEMBLE), "weights is not running, its disks are whole"),
        (Decision(REFUSE, ("/dev/vdb holds ext4",)), "/dev/vdb holds ext4"),
    ],
)
def test_an_array_that_does_not_run(decision: Decision, said: str):
    found = state(None, decision=decision)
    assert held(found) == {"there": False}
    assert one(found, "there").reason == said


@pytest.mark.parametrize(
    ("live", "disks", "said"),
    [
        (FAILED, DISKS, "reads and writes with 1 of 2 disks: /dev/vdc (serial number leg1) failed"),
        (ALONE, (DISKS[0], absent(1)), "/dev/disk/by-id/virtio-leg1 is not there"),
        (ALONE, (DISKS[0], blank(1)), "/dev/vdc (serial number leg1) does not take part"),
        (
            ALONE,
            (DISKS[0], replace(blank(1), unreadable="/dev/vdc cannot be read: EIO")),
            "/dev/vdc cannot be read: EIO",
        ),
        # Nobody noticed yet.
        (WHOLE, (DISKS[0], absent(1)), "/dev/disk/by-id/virtio-leg1 is not there"),
    ],
)
def test_a_missing_disk_is_told_with_what_to_do(live: Running, disks: tuple[Disk, ...], said: str):
    check = one(state(live, disks), "whole")
    assert not check.ok
    assert said in check.reason
    assert "declare it in md_arrays in place of the failed one (device, serial, size) and roll out" in check.remedy
    assert waiting(ARRAY, state(live, disks)) == []


def test_a_disk_that_is_being_filled_is_waited_for():
    check = one(state(FILLING), "whole")
    assert not check.ok
    assert check.reason == "weights reads and writes, and its new disk is being filled (50 %, 64 MiB to go)"
    assert waiting(ARRAY, state(FILLING)) == ["md_array.weights-whole"]


def test_the_first_copy_does_no_harm():
    check = one(state(replace(WHOLE, action="resync", done=1, total=4)), "whole")
    assert check.ok
    assert "made alike for the first time (25 %" in check.reason


def test_a_failed_disk_beside_one_that_is_filled_is_no_reason_to_wait():
    live = replace(FILLING, places=3, degraded=2)
    assert waiting(ARRAY, state(live)) == []


@pytest.mark.parametrize(
    ("found", "statement", "said"),
    [
        (state(replace(WHOLE, bitmap=False)), "bitmap", "weights does not note where its disks may differ"),
        (state(leads_to=""), "found-by-name", "md-name-bedplate:weights leads to nothing, the array is /dev/md127"),
        (state(leads_to="/dev/md126"), "found-by-name", "leads to /dev/md126"),
        (state(configured=False), "comes-up-at-boot", "/etc/mdadm/mdadm.conf does not know weights"),
        (state(replace(WHOLE, mismatches=128)), "disks-alike", "128 sectors differed between the disks of weights"),
    ],
)
def test_what_else_can_be_wrong(found: State, statement: str, said: str):
    check = one(found, statement)
    assert not check.ok
    assert said in check.reason
    assert check.remedy
    assert [name for name, ok in held(found).items() if not ok] == [statement]


def test_an_array_without_redundancy_has_less_to_say():
    live = running(member(0), member(1), level="raid0", mismatches=None)
    found = State(Decision(KEEP), DISKS, live, "/dev/md127", "/etc/mdadm/mdadm.conf")
    names = [check.id for check in of_array(STRIPED, found)]
    assert names == [f"md_array.scratch-{name}" for name in ("there", "whole", "found-by-name", "comes-up-at-boot")]


def test_what_watches_them():
    assert of_host([]) == []
    assert of_host([("a.service", True), ("b.timer", True)])[0].reason == "a.service, b.timer runs"
    off = of_host([("a.service", True), ("b.timer", False)])[0]
    assert (off.id, off.ok) == ("md_array.monitored", False)
    assert off.reason == "b.timer does not run, or not at every boot"
    assert "journalctl -u b.timer" in off.remedy
