"""Arrays, disks and superblocks for the tests of `md_array`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from ansible_collections.bedplate.llm.plugins.module_utils import md_superblock
from ansible_collections.bedplate.llm.plugins.module_utils.block_device import Device, Signature
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_declared import Array, Leg
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_found import Disk, Member, Running
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_record import CREATING, READY, Record
from ansible_collections.bedplate.llm.plugins.module_utils.md_superblock import FAULTY, SPARE, Superblock

UUID = "0f8f6c1e:2b4d4a7b:9d0c7d1f:5e6a7b8c"
OTHER = "11111111:22222222:33333333:44444444"
SIZE = 192 << 20
MEMBER = (Signature("linux_raid_member", 4096),)


def leg(number: int, serial: str = "") -> Leg:
    serial = serial or f"leg{number}"
    return Leg(f"/dev/disk/by-id/virtio-{serial}", serial, SIZE)


ARRAY = Array("weights", 1, (leg(0), leg(1)))
# As after leg 1 failed and the operator declared another disk.
EXCHANGED = Array("weights", 1, (leg(0), leg(2)))
STRIPED = Array("scratch", 0, (leg(0), leg(1)))
RECORD = Record("weights", UUID, 1, ("leg0", "leg1"), READY)
BEGUN = Record("weights", UUID, 1, ("leg0", "leg1"), CREATING)


def superblock(number: int = 0, **changed: Any) -> Superblock:
    fields: dict[str, Any] = {"uuid": UUID, "name": "bedplate:weights", "level": 1, "members": 2, "roles": (0, 1)}
    return Superblock(**{**fields, "number": number, "events": 20, "bitmap": True, "data_offset": 1 << 20, **changed})


def block(
    number: int = 0,
    uuid: str = UUID,
    name: str = "bedplate:weights",
    level: int = 1,
    members: int = 2,
    roles: Sequence[int] = (0, 1),
    events: int = 20,
    features: int = 1,
) -> bytes:
    """The bytes of a superblock, as Linux writes them (include/uapi/linux/raid/md_p.h)."""
    room = 128
    made = bytearray(md_superblock.LENGTH)
    struct.pack_into("<III", made, 0, 0xA92B4EFC, 1, features)
    made[16:32] = bytes.fromhex(uuid.replace(":", ""))
    made[32 : 32 + len(name)] = name.encode()
    struct.pack_into("<QiIQII", made, 64, 0, level, 0, 0, 0, members)
    struct.pack_into("<Q", made, 128, 2048)
    struct.pack_into("<I", made, 160, number)
    struct.pack_into("<Q", made, 200, events)
    struct.pack_into("<I", made, 220, room)
    all_roles = [*roles, *([SPARE] * (room - len(roles)))]
    struct.pack_into(f"<{room}H", made, 256, *all_roles)
    total = sum(struct.unpack_from(f"<{(256 + 2 * room) // 4}I", made))
    struct.pack_into("<I", made, 216, (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF)
    return bytes(made)


def device(number: int, **changed: Any) -> Device:
    fields: dict[str, Any] = {"path": f"/dev/vd{'bcde'[number]}", "serial": f"leg{number}", "size": SIZE, "blank": True}
    return Device(leg(number).device, **{**fields, **changed})


def blank(number: int, **changed: Any) -> Disk:
    return Disk(device(number, **changed), blank_behind=True)


def absent(number: int) -> Disk:
    return Disk(Device(leg(number).device))


def member_disk(number: int, held: str = "", **changed: Any) -> Disk:
    """A disk with a superblock.  held: by which array of the kernel's."""
    more: dict[str, Any] = {"holders": (held,), "children": (held,), "exclusive": False} if held else {}
    found = device(number, signatures=MEMBER, array_member=True, blank=None, **more)
    return Disk(found, superblock(number, **changed), blank_behind=True)


def member(place: int, *states: str, **changed: Any) -> Member:
    path = f"/dev/vd{'bcde'[place]}"
    fields: dict[str, Any] = {"path": path, "serial": f"leg{place}", "number": place}
    return Member(path[5:], states=frozenset(states or ("in_sync",)), **{**fields, **changed})


def running(*members: Member, **changed: Any) -> Running:
    fields: dict[str, Any] = {"state": "clean", "uuid": UUID, "name": "bedplate:weights", "level": "raid1", "places": 2}
    fields |= {"bitmap": True, "mismatches": 0}
    return Running("md127", members=members, **{**fields, **changed})


WHOLE = running(member(0), member(1))
FAILED = running(member(0), member(1, "faulty", number=None), degraded=1)
ALONE = running(member(0), degraded=1)
# What a disk says that went on without the other one.
WITHOUT_0, WITHOUT_1 = (FAULTY, 1), (0, FAULTY)
