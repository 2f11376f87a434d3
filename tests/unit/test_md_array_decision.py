"""When an array may be made, started or mended: what is on its disks, what the kernel has, what is remembered."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.block_device import Signature
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_decision import (
    ASSEMBLE,
    CREATE,
    KEEP,
    REFUSE,
    REPAIR,
    Decision,
    decide,
)
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_found import Disk, Member, Running
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_record import Record
from md_samples import (
    ALONE,
    ARRAY,
    BEGUN,
    EXCHANGED,
    FAILED,
    OTHER,
    RECORD,
    STRIPED,
    UUID,
    WHOLE,
    WITHOUT_0,
    WITHOUT_1,
    absent,
    blank,
    leg,
    member,
    member_disk,
    running,
)

EXT4 = (Signature("ext4", 1080),)
BLANK = (blank(0), blank(1))
MEMBERS = (member_disk(0), member_disk(1))
IN_USE = (member_disk(0, "md127"), member_disk(1, "md127"))


def stopped(*members: Member, **changed: Any) -> Running:
    return running(*members, state="inactive", **changed)


# --- making ---


def test_empty_disks_become_an_array():
    assert decide(ARRAY, BLANK, [], None) == Decision(CREATE)


def test_what_was_begun_is_completed():
    assert decide(ARRAY, BLANK, [], BEGUN) == Decision(CREATE)
    assert decide(ARRAY, (MEMBERS[0], blank(1)), [], BEGUN) == Decision(CREATE)
    assert decide(ARRAY, (blank(0), MEMBERS[1]), [], BEGUN) == Decision(CREATE)
    # All superblocks were written: there is nothing to make.
    assert decide(ARRAY, MEMBERS, [], BEGUN) == Decision(ASSEMBLE)


def test_what_was_begun_and_put_together_at_boot_is_stopped_first():
    """The kernel has half an array and does not start it; it holds the disk."""
    held = (member_disk(0, "md127"), blank(1))
    assert decide(ARRAY, held, [stopped(member(0))], BEGUN) == Decision(CREATE, stop="md127")


def test_a_superblock_that_was_half_written_is_ours():
    torn = blank(0, blank=False)
    assert decide(ARRAY, (torn, blank(1)), [], BEGUN) == Decision(CREATE)
    assert decide(ARRAY, (torn, blank(1)), [], None).action == REFUSE


def test_other_disks_than_it_was_begun_on_have_to_be_empty():
    begun = replace(BEGUN, serials=("leg0", "leg9"))
    assert decide(ARRAY, BLANK, [], begun) == Decision(CREATE)
    assert "is not empty" in decide(ARRAY, (blank(0, blank=False), blank(1)), [], begun).sentence


@pytest.mark.parametrize(
    ("disk", "said"),
    [
        (absent(1), "/dev/disk/by-id/virtio-leg1 is not there"),
        (blank(1, serial="other"), "with the serial number other, declared is leg1"),
        (blank(1, size=1 << 30), "has 1073741824 bytes, declared are 201326592"),
        (blank(1, mounts=("/srv",)), "/dev/vdc is in use at /srv"),
        (blank(1, exclusive=False), "/dev/vdc is in use by something"),
        (blank(1, read_only=True), "/dev/vdc is read-only"),
        (blank(1, children=("vdc1",)), "/dev/vdc carries vdc1"),
        (blank(1, signatures=EXT4, blank=None), "/dev/vdc holds ext4 at byte 1080"),
        (replace(blank(1), unreadable="/dev/vdc cannot be read: EIO"), "/dev/vdc cannot be read: EIO"),
        (member_disk(1, name="nas:0", uuid=OTHER), "/dev/vdc belongs to array nas:0 (UUID 11111111"),
    ],
)
@pytest.mark.parametrize("record", [None, BEGUN])
def test_anything_else_on_a_disk_is_refused(disk: Disk, said: str, record: Record | None):
    decision = decide(ARRAY, (blank(0), disk), [], record)
    assert decision.action == REFUSE
    assert said in decision.sentence


@pytest.mark.parametrize(
    ("disk", "said"),
    [
        (blank(1, blank=False), "/dev/vdc is not empty"),
        (replace(blank(1), volume="1234"), "remembers encrypted volume 1234 on /dev/vdc"),
    ],
)
def test_a_disk_is_proved_to_be_empty_before_anything_is_begun(disk: Disk, said: str):
    assert said in decide(ARRAY, (blank(0), disk), [], None).sentence


@pytest.mark.parametrize(
    ("disk", "said"),
    [
        (
            replace(blank(1), blank_behind=False),
            "/dev/vdc holds bytes behind the place of its superblock, after making",
        ),
        (blank(1, signatures=EXT4), "/dev/vdc holds ext4 at byte 1080, after making"),
        (replace(member_disk(1), blank_behind=False), "/dev/vdc holds bytes behind the place of its superblock"),
    ],
)
def test_what_was_begun_is_not_completed_over_something_else(disk: Disk, said: str):
    decision = decide(ARRAY, (blank(0), disk), [], BEGUN)
    assert decision.action == REFUSE
    assert said in decision.sentence


# --- never made again ---


def test_an_array_that_ran_is_never_made_again():
    decision = decide(ARRAY, BLANK, [], RECORD)
    assert decision.action == REFUSE
    assert f"remembers array {UUID}" in decision.sentence
    assert "arrays/weights.json" in decision.sentence


@pytest.mark.parametrize("record", [None, RECORD])
def test_one_member_and_an_empty_disk_wait_for_somebodys_word(record: Record | None):
    decision = decide(ARRAY, (MEMBERS[0], blank(1)), [], record)
    assert decision.action == REFUSE
    assert "`mdadm --assemble --run /dev/md/bedplate-weights /dev/disk/by-id/virtio-leg0`" in decision.sentence


def test_what_the_kernel_holds_is_started_where_it_is():
    """As after a boot: with the disk in an array that was not started, mdadm would not put it into another one."""
    decision = decide(ARRAY, (member_disk(0, "md127"), blank(1)), [stopped(member(0))], RECORD)
    assert "start it with that: `mdadm --run /dev/md127`, and roll out again" in decision.sentence
    decision = decide(ARRAY, (member_disk(0, "md127"), absent(1)), [stopped(member(0))], RECORD)
    assert "start it with that (`mdadm --run /dev/md127`)" in decision.sentence


def test_nothing_is_made_over_anything_but_what_was_begun():
    """Every combination: an array is made only of disks that are blank, or where making it was begun."""
    disks = [(blank(n), member_disk(n), member_disk(n, uuid=OTHER), blank(n, blank=False), absent(n)) for n in (0, 1)]
    live = [[], [WHOLE], [ALONE], [stopped(member(0))]]
    for first, second in itertools.product(*disks):
        for found, record in itertools.product(live, (None, BEGUN, RECORD)):
            decision = decide(ARRAY, (first, second), found, record)
            if decision.action != CREATE:
                continue
            assert record is not RECORD
            assert WHOLE not in found
            assert ALONE not in found
            for disk in (first, second):
                ours = record is BEGUN and (disk.superblock is None or disk.superblock.uuid == UUID)
                assert disk.device.path
                assert disk.device.blank or ours


# --- starting ---


@pytest.mark.parametrize("record", [None, RECORD, BEGUN])
def test_members_that_are_all_there_are_started(record: Record | None):
    assert decide(ARRAY, MEMBERS, [], record) == Decision(ASSEMBLE)
    held = (member_disk(0, "md127"), member_disk(1))
    assert decide(ARRAY, held, [stopped(member(0))], record) == Decision(ASSEMBLE, stop="md127")


def test_a_member_that_lags_behind_does_not_hinder():
    """The array went on without leg 1, which does not know that: mdadm takes the newer one."""
    assert decide(ARRAY, (member_disk(0, roles=WITHOUT_1), member_disk(1)), [], RECORD) == Decision(ASSEMBLE)


def test_two_members_that_were_written_apart_are_refused():
    apart = (member_disk(0, roles=WITHOUT_1), member_disk(1, roles=WITHOUT_0))
    decision = decide(ARRAY, apart, [], RECORD)
    assert decision.action == REFUSE
    assert "/dev/vdb and /dev/vdc were written one without the other" in decision.sentence


@pytest.mark.parametrize(
    ("disks", "record", "said"),
    [
        ((member_disk(0), member_disk(1, uuid=OTHER)), None, "are of more than one array"),
        ((member_disk(0, uuid=OTHER), member_disk(1, uuid=OTHER)), RECORD, f"remembers weights as {UUID}"),
        ((member_disk(0, name="host:weights"), member_disk(1)), None, "declared is bedplate:weights"),
        ((member_disk(0, members=3), member_disk(1, members=3)), None, "level 1 of 3 disks, declared is level 1 of 2"),
        ((member_disk(0, level=0), member_disk(1, level=0)), None, "level 0 of 2 disks, declared is level 1 of 2"),
        (MEMBERS, replace(RECORD, level=0), "remembers weights with level 0, declared is 1"),
        (
            (member_disk(0), absent(1)),
            RECORD,
            "virtio-leg1 is not there: no such device, look with `ls -l /dev/disk/by-id`; weights is not running: if"
            " /dev/vdb is the newest",
        ),
    ],
)
def test_members_that_do_not_agree_are_refused(disks: tuple[Disk, Disk], record: Record | None, said: str):
    decision = decide(ARRAY, disks, [], record)
    assert decision.action == REFUSE
    assert said in decision.sentence


def test_half_an_array_with_a_stranger_is_left_alone():
    found = [stopped(member(0), member(3))]
    decision = decide(ARRAY, (member_disk(0, "md127"), member_disk(1)), found, RECORD)
    assert "/dev/md127 was not started and holds /dev/vde (serial number leg3)" in decision.sentence


# --- running ---


@pytest.mark.parametrize("record", [None, RECORD, BEGUN])
def test_what_runs_is_kept(record: Record | None):
    assert decide(ARRAY, IN_USE, [WHOLE], record) == Decision(KEEP)


def test_what_runs_without_a_disk_is_kept():
    """What is missing is for the check to say, and for a person to bring."""
    assert decide(ARRAY, (IN_USE[0], absent(1)), [ALONE], RECORD) == Decision(KEEP)
    assert decide(ARRAY, IN_USE, [FAILED], RECORD) == Decision(KEEP)
    assert decide(EXCHANGED, (IN_USE[0], absent(2)), [FAILED], RECORD) == Decision(KEEP)
    unnoticed = running(member(0), member(1, "in_sync", path=""))
    assert decide(ARRAY, (IN_USE[0], absent(1)), [unnoticed], RECORD) == Decision(KEEP)
    broken = replace(blank(1), unreadable="/dev/vdc cannot be read: EIO")
    assert decide(ARRAY, (IN_USE[0], broken), [ALONE], RECORD) == Decision(KEEP)


def test_a_failed_disk_is_exchanged():
    wanted = Decision(REPAIR, remove=("vdc",), add=(leg(2).device,))
    assert decide(EXCHANGED, (IN_USE[0], blank(2)), [FAILED], RECORD) == wanted
    # The same without the failed one, which somebody took out already, and where its device is gone.
    assert decide(EXCHANGED, (IN_USE[0], blank(2)), [ALONE], RECORD) == Decision(REPAIR, add=(leg(2).device,))
    gone = running(member(0), member(1, "faulty", path=""), degraded=1)
    assert decide(EXCHANGED, (IN_USE[0], blank(2)), [gone], RECORD) == wanted


def test_a_disk_that_is_gone_and_that_the_kernel_did_not_miss_yet_is_exchanged():
    unnoticed = running(member(0), member(1, "in_sync", path=""))
    wanted = Decision(REPAIR, remove=("vdc",), add=(leg(2).device,))
    assert decide(EXCHANGED, (IN_USE[0], blank(2)), [unnoticed], RECORD) == wanted


def test_a_member_that_was_away_is_taken_back():
    assert decide(ARRAY, (IN_USE[0], MEMBERS[1]), [ALONE], RECORD) == Decision(REPAIR, re_add=(leg(1).device,))


def test_a_member_that_was_written_apart_is_not_taken_back():
    decision = decide(ARRAY, (IN_USE[0], member_disk(1, roles=WITHOUT_0)), [ALONE], RECORD)
    assert decision.action == REFUSE
    assert "/dev/vdc was written without /dev/vdb (serial number leg0), which runs as /dev/md127" in decision.sentence


def test_a_healthy_member_that_is_no_longer_declared_stays():
    decision = decide(EXCHANGED, (IN_USE[0], blank(2)), [WHOLE], RECORD)
    assert decision.action == REFUSE
    assert decision.sentence.startswith(
        "/dev/vdc (serial number leg1) is a healthy member of /dev/md127 and not declared"
    )
    filled = running(member(0), member(1, "spare"), degraded=1)
    assert "is a healthy member" in decide(EXCHANGED, (IN_USE[0], blank(2)), [filled], RECORD).sentence


@pytest.mark.parametrize(
    ("disk", "said"),
    [
        (blank(2, signatures=EXT4, blank=None), "/dev/vdd holds ext4 at byte 1080"),
        (blank(2, blank=False), "/dev/vdd is not empty"),
        (blank(2, serial="leg9"), "with the serial number leg9, declared is leg2"),
        (blank(2, mounts=("/srv",)), "/dev/vdd is in use at /srv"),
        (member_disk(2, uuid=OTHER, name="nas:0"), "/dev/vdd is a member of array nas:0"),
        (replace(blank(2), volume="1234"), "remembers encrypted volume 1234 on /dev/vdd"),
    ],
)
def test_a_new_disk_that_is_not_empty_is_refused_and_the_failed_one_stays(disk: Disk, said: str):
    decision = decide(EXCHANGED, (IN_USE[0], disk), [FAILED], RECORD)
    assert (decision.action, decision.remove) == (REFUSE, ())
    assert said in decision.sentence


@pytest.mark.parametrize(
    ("live", "record", "said"),
    [
        (replace(WHOLE, name="nas:0"), None, "/dev/md127 belongs to array nas:0"),
        (replace(WHOLE, uuid=OTHER), RECORD, f"this host remembers weights as {UUID}"),
        (replace(WHOLE, level="raid0"), RECORD, "raid0 of 2 disks with metadata 1.2, declared is raid1 of 2"),
        (replace(WHOLE, places=3), RECORD, "raid1 of 3 disks"),
        (replace(WHOLE, metadata="1.0"), RECORD, "with metadata 1.0"),
    ],
)
def test_another_array_on_the_declared_disks_is_left_alone(live: Running, record: Record | None, said: str):
    decision = decide(ARRAY, IN_USE, [live], record)
    assert decision.action == REFUSE
    assert said in decision.sentence


def test_two_arrays_of_the_name_are_left_alone():
    decision = decide(ARRAY, IN_USE, [ALONE, replace(WHOLE, kernel="md126", uuid=OTHER)], RECORD)
    assert decision.action == REFUSE
    assert "/dev/md127 (bedplate:weights, UUID 0f8f6c1e" in decision.sentence
    assert "/dev/md126" in decision.sentence


def test_a_striped_array_is_never_mended():
    striped = {"name": "bedplate:scratch", "level": 0}
    live = running(member(0), member(1), name="bedplate:scratch", level="raid0")
    record = Record("scratch", UUID, 0, ("leg0", "leg1"), "ready")
    disks = (member_disk(0, "md127", **striped), member_disk(1, "md127", **striped))
    assert decide(STRIPED, disks, [live], record) == Decision(KEEP)
    alone = replace(live, members=(member(0),))
    assert "of which none can be exchanged" in decide(STRIPED, (disks[0], blank(1)), [alone], record).sentence
