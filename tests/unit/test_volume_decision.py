"""When a device may be formatted: every combination of what is on it and what is remembered of it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.block_device import Device, Mapping, Signature
from ansible_collections.bedplate.llm.plugins.module_utils.volume_decision import (
    BACK_UP,
    FORMAT,
    KEEP,
    MAKE_FILESYSTEM,
    REFUSE,
    decide,
)
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import (
    ERASED,
    FORMATTED,
    FORMATTING,
    MAKING_FILESYSTEM,
    READY,
    STATES,
)
from volume_samples import (
    CRYPTO,
    DAMAGED,
    ERASED_ESCROW,
    EXT4,
    FOREIGN,
    FOREIGN_KEYLESS,
    KEPT,
    LUKS1,
    NO_LUKS,
    OTHER,
    OTHERS_KEPT,
    OTHERS_PREPARED,
    OURS,
    OURS_KEYLESS,
    PREPARED,
    UUID,
    VOLUME,
    device,
    record,
    scanned,
)

HEADERS = {
    "no header": NO_LUKS,
    "ours": OURS,
    "ours without a key": OURS_KEYLESS,
    "foreign": FOREIGN,
    "foreign without a key": FOREIGN_KEYLESS,
    "damaged": DAMAGED,
    "LUKS1": LUKS1,
}
RECORDS = {
    "no record": None,
    **{state: record(state) for state in STATES},
    **{f"{state}, confirmed": record(state, confirmed=True) for state in STATES},
    **{f"{state}, of another volume": record(state, OTHER) for state in STATES},
}
ESCROWS = {
    "no escrow": None,
    "prepared": PREPARED,
    "with a backup": KEPT,
    "erased": ERASED_ESCROW,
    "prepared for another volume": OTHERS_PREPARED,
    "with another volume's backup": OTHERS_KEPT,
}
# What the device holds beside a LUKS header, and who uses it.
CONTENTS = {
    "blank": {},
    "bytes in front": {"blank": False},
    "bytes everywhere": {"blank": False, "blank_behind": False},
    "nobody looked": {"blank": None, "blank_behind": None},
    "ext4": {"signatures": EXT4, "blank": None, "blank_behind": None},
    "ext4 and LUKS": {"signatures": CRYPTO + EXT4, "blank": None},
    "GPT": {"signatures": (Signature("gpt", 512),), "children": ("vdb1",), "blank": None, "blank_behind": None},
    "array member": {"array_member": True},
    "mounted": {"mounts": ("/mnt",), "exclusive": False},
    "held": {"holders": ("md0",), "exclusive": False},
    "in use": {"exclusive": False},
    "read-only": {"read_only": True},
}
ALL = list(itertools.product(HEADERS, RECORDS, ESCROWS, CONTENTS, (False, True)))


def disk(header: str, content: str) -> Device:
    return device(HEADERS[header], **CONTENTS[content])


def answers():
    for header, remembered, escrow, content, confirmed in ALL:
        found = disk(header, content)
        decision = decide(VOLUME, found, RECORDS[remembered], ESCROWS[escrow], confirmed)
        yield (header, remembered, escrow, content, confirmed), found, decision


def test_nothing_is_ever_formatted_where_a_header_has_a_key_slot():
    held = [case for case, found, decision in answers() if found.luks.header and found.luks.header.keyslots]
    assert len(held) > 1000
    for case, found, decision in answers():
        if found.luks.header and found.luks.header.keyslots:
            assert decision.action != FORMAT, case


def test_only_an_empty_device_or_one_that_we_began_to_format_is_formatted():
    formatted = 0
    for case, found, decision in answers():
        if decision.action != FORMAT:
            continue
        formatted += 1
        _header, remembered, escrowed, _content, confirmed = case
        entry, escrow = RECORDS[remembered], ESCROWS[escrowed]
        at_rest = found.exclusive and not (found.mounts or found.holders or found.children or found.read_only)
        recognised = any(signature not in CRYPTO for signature in found.signatures) or found.array_member
        assert at_rest and not recognised, case
        assert escrow is None or escrow.erased or not escrow.backups, case
        if entry and entry.state == FORMATTING:
            assert escrow is None or escrow.erased or escrow.uuid == entry.uuid, case
            assert found.luks.header is None or found.luks.header.uuid == entry.uuid, case
            assert found.blank_behind or entry.confirmed, case
            assert found.luks.version != 1, case
        else:
            assert entry is None or entry.state == ERASED, case
            assert not found.luks.traces, case
            assert found.blank or confirmed, case
    assert formatted > 10


def test_a_device_with_a_volume_in_use_is_never_formatted():
    for case, _found, decision in answers():
        _header, remembered, escrowed, _content, _confirmed = case
        entry, escrow = RECORDS[remembered], ESCROWS[escrowed]
        begun = entry and entry.state in (FORMATTED, MAKING_FILESYSTEM, READY)
        if begun or (escrow and escrow.backups):
            assert decision.action != FORMAT, case


def test_only_our_own_header_with_a_key_is_worked_with():
    for case, found, decision in answers():
        if decision.action not in (KEEP, BACK_UP, MAKE_FILESYSTEM):
            continue
        _header, remembered, escrowed, _content, _confirmed = case
        known = {
            entry.uuid
            for entry in (RECORDS[remembered], ESCROWS[escrowed])
            if entry and not getattr(entry, "erased", "") and getattr(entry, "state", "") != ERASED
        }
        assert found.luks.header, case
        assert {found.luks.header.uuid} == known, case


def test_a_file_system_is_made_only_between_the_backup_and_the_first_mount():
    for case, _found, decision in answers():
        entry, escrow = RECORDS[case[1]], ESCROWS[case[2]]
        if decision.action == MAKE_FILESYSTEM:
            assert entry, case
            assert entry.state in (FORMATTED, MAKING_FILESYSTEM), case
            assert escrow, case
            assert escrow.backups, case


def test_every_refusal_says_why_and_nothing_else_does():
    for case, found, decision in answers():
        assert bool(decision.problems) == (decision.action == REFUSE), case
        assert all(found.path in problem for problem in decision.problems), case


def test_a_confirmation_changes_the_answer_only_where_unrecognised_bytes_stood_in_the_way():
    plain = {case[:4]: decision for case, _found, decision in answers() if not case[4]}
    for case, found, decision in answers():
        before = plain[case[:4]]
        if case[4] and decision != before:
            assert (before.action, decision.action) == (REFUSE, FORMAT), case
            assert "nothing recognises" in before.sentence, case
            assert not found.luks.traces, case


# What is on the device, the host's record, the escrow -> the answer, and words of the refusal.
@pytest.mark.parametrize(
    ("header", "remembered", "escrow", "expected"),
    [
        # A life without accidents.
        ("no header", "no record", "no escrow", FORMAT),
        ("no header", "no record", "prepared", FORMAT),
        ("no header", "formatting", "prepared", FORMAT),
        ("damaged", "formatting", "prepared", FORMAT),
        ("ours without a key", "formatting", "prepared", FORMAT),
        ("ours", "formatting", "prepared", BACK_UP),
        ("ours", "formatting", "with a backup", BACK_UP),
        ("ours", "formatted", "with a backup", MAKE_FILESYSTEM),
        ("ours", "making-filesystem", "with a backup", MAKE_FILESYSTEM),
        ("ours", "ready", "with a backup", KEEP),
        # The host was installed anew.
        ("ours", "no record", "with a backup", KEEP),
        ("ours", "no record", "prepared", BACK_UP),
        # The escrow is gone, or from before the backup.
        ("ours", "ready", "no escrow", BACK_UP),
        ("ours", "ready", "prepared", BACK_UP),
        # Erased by somebody's wish: the device starts anew.
        ("no header", "erased", "erased", FORMAT),
        ("no header", "erased", "no escrow", FORMAT),
        ("no header", "no record", "erased", FORMAT),
        # Accidents.
        ("no header", "no record", "with a backup", "the escrow has a backup of the header of volume"),
        ("no header", "formatted", "with a backup", "this host remembers volume"),
        ("no header", "ready", "no escrow", "its header is damaged or the disk was exchanged"),
        ("damaged", "ready", "with a backup", "bedplate volume restore"),
        ("no header", "formatting", "with a backup", "was not finished and the escrow has a backup"),
        ("ours without a key", "ready", "with a backup", "a header without a key: it was erased"),
        ("ours without a key", "formatting", "with a backup", "was not finished and the escrow has a backup"),
        ("ours without a key", "no record", "with a backup", "a header without a key: it was erased"),
        ("ours without a key", "no record", "prepared", "a header without a key: it was erased"),
        ("LUKS1", "formatting", "prepared", "holds a LUKS1 volume, after formatting it was begun"),
        ("LUKS1", "formatting, confirmed", "prepared", "holds a LUKS1 volume, after formatting it was begun"),
        ("ours", "no record", "no escrow", "neither this host nor the escrow knows it"),
        ("ours", "erased", "erased", "neither this host nor the escrow knows it"),
        ("foreign", "ready", "with a backup", f"the volume known here is {UUID}"),
        ("foreign", "formatting", "prepared", f"the volume known here is {UUID}"),
        ("foreign without a key", "formatting", "prepared", f"the volume known here is {UUID}"),
        ("damaged", "no record", "no escrow", "holds a damaged LUKS header"),
        ("LUKS1", "no record", "no escrow", "holds a LUKS1 volume"),
        ("ours", "ready", "with another volume's backup", "two sites may have the same device declared"),
        ("no header", "formatting", "prepared for another volume", "two sites may have the same device declared"),
    ],
)
def test_what_is_there_and_what_is_remembered_decide_together(header, remembered, escrow, expected):
    decision = decide(VOLUME, disk(header, "blank"), RECORDS[remembered], ESCROWS[escrow])
    assert decision.action == (expected if " " not in expected else REFUSE)
    assert " " not in expected or expected in decision.sentence


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("ext4", "holds ext4 at byte 1080, after formatting it was begun"),
        ("array member", "member of a RAID array, after formatting it was begun"),
        ("mounted", "in use at /mnt, after"),
        ("bytes everywhere", "holds bytes behind the place of its header, after"),
    ],
)
def test_formatting_that_was_begun_stops_where_something_else_has_come_since(content, words):
    decision = decide(VOLUME, disk("no header", content), record(FORMATTING), PREPARED)
    assert decision.action == REFUSE
    assert words in decision.sentence


def test_formatting_that_a_confirmation_began_needs_none_to_be_finished():
    found = device(blank=False, blank_behind=False)
    assert decide(VOLUME, found, record(FORMATTING, confirmed=True), PREPARED).action == FORMAT
    assert decide(VOLUME, found, record(FORMATTING), PREPARED, confirmed=True).action == REFUSE


@pytest.mark.parametrize("changed", [{"serial": "data1"}, {"size": 1}, {"path": ""}])
def test_another_device_than_the_declared_one_is_refused_before_anything_else(changed):
    for luks, entry, escrow in ((NO_LUKS, None, None), (OURS, record(READY), KEPT)):
        assert decide(VOLUME, replace(device(luks), **changed), entry, escrow, confirmed=True).action == REFUSE


def test_a_mapping_that_is_not_the_volume_in_the_header_is_refused():
    ours = Mapping("models", f"CRYPT-LUKS2-{UUID.replace('-', '')}-models", "/dev/mapper/models")
    theirs = Mapping("vg0-lv0", "LVM-7I51AF", "/dev/mapper/vg0-lv0")
    kept = decide(VOLUME, device(OURS, mappings=(ours,), exclusive=False), record(READY), KEPT)
    assert kept.action == KEEP
    refused = decide(VOLUME, device(OURS, mappings=(theirs,), exclusive=False), record(READY), KEPT)
    assert "held by vg0-lv0, which is not the volume in its header" in refused.sentence


@pytest.mark.parametrize("state", STATES[:4])
def test_the_newest_header_counts_for_a_volume_whose_first_copy_is_gone(state):
    half = replace(scanned(), primary=None, damaged=(0,))
    whole = decide(VOLUME, device(OURS), record(state), KEPT)
    assert decide(VOLUME, device(half), record(state), KEPT).action == whole.action != REFUSE
