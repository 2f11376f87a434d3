"""What has to hold of a volume in use, and which remedy goes with what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.block_device import Device, Mapping
from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.luks2_header import Scan
from ansible_collections.bedplate.llm.plugins.module_utils.volume_checks import (
    State,
    of_host,
    of_volume,
    unencrypted_swaps,
)
from ansible_collections.bedplate.llm.plugins.module_utils.volume_decision import decide
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import BOTH, TANG, TPM2
from ansible_collections.bedplate.llm.plugins.module_utils.volume_host import Look
from ansible_collections.bedplate.llm.plugins.module_utils.volume_methods import Settings, TangServer, thumbprint
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import READY, Escrow
from volume_samples import KEPT, NO_LUKS, UUID, VOLUME, device, metadata, record, scanned
from volume_tokens import KEY, ONE, TWO, clevis, sss, systemd, tang, tpm2

WITH_TANG = replace(VOLUME, unlock=(TPM2, TANG))
SETTINGS = Settings((7,), (ONE,), 1)
OPEN = Mapping("models", f"CRYPT-LUKS2-{UUID.replace('-', '')}-models", VOLUME.mapper, (VOLUME.mount,))
TOKENS = {"0": systemd(7), "1": clevis(tang(), 2)}


def luks(slots: tuple[int, ...] = (0, 1, 2), tokens: dict[str, object] | None = None, **more: object) -> Scan:
    return scanned(metadata(slots, tokens=TOKENS if tokens is None else tokens, **more))


def state(scan: Scan | None = None, escrow: Escrow | None = KEPT, **changed: object) -> State:
    found: Device = device(scan or luks(), mappings=(OPEN,), exclusive=False)
    looked = Look(found, record(READY), decide(WITH_TANG, found, record(READY), escrow))
    return replace(State(looked, escrow, (VOLUME.mapper, "ext4"), (), {1: "", 2: ""}), **changed)


def checks(found: State, volume=WITH_TANG, settings=SETTINGS) -> dict[str, Check]:
    return {check.id.split(f"{volume.name}-")[1]: check for check in of_volume(volume, found, settings)}


def failing(found: State, volume=WITH_TANG, settings=SETTINGS) -> dict[str, str]:
    return {name: check.reason for name, check in checks(found, volume, settings).items() if not check.ok}


def test_a_volume_in_use_has_every_check_and_all_hold():
    found = checks(state())
    assert list(found) == [
        "there",
        "encrypted",
        "mounted",
        "two-ways",
        "opens-by-tpm2-1",
        "opens-by-tang-2",
        "tang-keys-current",
        "header-whole",
        "header-backed-up",
        "passphrase-settled",
        "comes-up-at-boot",
    ]
    assert failing(state()) == {}
    assert all(check.reason and check.remedy for check in found.values())


def test_without_a_volume_only_its_absence_is_told():
    blank = device(NO_LUKS)
    for escrow in (None, KEPT):
        looked = Look(blank, None, decide(VOLUME, blank, None, escrow))
        (check,) = of_volume(VOLUME, State(looked, escrow), SETTINGS)
        assert (check.id, check.ok) == ("luks_volume.models-there", False)
        assert "holds no finished volume (format)" in check.reason or "bedplate volume restore" in check.reason


@pytest.mark.parametrize(
    ("found", "name", "words"),
    [
        (state(escrow=None), "there", "holds no finished volume (back-up)"),
        (state(mounted=("", "")), "mounted", "/var/lib/bedplate is not mounted, declared is /dev/mapper/models"),
        (state(mounted=("/dev/sdb1", "xfs")), "mounted", "/var/lib/bedplate is /dev/sdb1 xfs"),
        (state(mounted=(VOLUME.mapper, "xfs")), "mounted", "is /dev/mapper/models xfs"),
        (state(luks((1, 2))), "two-ways", "missing: a recovery passphrase"),
        (state(luks((0, 1), {"0": systemd(7)}), proofs={1: ""}), "two-ways", "missing: tang"),
        (state(luks((0, 1, 2), {"0": systemd(0), "1": TOKENS["1"]})), "two-ways", "missing: tpm2"),
        (state(proofs={1: "the TPM says no", 2: ""}), "opens-by-tpm2-1", "the TPM says no"),
        (state(boot_files=("/etc/fstab",)), "comes-up-at-boot", "/etc/fstab does not say what it should"),
    ],
)
def test_what_does_not_hold_is_told_by_one_check(found, name, words):
    told = failing(found)
    assert list(told) == [name]
    assert words in told[name]


def test_a_locked_volume_says_that_nothing_runs():
    found = state()
    locked = replace(found, look=replace(found.look, device=replace(found.look.device, mappings=())))
    assert failing(locked) == {"mounted": "models is locked, and nothing that needs it runs"}


def test_a_key_slot_of_something_unknown_is_told():
    tokens = {**TOKENS, "2": {"type": "systemd-fido2", "keyslots": ["3"]}}
    assert "key slot 3" in failing(state(luks((0, 1, 2, 3), tokens)))["two-ways"]


@pytest.mark.parametrize(
    ("unlock", "token", "method"),
    [
        ((TANG,), systemd(7), "tpm2"),
        ((BOTH,), systemd(7), "tpm2"),
        ((TPM2, TANG), systemd(), "tpm2"),
        ((TPM2, TANG), clevis(tang(TWO), 1), "tang"),
    ],
)
def test_a_way_that_was_not_declared_is_told(unlock, token, method):
    """A TPM alone opens what was declared to need a TPM and the network; who asks for PCR 7 is not served without."""
    declared = {(TANG,): clevis(tang(), 2), (BOTH,): clevis(sss(2, tpm2(), tang()), 2)}.get(unlock, TOKENS["1"])
    tokens = {"0": token, "1": declared, **({"2": {**systemd(7), "keyslots": ["3"]}} if TPM2 in unlock else {})}
    scan = luks((0, 1, 2, 3) if TPM2 in unlock else (0, 1, 2), tokens)
    found = failing(state(scan, proofs={}), volume=replace(VOLUME, unlock=unlock))
    assert list(found) == ["two-ways"]
    assert f"key slot 1 opens it by {method} in a way that was not declared" in found["two-ways"]


def test_a_passphrase_alone_is_never_enough():
    found = failing(state(luks((0, 1), {}), proofs={}), volume=replace(VOLUME, unlock=()))
    assert list(found) == ["two-ways"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"encryption": "aes-cbc-essiv:sha256"}, "aes-cbc-essiv:sha256 with 512 bits"),
        ({"encryption": "sm4-xts-plain64"}, "sm4-xts-plain64"),
    ],
)
def test_another_cipher_than_the_declared_one_is_told(changed, words):
    segment = {"offset": "16777216", "encryption": "aes-xts-plain64", "sector_size": 4096, **changed}
    assert words in failing(state(luks(segments={"0": segment})))["encrypted"]


def test_a_server_that_changed_its_keys_is_told():
    settings = Settings((7,), (TangServer(ONE.url, "another"),), 1)
    assert failing(state(), settings=settings) == {
        "tang-keys-current": f"models was bound to a former key of {ONE.url}"
    }
    assert thumbprint(KEY) == ONE.thumbprint


@pytest.mark.parametrize(
    ("changed", "which"),
    [({"primary": None}, "first"), ({"secondary": None}, "second"), ({"primary": None, "damaged": (0,)}, "first")],
)
def test_half_a_header_is_told_before_it_is_none(changed, which):
    found = failing(state(replace(luks(), **changed)))
    assert found == {"header-whole": f"the {which} copy of the header is damaged"}


def test_a_header_that_changed_since_its_backup_is_told():
    newer = scanned(metadata((0, 1, 2), tokens=TOKENS), sequence=8)
    assert failing(state(newer)) == {
        "header-backed-up": "the header of models is at change 8, its newest backup at 3 from 2026-11-25T07:00:00Z"
    }


def test_a_passphrase_that_is_half_changed_is_told():
    half = replace(KEPT, passphrases=("passphrase-1.vault", "passphrase-2.vault"))
    assert failing(state(escrow=half)) == {
        "passphrase-settled": "the recovery passphrase of models is being changed, and the run that did so was cut off"
    }


def test_both_together_are_one_way_beside_the_passphrase():
    volume = replace(VOLUME, unlock=(BOTH,))
    scan = luks((0, 1), {"0": clevis(sss(2, tpm2(), tang()))})
    found = checks(state(scan, proofs={1: ""}), volume)
    assert [name for name, check in found.items() if not check.ok] == []
    assert "opens-by-tpm2-and-tang-1" in found


# --- the host ---


@pytest.mark.parametrize(
    ("swaps", "pattern", "accepted", "failed"),
    [
        ((), "|/bin/false", False, []),
        ((), "", False, []),
        (("/dev/sda2",), "|/bin/false", False, ["swap-encrypted-or-off"]),
        ((), "core", False, ["core-dumps-off"]),
        (("/dev/sda2",), "|/usr/lib/systemd/systemd-coredump %P", False, ["swap-encrypted-or-off", "core-dumps-off"]),
        (("/dev/sda2",), "core", True, []),
    ],
)
def test_what_else_may_write_prompts_to_a_disk_is_told(swaps, pattern, accepted, failed):
    found = of_host(swaps, pattern, plain_swap=accepted, core_dumps=accepted)
    assert [check.id for check in found if not check.ok] == [f"luks_volume.{name}" for name in failed]
    assert all(check.reason and check.remedy for check in found)


def test_swap_counts_as_encrypted_by_its_mapping_and_zram_stays_in_memory():
    proc = (
        "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
        "/dev/dm-1                               partition\t1048572\t\t0\t\t-2\n"
        "/dev/dm-2                               partition\t1048572\t\t0\t\t-3\n"
        "/dev/zram0                              partition\t1048572\t\t0\t\t100\n"
        "/swapfile                               file\t\t1048572\t\t0\t\t-4\n"
    )
    mapped = {"/dev/dm-1": "CRYPT-PLAIN-swap", "/dev/dm-2": "LVM-7I51AF"}
    assert unencrypted_swaps(proc, mapped) == ["/dev/dm-2", "/swapfile"]
    assert unencrypted_swaps("Filename Type\n", {}) == []
