# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has to hold of a volume that is in use, as checks: pure functions of what was found on the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.cipher_profiles import PROFILES
from ansible_collections.bedplate.llm.plugins.module_utils.volume_decision import KEEP
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import Volume
from ansible_collections.bedplate.llm.plugins.module_utils.volume_host import Look
from ansible_collections.bedplate.llm.plugins.module_utils.volume_methods import (
    ORPHAN,
    RECOVERY,
    Settings,
    fits,
    outdated,
    ways,
)
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import Escrow

_ROLE = "luks_volume"


@dataclass(frozen=True)
class State:
    """One volume as it was found.

    inside: types of what the opened volume holds.  mounted: source and file system at its mount point, if any.
    boot_files: paths that do not hold what they should.  proofs: for a key slot, why it does not open the volume.
    """

    look: Look
    escrow: Optional[Escrow]
    mounted: Tuple[str, str] = ("", "")
    boot_files: Tuple[str, ...] = ()
    proofs: Mapping[int, str] = None  # type: ignore[assignment]


def of_volume(volume: Volume, state: State, settings: Settings) -> List[Check]:
    """Every check of one volume; without a volume only the first says anything."""
    look = state.look
    there = Check(
        _id(volume, "there"),
        look.decision.action == KEEP,
        f"{volume.device} holds volume {look.header.uuid}"
        if look.decision.action == KEEP
        else look.decision.sentence or f"{volume.device} holds no finished volume ({look.decision.action})",
        "roll the site out; where the device was refused, do what the reason says first",
    )
    if not look.device.luks.header or look.decision.action != KEEP:
        return [there]
    return [
        there,
        _encrypted(volume, look),
        _mounted(volume, look, state),
        _two_ways(volume, look, settings),
        *_proved(volume, look, state),
        _keys_current(volume, look, settings),
        _copies(volume, look),
        _backup(volume, look, state),
        _passphrase(volume, state),
        _boot(volume, state),
    ]


def _encrypted(volume: Volume, look: Look) -> Check:
    profile = PROFILES[volume.cipher]
    header = look.header
    found = f"{header.cipher} with {header.key_bits} bits in {header.sector_size}-byte sectors"
    return Check(
        _id(volume, "encrypted"),
        header.cipher == profile.cipher and header.key_bits == profile.key_bits,
        f"{volume.name} is {found}",
        f"declared is {profile.cipher} with {profile.key_bits} bits; a cipher is changed by moving the data to a new"
        " volume",
    )


def _mounted(volume: Volume, look: Look, state: State) -> Check:
    source, filesystem = state.mounted
    ok = look.is_open and source == volume.mapper and filesystem == volume.filesystem
    if ok:
        reason = f"{volume.mapper} is mounted at {volume.mount} as {filesystem}"
    elif not look.is_open:
        reason = f"{volume.name} is locked, and nothing that needs it runs"
    else:
        reason = f"{volume.mount} is {source or 'not mounted'} {filesystem}".strip() + f", declared is {volume.mapper}"
    return Check(
        _id(volume, "mounted"),
        ok,
        reason,
        f"`journalctl -b -u systemd-cryptsetup@{volume.name}` says why it was not unlocked; `bedplate volume unlock`"
        " opens it"
        " with the escrow's passphrase",
    )


def _two_ways(volume: Volume, look: Look, settings: Settings) -> Check:
    present = ways(look.header)
    missing = [method for method in volume.unlock if not any(fits(way, method, settings) for way in present)]
    if not any(way.method == RECOVERY for way in present):
        missing.append("a recovery passphrase")
    names = sorted({way.method for way in present})
    strange = [
        way
        for way in present
        if way.method != RECOVERY and not any(fits(way, method, settings) for method in volume.unlock)
    ]
    reason = f"{volume.name} is unlocked by {', '.join(names) or 'nothing'}"
    if missing:
        reason += f"; missing: {', '.join(missing)}"
    if strange and strange[0].method == ORPHAN:
        reason += f"; key slot {strange[0].keyslot} was left by a run that was cut off, and nobody has its key"
    elif strange and strange[0].method == "other":
        reason += f"; key slot {strange[0].keyslot} belongs to something that bedplate does not know"
    elif strange:
        reason += f"; key slot {strange[0].keyslot} opens it by {strange[0].method} in a way that was not declared"
    return Check(
        _id(volume, "two-ways"),
        not missing and not strange and len(names) >= 2,
        reason,
        "roll the site out, which adds what is missing; take out what nobody declared with cryptsetup luksKillSlot",
    )


