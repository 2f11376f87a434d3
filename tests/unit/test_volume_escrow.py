"""The operator's side: what is kept can be had back, and by nobody without the password."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import Escrow
from ansible_collections.bedplate.llm.plugins.plugin_utils import volume_escrow
from ansible_collections.bedplate.llm.plugins.plugin_utils.volume_escrow import EscrowError, Store, new_passphrase
from volume_samples import COPY, OTHER, SERIAL, UUID, both_copies, metadata

PASSWORD = "a password that is long enough"
HEADER = both_copies(metadata())


@pytest.fixture
def store(tmp_path):
    (tmp_path / "password").write_text(PASSWORD + "\n")
    return Store(tmp_path / "escrow", str(tmp_path / "password"))


@pytest.fixture
def begun(store):
    return store.begin(SERIAL, "models", "gpu1", UUID)


def folder(tmp_path: Path) -> Path:
    return tmp_path / "escrow" / SERIAL


def secrets(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in folder(tmp_path).glob("*.vault"))


def test_a_passphrase_is_of_letters_that_every_keyboard_has_in_the_same_place():
    passphrase = new_passphrase()
    assert re.fullmatch(r"[cbdefghijklnrtuv]{64}", passphrase)
    assert passphrase != new_passphrase()


def test_a_new_escrow_has_a_passphrase_that_can_be_read_back(store, begun, tmp_path):
    assert begun == Escrow(SERIAL, "models", "gpu1", UUID, ("passphrase-1.vault",))
    assert store.read(SERIAL) == begun
    passphrase = Store(tmp_path / "escrow", str(tmp_path / "password")).passphrase(begun)
    assert len(passphrase) == 64
    written = b"".join(path.read_bytes() for path in folder(tmp_path).iterdir())
    assert passphrase.encode() not in written


def test_what_is_kept_is_for_its_owner_only(begun, tmp_path):
    assert folder(tmp_path).stat().st_mode & 0o777 == 0o700
    assert (folder(tmp_path) / "passphrase-1.vault").stat().st_mode & 0o777 == 0o400
    assert (folder(tmp_path) / "escrow.json").stat().st_mode & 0o777 == 0o600


def test_ansible_vault_opens_what_is_kept(store, begun, tmp_path):
    """At three in the morning there may be nothing else."""
    argv = [Path(sys.executable).parent / "ansible-vault", "view", "--vault-password-file", tmp_path / "password"]
    argv.append(folder(tmp_path) / "passphrase-1.vault")
    shown = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == store.passphrase(begun)


def test_a_device_without_an_escrow_has_none(store):
    assert store.read(SERIAL) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "is not JSON"), ("{}", "is no record of an escrow"), ("[]", "is no record of an escrow")],
)
def test_an_escrow_that_cannot_be_understood_is_an_error_and_not_absence(text, words, store, begun, tmp_path):
    (folder(tmp_path) / "escrow.json").write_text(text)
    with pytest.raises(EscrowError, match=words):
        store.read(SERIAL)
    with pytest.raises(EscrowError, match=words):
        store.begin(SERIAL, "models", "gpu1", UUID)


def test_an_escrow_is_never_begun_twice(store, begun, tmp_path):
    before = secrets(tmp_path)
    with pytest.raises(EscrowError, match="it is never overwritten"):
        store.begin(SERIAL, "models", "gpu1", OTHER)
    assert store.read(SERIAL) == begun
    assert secrets(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("too short\n", "has 9 characters; the escrow needs 20 or more"),
        ("another password of length\n", "cannot be opened with the password of"),
        ("", "luks_volume_escrow_password_file"),
    ],
)
def test_a_wrong_password_opens_nothing(content, words, begun, tmp_path):
    (tmp_path / "other").write_text(content)
    other = Store(tmp_path / "escrow", str(tmp_path / "other"))
    with pytest.raises(EscrowError, match=words):
        other.passphrase(begun)


@pytest.mark.parametrize(
    ("file", "words"),
    [("", "luks_volume_escrow_password_file is empty"), ("/nowhere/password", "luks_volume_escrow_password_file: ")],
)
def test_without_a_password_nothing_is_kept(file, words, tmp_path):
    with pytest.raises(EscrowError, match=words):
        Store(tmp_path / "escrow", file).begin(SERIAL, "models", "gpu1", UUID)
    assert secrets(tmp_path) == []


def test_a_program_may_print_the_password(begun, store, tmp_path):
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho '{PASSWORD}'\n")
    program.chmod(0o700)
    assert Store(tmp_path / "escrow", str(program)).passphrase(begun) == store.passphrase(begun)


def test_a_secret_that_was_tampered_with_is_not_believed(store, begun, tmp_path):
    path = folder(tmp_path) / "passphrase-1.vault"
    lines = path.read_text().splitlines()
    lines[2] = lines[2][:-1] + ("0" if lines[2][-1] != "0" else "1")
    path.chmod(0o600)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(EscrowError, match=r"passphrase-1\.vault cannot be opened"):
        store.passphrase(begun)


def test_a_disk_that_does_not_give_back_what_was_written_is_not_relied_on(store, monkeypatch, tmp_path):
    monkeypatch.setattr(Store, "_open", lambda *_arguments: b"something else")
    with pytest.raises(EscrowError, match="the disk it lies on cannot be trusted"):
        store.begin(SERIAL, "models", "gpu1", UUID)


def test_a_backup_is_kept_with_its_sequence_and_comes_back(store, begun):
    kept = store.keep_backup(begun, HEADER)
    assert kept.backup
    assert (kept.backup.sequence, kept.backup.sha256) == (3, hashlib.sha256(HEADER).hexdigest())
    assert re.fullmatch(r"header-3-\d{8}T\d{6}\.\d{6}Z\.vault", kept.backup.file)
    assert store.read(SERIAL) == kept
    assert store.backup(kept) == HEADER
    assert store.backup(kept, kept.backup.file) == HEADER


def test_the_same_header_is_kept_once(store, begun, tmp_path):
    kept = store.keep_backup(begun, HEADER)
    assert store.keep_backup(kept, HEADER) == kept
    assert len(secrets(tmp_path)) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (both_copies(metadata(), OTHER), f"holds {OTHER}, expected was {UUID}"),
        (bytes(2 * COPY), "holds no header that holds"),
        (HEADER[:5000], "holds no header that holds"),
        (b"", "holds no header that holds"),
    ],
)
def test_a_backup_of_anything_else_is_not_kept(content, words, store, begun, tmp_path):
    with pytest.raises(EscrowError, match=words):
        store.keep_backup(begun, content)
    assert store.read(SERIAL) == begun
    assert secrets(tmp_path) == ["passphrase-1.vault"]


def test_nothing_is_ever_overwritten(store, begun, tmp_path, monkeypatch):
    store.keep_aside(begun, b"before")
    (kept,) = folder(tmp_path).glob("before-restore-*")
    before = kept.read_bytes()
    with pytest.raises(EscrowError, match="is there already; it is never overwritten"):
        store._keep(SERIAL, kept.name, b"after")
    assert kept.read_bytes() == before


def test_a_backup_that_is_not_what_was_kept_is_not_given_out(store, begun, tmp_path):
    kept = store.keep_backup(begun, HEADER)
    path = folder(tmp_path) / kept.backups[0].file
    path.chmod(0o600)
    path.write_bytes(store._secrets().encrypt(both_copies(metadata(), sequence=9)))
    with pytest.raises(EscrowError, match="is not what was kept: its digest is another"):
        store.backup(kept)


def test_a_backup_that_is_not_there_is_told_with_those_that_are(store, begun):
    with pytest.raises(EscrowError, match=r"no backup of its header \(there is: none\)"):
        store.backup(begun)
    kept = store.keep_backup(begun, HEADER)
    with pytest.raises(EscrowError, match=r"no backup header-9 \(there is: header-3"):
        store.backup(kept, "header-9")


def test_the_newest_passphrase_and_the_one_before_it_can_be_had(store, begun):
    first = store.passphrase(begun)
    both = store.add_passphrase(begun)
    assert both.passphrases == ("passphrase-1.vault", "passphrase-2.vault")
    assert (store.passphrase(both, back=2), store.passphrase(both) != first) == (first, True)
    with pytest.raises(EscrowError, match="has no passphrase"):
        store.passphrase(both, back=3)


def test_older_secrets_are_destroyed_and_the_newest_stay(store, begun, tmp_path):
    both = store.add_passphrase(store.keep_backup(begun, HEADER))
    newest = store.passphrase(both)
    whole = store.keep_backup(both, both_copies(metadata(), sequence=5))
    # Before a header was brought back: an older one of this volume, with its first copy damaged; and something else.
    store.keep_aside(whole, bytes(4096) + HEADER[4096:])
    other = store.keep_aside(whole, b"somebody's")
    left = store.forget_older(whole)
    assert left.passphrases == ("passphrase-2.vault",)
    assert [backup.sequence for backup in left.backups] == [5]
    assert secrets(tmp_path) == sorted([left.backups[0].file, "passphrase-2.vault", other.name])
    assert store.read(SERIAL) == left
    assert store.passphrase(left) == newest
    assert store.backup(left) == both_copies(metadata(), sequence=5)


def interrupted(*_arguments: object) -> None:
    raise KeyboardInterrupt


def cut_off_at(number: int, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let the power go before the given file, counted from 0, has its name."""
    real, left = os.replace, [number]

    def put(source: Path, target: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", put)
    return monkeypatch


@pytest.mark.parametrize("number", [0, 1])
def test_a_beginning_that_was_cut_off_is_no_escrow_and_can_be_begun_again(number, store, tmp_path):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        cut_off_at(number, patch)
        store.begin(SERIAL, "models", "gpu1", UUID)
    assert store.read(SERIAL) is None
    begun = store.begin(SERIAL, "models", "gpu1", OTHER)
    assert store.read(SERIAL) == begun
    assert store.passphrase(begun)


def test_a_new_passphrase_that_was_cut_off_is_followed_by_another_one(store, begun):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        cut_off_at(1, patch)
        store.add_passphrase(begun)
    assert store.read(SERIAL) == begun
    both = store.add_passphrase(begun)
    assert store.passphrase(both) != store.passphrase(both, back=2)


def test_erasing_destroys_what_a_crash_left_too(store, begun, tmp_path):
    for number in (0, 1):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            cut_off_at(number, patch)
            store.add_passphrase(begun)
    assert len(list(folder(tmp_path).iterdir())) == 4
    store.erase(begun)
    assert [path.name for path in folder(tmp_path).iterdir()] == ["escrow.json"]


def test_destroying_older_secrets_that_was_cut_off_is_completed_by_the_next(store, begun, tmp_path):
    both = store.add_passphrase(begun)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(volume_escrow, "_shred", interrupted)
        store.forget_older(both)
    left = store.read(SERIAL)
    assert left
    assert left.passphrases == ("passphrase-2.vault",)
    assert len(secrets(tmp_path)) == 2
    store.keep_aside(left, b"of somebody else")
    store.forget_older(left)
    assert [name.split("-")[0] for name in secrets(tmp_path)] == ["before", "passphrase"]


def test_a_header_without_a_key_is_no_backup(store, begun):
    """It would be the newest one, and the only one that `forget_older` keeps."""
    with pytest.raises(EscrowError, match="has no key slot"):
        store.keep_backup(begun, both_copies(metadata(()), sequence=9))
    assert store.read(SERIAL) == begun


def test_erasing_destroys_every_secret_and_remembers_when(store, begun, tmp_path):
    kept = store.keep_backup(begun, HEADER)
    store.keep_aside(kept, HEADER)
    erased = store.erase(kept)
    assert secrets(tmp_path) == []
    assert store.read(SERIAL) == erased
    assert erased.erased
    with pytest.raises(EscrowError, match="has no passphrase"):
        store.passphrase(erased)


def test_the_device_of_an_erased_volume_can_carry_another_one(store, begun, tmp_path):
    store.retire(store.erase(begun))
    assert store.read(SERIAL) is None
    assert store.begin(SERIAL, "models", "gpu1", OTHER).uuid == OTHER
    assert json.loads((folder(tmp_path) / f"erased-{UUID}.json").read_text())["uuid"] == UUID


def test_two_runs_on_one_device_lock_each_other_out(store, tmp_path):
    other = Store(tmp_path / "escrow", str(tmp_path / "password"))
    with store.locked(SERIAL):
        with pytest.raises(EscrowError, match="Another run works on the volume of data0"), other.locked(SERIAL):
            pass
        with other.locked("data1"):
            pass
    with other.locked(SERIAL):
        pass


def test_what_is_shredded_is_overwritten_first(tmp_path, monkeypatch):
    path = tmp_path / "secret"
    path.write_bytes(b"secret")
    path.chmod(0o400)
    seen: list[bytes] = []
    real = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda file: (seen.append(file.read_bytes()), real(file)))
    volume_escrow._shred(path)
    assert not path.exists()
    assert len(seen[0]) == 6
    assert seen[0] != b"secret"
