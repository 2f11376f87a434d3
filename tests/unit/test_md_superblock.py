"""Superblocks of Linux's RAID: those of a real kernel, and everything that is none."""

from __future__ import annotations

import gzip
from pathlib import Path

import md_samples
import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import md_superblock

HEADERS = Path(__file__).parent / "volume_headers"


def parse(content: bytes) -> md_superblock.Superblock | None:
    return md_superblock.parse(content[: md_superblock.LENGTH])


def test_what_was_written_is_read():
    assert parse(md_samples.block(1)) == md_samples.superblock(1, roles=(0, 1, *[md_superblock.SPARE] * 126))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(4096),
        md_samples.block()[:2048],
        md_samples.block().replace(b"bedplate:weights", b"bedplate:weightz"),  # the checksum does not hold
        b"\0" * 4 + md_samples.block()[4:],
        md_samples.block()[:220] + b"\xff\xff\xff\xff" + md_samples.block()[224:],  # more roles than there is room for
    ],
)
def test_what_is_none(content: bytes):
    assert parse(content) is None


def test_who_dropped_out_is_known():
    alone = md_samples.superblock(roles=md_samples.WITHOUT_1)
    assert alone.knows_as_failed(1)
    assert not alone.knows_as_failed(0)
    assert not alone.knows_as_failed(7), "of a disk that came later nothing is known"


@pytest.mark.parametrize(("name", "number", "level", "bitmap"), [("md_leg0", 0, 1, True), ("md_leg1", 1, 1, True)])
def test_a_real_kernels_superblock(name: str, number: int, level: int, bitmap: bool):
    """Read with dd on the lab's machine from an array that the role made there; the UUID is the one that it chose."""
    found = parse(gzip.decompress((HEADERS / f"{name}.bin.gz").read_bytes()))
    assert found
    assert (found.name, found.level, found.members) == ("bedplate:weights", level, 2)
    assert (found.number, found.bitmap) == (number, bitmap)
    assert found.roles[:2] == (0, 1)
    assert found.data_offset == 1 << 20
