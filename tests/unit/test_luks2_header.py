"""What is read from a LUKS2 header, and what is found of a damaged one."""

from __future__ import annotations

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.luks2_header import SIZES, Scan, of_backup, scan
from volume_samples import COPY, OTHER, REAL, UUID, both_copies, metadata, one_copy, reads

ZEROS = bytes(1 << 16)


def changed(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def summary(content: bytes) -> tuple[bool, bool, int, tuple[int, ...]]:
    found = scan(reads(content))
    return found.primary is not None, found.secondary is not None, found.version, found.damaged


def test_the_header_of_a_real_volume_is_read_whole():
    found = scan(reads(REAL))
    assert found.primary
    assert found.secondary
    assert found.primary.metadata == found.secondary.metadata
    header = found.header
    assert header
    assert (header.uuid, header.label, header.sequence) == (UUID, "models", 3)
    assert (header.keyslots, header.tokens, header.flags) == ((0,), (), ())
    assert (header.cipher, header.key_bits, header.sector_size) == ("aes-xts-plain64", 512, 4096)
    assert header.data_offset == 16 << 20
    assert (found.version, found.damaged) == (2, ())


# Content -> first copy, second copy, version, offsets of what is damaged.
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (ZEROS, (False, False, 0, ())),
        (b"", (False, False, 0, ())),
        (REAL, (True, True, 2, ())),
        (changed(REAL, 0, bytes(4096)), (False, True, 2, ())),
        (changed(REAL, 0, bytes(COPY)), (False, True, 2, ())),
        (changed(REAL, COPY, bytes(COPY)), (True, False, 2, ())),
        (changed(REAL, 5000, b"\xff"), (False, True, 2, (0,))),
        (changed(REAL, COPY + 5000, b"\xff"), (True, False, 2, (COPY,))),
        (changed(changed(REAL, 5000, b"\xff"), COPY + 5000, b"\xff"), (False, False, 2, (0, COPY))),
        (changed(changed(REAL, 0, bytes(4096)), COPY + 5000, b"\xff"), (False, False, 0, (COPY,))),
        # Cut off in the middle of the first copy, as by the end of a short file.
        (REAL[: COPY // 2], (False, False, 2, (0,))),
        (b"LUKS\xba\xbe\0\1" + ZEROS, (False, False, 1, ())),
        (b"LUKS\xba\xbe\0\0" + ZEROS, (False, False, 0, (0,))),
        (b"LUKS\xba\xbe\0\7" + ZEROS, (False, False, 7, (0,))),
        (one_copy(b"{not json") + ZEROS, (False, False, 2, (0,))),
        (one_copy(b"[]") + ZEROS, (False, False, 2, (0,))),
        (one_copy(metadata(), size=0x5000) + ZEROS, (False, False, 2, (0,))),
        # A whole header that was copied to another place is none there.
        (bytes(COPY) + changed(one_copy(metadata()), 0, b"SKUL"), (False, False, 0, (COPY,))),
    ],
)
def test_every_copy_is_judged_by_itself(content, expected):
    assert summary(content) == expected


@pytest.mark.parametrize("size", SIZES)
def test_a_second_copy_is_found_wherever_the_format_lets_it_begin(size):
    whole = both_copies(metadata(), size=size)
    found = scan(reads(changed(whole, 0, bytes(4096))))
    assert found.primary is None
    assert found.header
    assert (found.header.uuid, found.header.offset) == (UUID, size)


@pytest.mark.parametrize(("first", "second", "newest"), [(4, 3, 4), (3, 4, 4), (3, 3, 3)])
def test_of_two_copies_the_newer_counts(first, second, newest):
    found = scan(reads(one_copy(metadata(), sequence=first) + one_copy(metadata(), sequence=second, offset=COPY)))
    assert found.header
    assert found.header.sequence == newest


@pytest.mark.parametrize(
    ("found", "traces"),
    [(Scan(), False), (Scan(version=1), True), (Scan(damaged=(COPY,)), True), (scan(reads(REAL)), True)],
)
def test_whatever_is_left_of_luks_is_a_trace(found, traces):
    assert found.traces is traces


def test_tokens_name_their_key_slots():
    tokens = {"1": {"type": "clevis", "keyslots": ["2"], "jwe": {}}, "0": {"type": "systemd-tpm2", "keyslots": ["1"]}}
    header = scan(reads(one_copy(metadata((2, 0, 1), tokens=tokens)))).header
    assert header
    assert header.keyslots == (0, 1, 2)
    assert [(token.number, token.type, token.keyslots) for token in header.tokens] == [
        (0, "systemd-tpm2", (1,)),
        (1, "clevis", (2,)),
    ]


def test_a_header_without_keys_says_so():
    header = scan(reads(one_copy(metadata(())))).header
    assert header
    assert (header.keyslots, header.key_bits) == ((), 0)


@pytest.mark.parametrize(
    ("content", "uuid"),
    [
        (REAL, UUID),
        (both_copies(metadata(), OTHER), OTHER),
        (changed(REAL, 5000, b"\xff"), None),
        (bytes(COPY) + REAL[COPY:], None),
        (b"", None),
    ],
)
def test_a_backup_is_its_first_copy(content, uuid):
    found = of_backup(content)
    assert (found.uuid if found else None) == uuid


def test_a_second_copy_of_another_volume_is_no_copy_of_this_one():
    """As a disk has it that carried a volume with a longer header before."""
    ours = one_copy(metadata(), UUID, 3) + one_copy(metadata(), UUID, 3, COPY)
    left = ours.ljust(0x8000, b"\0") + one_copy(metadata(), OTHER, 90, 0x8000, 0x8000)
    found = scan(reads(left))
    assert found.header
    assert (found.header.uuid, found.damaged) == (UUID, ())
    assert found.secondary
    assert found.secondary.offset == COPY


def test_a_second_copy_with_another_uuid_where_ours_belongs_is_damage():
    found = scan(reads(one_copy(metadata(), UUID, 3) + one_copy(metadata(), OTHER, 90, COPY)))
    assert found.header
    assert (found.header.uuid, found.secondary, found.damaged) == (UUID, None, (COPY,))


@pytest.mark.parametrize("name", [b"shake_128", b"md6", b"\xff"])
def test_a_checksum_that_cannot_be_computed_is_damage(name):
    assert summary(changed(one_copy(metadata()), 72, name.ljust(32, b"\0")) + ZEROS) == (False, False, 2, (0,))