def _proved(volume: Volume, look: Look, state: State) -> List[Check]:
    checks = []
    by_slot = {way.keyslot: way for way in ways(look.header)}
    for slot, problem in sorted((state.proofs or {}).items()):
        way = by_slot[slot]
        checks.append(
            Check(
                _id(volume, f"opens-by-{way.method.replace('+', '-and-')}-{slot}"),
                not problem,
                problem or f"{way.method} opens key slot {slot} of {volume.name} now",
                f"put right what it says, or make the way anew: bedplate volume rotate --method {way.method}",
            )
        )
    return checks


def _keys_current(volume: Volume, look: Look, settings: Settings) -> Check:
    old: Dict[str, int] = {url: way.keyslot for way in ways(look.header) for url in outdated(way, settings)}
    servers = ", ".join(sorted(old))
    return Check(
        _id(volume, "tang-keys-current"),
        not old,
        f"{volume.name} was bound to a former key of {servers}"
        if old
        else f"{volume.name} knows the keys that are declared",
        "bedplate volume rotate --method tang binds it to the server's new keys",
    )


def _copies(volume: Volume, look: Look) -> Check:
    scan = look.device.luks
    both = scan.primary is not None and scan.secondary is not None and not scan.damaged
    broken = "first" if scan.primary is None else "second"
    return Check(
        _id(volume, "header-whole"),
        both,
        f"both copies of the header of {volume.name} hold" if both else f"the {broken} copy of the header is damaged",
        f"`cryptsetup repair {volume.device}` on the host writes it from the other; look at the disk's health first",
    )


def _backup(volume: Volume, look: Look, state: State) -> Check:
    backup = state.escrow.backup if state.escrow else None
    current = backup is not None and backup.sequence == look.header.sequence
    if backup is None:
        reason = f"the escrow has no backup of the header of {volume.name}"
    elif current:
        reason = f"the escrow has the header as it is, from {backup.made}"
    else:
        reason = (
            f"the header of {volume.name} is at change {look.header.sequence}, its newest backup at {backup.sequence}"
            f" from {backup.made}"
        )
    return Check(_id(volume, "header-backed-up"), current, reason, "bedplate volume backup")


def _passphrase(volume: Volume, state: State) -> Check:
    several = state.escrow is not None and len(state.escrow.passphrases) > 1
    return Check(
        _id(volume, "passphrase-settled"),
        not several,
        f"the recovery passphrase of {volume.name} is being changed, and the run that did so was cut off"
        if several
        else f"the escrow has one recovery passphrase of {volume.name}",
        "bedplate volume rotate --method recovery completes it",
    )


def _boot(volume: Volume, state: State) -> Check:
    return Check(
        _id(volume, "comes-up-at-boot"),
        not state.boot_files,
        f"{', '.join(state.boot_files)} does not say what it should"
        if state.boot_files
        else f"crypttab, fstab and the drop-ins of {volume.name} are as they should be",
        "roll the site out, which writes them",
    )


def of_host(swaps: Sequence[str], core_pattern: str, plain_swap: bool, core_dumps: bool) -> List[Check]:
    """What else holds prompts in memory and could write them to a disk.  swaps: active ones that are not encrypted."""
    leaky = "" if core_pattern in ("", "|/bin/false") else core_pattern
    return [
        Check(
            f"{_ROLE}.swap-encrypted-or-off",
            plain_swap or not swaps,
            f"swap on {', '.join(swaps)} is not encrypted" if swaps else "no swap, or an encrypted one",
            "turn it off (swapoff, and its line out of /etc/fstab), encrypt it, or accept it:"
            " luks_volume_plain_swap: true",
        ),
        Check(
            f"{_ROLE}.core-dumps-off",
            core_dumps or not leaky,
            f"the kernel writes the memory of a process that crashes: core_pattern is {leaky!r}"
            if leaky
            else "the kernel writes no core dumps",
            "roll the site out, or accept it: luks_volume_core_dumps: true",
        ),
    ]


def unencrypted_swaps(proc_swaps: str, mapped: Mapping[str, str]) -> List[str]:
    """Active swap areas that are on no encrypted mapping.  mapped: the kernel's device-mapper uuid by path.

    zram stays in memory.
    """
    areas = [line.split()[0] for line in proc_swaps.splitlines()[1:] if line.strip()]
    return [
        area for area in areas if not area.startswith("/dev/zram") and not mapped.get(area, "").startswith("CRYPT-")
    ]


def _id(volume: Volume, statement: str) -> str:
    return f"{_ROLE}.{volume.name}-{statement}"
