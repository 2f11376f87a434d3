# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Changes the ways of unlocking a volume: the new one is added and proved before the old one is taken out.

What is old is found by trying, never by a number: a run that was cut off may have left two of a kind, in any order.
"""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import volume_enroll, volume_methods
from ansible_collections.bedplate.llm.plugins.module_utils.cryptsetup import Cost, Cryptsetup
from ansible_collections.bedplate.llm.plugins.module_utils.volume_host import VolumeError, VolumeHost
from ansible_collections.bedplate.llm.plugins.module_utils.volume_methods import RECOVERY, Way


def which(host: VolumeHost, passphrases: Sequence[str]) -> int:
    """The first of some passphrases that opens the volume; -1 when none does."""
    cryptsetup = host.cryptsetup(host.existing())
    return next((number for number, one in enumerate(passphrases) if cryptsetup.opens(one)), -1)


def add_passphrase(host: VolumeHost, passphrases: Sequence[str], cost: Cost) -> None:
    """Have a key slot for the first of the passphrases, by one of the others."""
    look = host.existing()
    new, former = passphrases[0], passphrases[1:]
    cryptsetup = host.cryptsetup(look)
    if cryptsetup.opens(new):
        return
    opening = next((one for one in former if cryptsetup.opens(one)), None)
    if opening is None:
        raise VolumeError(f"{host.volume.name}: none of the escrow's passphrases opens it, so that none can be added")
    slot = cryptsetup.add_passphrase(opening, new, cost)
    if not cryptsetup.opens(new, slot):
        cryptsetup.remove_slot(slot, opening)
        raise VolumeError(f"{host.volume.name}: the new passphrase does not open its key slot, and was taken out")


def drop_passphrases(host: VolumeHost, passphrases: Sequence[str]) -> Tuple[List[int], List[int]]:
    """Take out the key slots of all passphrases but the first; those slots, and those that none of them opens."""
    look = host.existing()
    new, former = passphrases[0], passphrases[1:]
    cryptsetup = host.cryptsetup(look)
    slots = [way.keyslot for way in volume_methods.ways(look.header) if way.method == RECOVERY]
    kept = _slot_of(cryptsetup, new, slots)
    if kept is None:
        raise VolumeError(f"{host.volume.name}: the new passphrase opens no key slot, so that no other is taken out")
    old: List[int] = []
    unknown: List[int] = []
    for slot in slots:
        if slot == kept:
            continue
        known = any(cryptsetup.opens(one, slot) for one in passphrases)
        (old if known else unknown).append(slot)
    for slot in old:
        cryptsetup.remove_slot(slot, new)
    if any(cryptsetup.opens(one) for one in former):
        raise VolumeError(f"{host.volume.name}: a former passphrase still opens it")
    return old, unknown


def drop_ways(host: VolumeHost, method: str, keyslot: int, passphrase: str) -> List[int]:
    """Take out every way of a method but that of one key slot, which is proved once more; their key slots."""
    look = host.existing()
    present = [way for way in volume_methods.ways(look.header) if way.method == method]
    kept = _way_of(present, keyslot)
    problem = volume_enroll.problem(host.run, look.device.path, look.header, kept) if kept else "it is not there"
    if problem:
        raise VolumeError(
            f"{host.volume.name}: the new {method} in key slot {keyslot} does not open it, so that the former one"
            f" stays: {problem}"
        )
    old = [way for way in present if way != kept]
    for way in old:
        volume_enroll.remove(host.run, look.device.path, way, passphrase)
    return [way.keyslot for way in old]


def _way_of(ways: Sequence[Way], keyslot: int) -> Optional[Way]:
    return next((way for way in ways if way.keyslot == keyslot), None)


def _slot_of(cryptsetup: Cryptsetup, passphrase: str, slots: Sequence[int]) -> Optional[int]:
    return next((slot for slot in slots if cryptsetup.opens(passphrase, slot)), None)
