"""Every key is made anew: the new one opens, the former one does not, and no backup opens with it."""

from __future__ import annotations

from scenario import said
from volume_lab import (
    ESCROWS,
    LAB,
    bedplate,
    checks,
    escrow,
    header,
    newest_backup,
    opens,
    passphrase,
    passphrase_opens_backup,
)


def tokens(machine, volume, kind):
    return [token for token in header(machine, volume)["tokens"].values() if token["type"] == kind]


def test_a_new_recovery_passphrase_opens_and_the_former_one_does_not(machine):
    former = passphrase("models")
    old_backup = newest_backup("models")
    done = bedplate("volume", "rotate", "--volume", "models", "--method", "recovery")
    assert done.returncode == 0, said(done)
    assert passphrase("models") != former
    assert opens(machine, "models", passphrase("models"))
    assert not opens(machine, "models", former)
    kept = escrow("models")
    assert len(kept["passphrases"]) == 1
    assert len(kept["backups"]) == 1
    assert passphrase_opens_backup(machine, old_backup, former), "so an old backup has to be destroyed"
    backup = newest_backup("models")
    assert not passphrase_opens_backup(machine, backup, former)
    secrets = {path.name for path in ESCROWS["models"].glob("*.vault") if not path.name.startswith("before-restore")}
    assert secrets == {kept["passphrases"][0], kept["backups"][0]["file"]}


def test_a_new_key_in_the_tpm_takes_the_place_of_the_former_one(machine):
    (former,) = tokens(machine, "models", "systemd-tpm2")
    done = bedplate("volume", "rotate", "--volume", "models", "--method", "tpm2")
    assert done.returncode == 0, said(done)
    (now,) = tokens(machine, "models", "systemd-tpm2")
    assert now["tpm2-blob"] != former["tpm2-blob"]


def test_a_new_binding_to_tang_takes_the_place_of_the_former_one(machine):
    (former,) = tokens(machine, "models", "clevis")
    done = bedplate("volume", "rotate", "--volume", "models", "--method", "tang")
    assert done.returncode == 0, said(done)
    (now,) = tokens(machine, "models", "clevis")
    assert now["jwe"] != former["jwe"]


def test_after_all_of_it_every_check_holds():
    assert [check for check in checks(LAB).values() if not check["ok"]] == []


def test_a_way_that_is_not_declared_is_not_made():
    done = bedplate("volume", "rotate", "--volume", "models", "--method", "tpm2+tang")
    assert done.returncode != 0
    assert "Nothing was changed" in said(done)
