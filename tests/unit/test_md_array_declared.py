"""What a site may say about its arrays."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.filter.md_arrays import md_array_problems
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_declared import parse
from md_samples import ARRAY, SIZE


def leg(name: str, **changed: Any) -> dict[str, Any]:
    return {"device": f"/dev/disk/by-id/virtio-{name}", "serial": name, "size": "192M", **changed}


def entry(**changed: Any) -> dict[str, Any]:
    fields = {"name": "weights", "level": 1, "devices": [leg("leg0"), leg("leg1")], **changed}
    return {key: value for key, value in fields.items() if value is not None}


def test_an_array_as_it_is_declared():
    arrays, problems = parse([entry()])
    assert problems == []
    assert arrays == [ARRAY]
    assert arrays[0].label == "bedplate:weights"
    assert arrays[0].device == "/dev/disk/by-id/md-name-bedplate:weights"
    assert arrays[0].node == "/dev/md/bedplate-weights"
    assert arrays[0].legs[0].size == SIZE


def test_options():
    striped = parse([entry(level="0", chunk="64K")])[0][0]
    assert (striped.level, striped.chunk, striped.bitmap) == (0, 65536, False)
    assert not parse([entry(bitmap=False)])[0][0].bitmap


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "a" * 23}, "name: give small letters, digits and dashes, at most 22"),
        ({"name": None}, "name: give small letters"),
        ({"name": "two words"}, "name: give small letters"),
        ({"level": 5}, "level: give 1 (all on every disk) or 0 (spread over all disks), found 5"),
        ({"level": None}, "level: give 1"),
        ({"level": True}, "level: give 1"),
        ({"devices": [leg("leg0")]}, "devices: give two disks or more"),
        ({"devices": "vdb vdc"}, "devices: give two disks or more"),
        ({"devices": [leg("leg0"), "vdc"]}, "devices[1]: give device, serial and size, found 'vdc'"),
        ({"devices": [leg("leg0"), leg("leg1", spare=True)]}, "devices[1]: unknown key spare"),
        (
            {"devices": [leg("leg0"), leg("leg1", device="/dev/vdc")]},
            "devices[1]: device: give a name below /dev/disk/by-id",
        ),
        ({"devices": [leg("leg0"), leg("leg1", serial="")]}, "devices[1]: serial: give the device's serial number"),
        ({"devices": [leg("leg0"), leg("leg1", size="big")]}, "devices[1]: size: give bytes"),
        ({"devices": [leg("leg0"), leg("leg0")]}, "serial leg0 is given twice"),
        ({"level": 0, "bitmap": True}, "bitmap: an array of level 0 has none"),
        ({"bitmap": "internal"}, "bitmap: give true or false, found 'internal'"),
        ({"chunk": "64K"}, "chunk: only an array of level 0 has it"),
        ({"level": 0, "chunk": "65K"}, "chunk: give a power of two"),
        ({"level": 0, "chunk": "much"}, "chunk: give bytes"),
        ({"spares": 1}, "unknown key spares"),
    ],
)
def test_what_cannot_work(changed: dict[str, Any], said: str):
    arrays, problems = parse([entry(**changed)])
    assert said in " ".join(problems)
    assert all("md_arrays" in problem for problem in problems)
    assert not arrays or "given twice" in said


def test_something_that_is_no_mapping():
    assert "an array is a mapping of" in parse(["weights"])[1][0]  # type: ignore[list-item]


def test_two_arrays_share_nothing():
    problems = parse([entry(), entry(devices=[leg("leg1"), leg("leg2")])])[1]
    assert problems == [
        "md_arrays: name weights is given twice; every array has its own.",
        "md_arrays: device /dev/disk/by-id/virtio-leg1 is given twice; a disk belongs to one array, once.",
        "md_arrays: serial leg1 is given twice; a disk belongs to one array, once.",
    ]


def test_a_disk_is_an_arrays_or_a_volumes():
    volumes = [{"name": "models", **leg("leg1")}, {"name": "scratch", "array": "weights"}]
    assert md_array_problems([entry()], volumes) == [
        "md_arrays: device /dev/disk/by-id/virtio-leg1 is also that of a volume in luks_volumes; give it to one.",
        "md_arrays: serial leg1 is also that of a volume in luks_volumes; give it to one.",
    ]
    assert md_array_problems([entry()], volumes[1:]) == []
