# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The operator's side of an encrypted volume: recovery passphrases and backups of headers, encrypted with
ansible-vault.

One folder for a device, by its serial number:

    <folder>/<serial>/escrow.json            what there is; holds no secret
    <folder>/<serial>/passphrase-<n>.vault   `ansible-vault view` shows it
    <folder>/<serial>/header-<n>-<utc>.vault `ansible-vault decrypt --output FILE` gives what cryptsetup restores

Whatever is written is read back and decrypted before anybody relies on it, and nothing is ever overwritten.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import hashlib
import itertools
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, get_file_vault_secret
from ansible_collections.bedplate.llm.plugins.module_utils import luks2_header
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import (
    Backup,
    Escrow,
    RecordError,
    parse_escrow,
    sync_folder,
    write_durably,
)

RECORD = "escrow.json"
# Letters that lie on the same keys of every Latin keyboard, as in systemd's recovery keys: whoever types it at a
# console at night may have another layout than who printed it.  64 of 16 letters are 256 bits.
_LETTERS, _LENGTH = "cbdefghijklnrtuv", 64
# ansible-vault stretches a password by 10,000 rounds only, so that it has to be hard to guess by itself.
SHORTEST_PASSWORD = 20


class EscrowError(Exception):
    """Why the escrow cannot be used, as one sentence."""


def new_passphrase() -> str:
    return "".join(secrets.choice(_LETTERS) for _letter in range(_LENGTH))


class Store:
    """The escrow of a site.

    password_file: a file with the password, or a program that prints it, as ansible-vault takes them.
    """

    def __init__(self, folder: Path, password_file: str) -> None:
        self._folder = folder
        self._password_file = password_file
        self._vault: VaultLib | None = None

    def read(self, serial: str) -> Escrow | None:
        path = self.folder(serial) / RECORD
        if not path.exists():
            return None
        try:
            found: Escrow = parse_escrow(json.loads(path.read_text(encoding="utf-8")), str(path))
        except ValueError as error:
            raise EscrowError(f"{path} is not JSON ({error}); bring it back from a backup.") from error
        except RecordError as error:
            raise EscrowError(f"{error}.") from error
        return found

    @contextlib.contextmanager
    def locked(self, serial: str) -> Iterator[None]:
        """One run at a time for a device."""
        folder = self.folder(serial)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise EscrowError(
                    f"Another run works on the volume of {serial} ({folder / '.lock'}); wait for it."
                ) from error
            yield

    def begin(self, serial: str, name: str, host: str, uuid: str) -> Escrow:
        """The first record with its first passphrase; on the disk and read back when this returns."""
        if self.read(serial):
            raise EscrowError(
                f"There is an escrow of {serial} in {self.folder(serial)} already; it is never overwritten."
            )
        return self.add_passphrase(Escrow(serial=serial, name=name, host=host, uuid=uuid))

    def add_passphrase(self, escrow: Escrow) -> Escrow:
        """Keep one more passphrase, which is the newest then.  The record comes last, so that none names a secret that
        is not there; one that a crash left without a record has a number of its own."""
        folder = self.folder(escrow.serial)
        names = (f"passphrase-{number}.vault" for number in itertools.count(1))
        name = next(name for name in names if name not in escrow.passphrases and not (folder / name).exists())
        self._keep(escrow.serial, name, new_passphrase().encode())
        return self._write(dataclasses.replace(escrow, passphrases=(*escrow.passphrases, name)))

    def passphrase(self, escrow: Escrow, back: int = 1) -> str:
        """The newest passphrase, or with back=2 the one before it."""
        if len(escrow.passphrases) < back:
            raise EscrowError(
                f"The escrow of {escrow.name} has no passphrase ({self.folder(escrow.serial)}); bring it back from a"
                " backup."
            )
        return self._open(escrow.serial, escrow.passphrases[-back]).decode()

    def passphrases(self, escrow: Escrow) -> list[str]:
        """All of them, the newest first; one, but while it is being changed."""
        return [self.passphrase(escrow, back) for back in range(1, max(len(escrow.passphrases), 1) + 1)]

    def keep_backup(self, escrow: Escrow, content: bytes) -> Escrow:
        """Keep a backup of the header, after proving that it is one of this volume."""
        header = luks2_header.of_backup(content)
        if header is None or header.uuid != escrow.uuid:
            found = header.uuid if header else "no header that holds"
            raise EscrowError(f"The backup of {escrow.name}'s header holds {found}, expected was {escrow.uuid}.")
        if not header.keyslots:
            raise EscrowError(f"The header of {escrow.name} has no key slot; a backup of it would bring nothing back.")
        now = datetime.datetime.now(datetime.UTC)
        name = f"header-{header.sequence}-{now:%Y%m%dT%H%M%S.%fZ}.vault"
        digest = hashlib.sha256(content).hexdigest()
        if escrow.backup and escrow.backup.sha256 == digest:
            return escrow
        self._keep(escrow.serial, name, content)
        backup = Backup(file=name, sha256=digest, sequence=header.sequence, made=f"{now:%Y-%m-%dT%H:%M:%SZ}")
        return self._write(dataclasses.replace(escrow, backups=(*escrow.backups, backup)))

    def backup(self, escrow: Escrow, file: str = "") -> bytes:
        """The newest backup of the header, or the named one."""
        found = [backup for backup in escrow.backups if file in ("", backup.file)]
        if not found:
            known = ", ".join(backup.file for backup in escrow.backups) or "none"
            raise EscrowError(
                f"The escrow of {escrow.name} has no backup {file or 'of its header'} (there is: {known})."
            )
        content = self._open(escrow.serial, found[-1].file)
        if hashlib.sha256(content).hexdigest() != found[-1].sha256:
            raise EscrowError(
                f"{self.folder(escrow.serial) / found[-1].file} is not what was kept: its digest is another."
            )
        return content

    def keep_aside(self, escrow: Escrow, content: bytes) -> Path:
        """Keep what lay where a header is about to be written; it is in nobody's record."""
        now = datetime.datetime.now(datetime.UTC)
        name = f"before-restore-{now:%Y%m%dT%H%M%S.%fZ}.vault"
        self._keep(escrow.serial, name, content)
        return self.folder(escrow.serial) / name

    def forget_older(self, escrow: Escrow) -> Escrow:
        """Destroy all passphrases and backups but the newest: an old backup opens with an old key."""
        kept = dataclasses.replace(escrow, passphrases=escrow.passphrases[-1:], backups=escrow.backups[-1:])
        self._write(kept)
        self._destroy(kept, "passphrase-*.vault", "header-*.vault", ".*.vault.part")
        # What lay there before a header was brought back may be an older one of the same volume.
        for path in self.folder(kept.serial).glob("before-restore-*.vault"):
            content = self._open(kept.serial, path.name)
            header = luks2_header.scan(lambda offset, length, content=content: content[offset : offset + length]).header
            if header and header.uuid == kept.uuid:
                _shred(path)
        return kept

    def erase(self, escrow: Escrow) -> Escrow:
        """Destroy every secret; the record stays and says when."""
        now = datetime.datetime.now(datetime.UTC)
        kept = dataclasses.replace(
            escrow, passphrases=(), backups=(), erased=escrow.erased or f"{now:%Y-%m-%dT%H:%M:%SZ}"
        )
        self._write(kept)
        self._destroy(kept, "*.vault", ".*.vault.part")
        return kept

    def retire(self, escrow: Escrow) -> None:
        """Put the record of an erased volume aside, so that its device can carry another one."""
        path = self.folder(escrow.serial) / RECORD
        path.rename(path.with_name(f"erased-{escrow.uuid}.json"))

    def folder(self, serial: str) -> Path:
        """Of one device."""
        return self._folder / serial

    def _write(self, escrow: Escrow) -> Escrow:
        write_durably(self.folder(escrow.serial) / RECORD, json.dumps(escrow.as_dict(), indent=1) + "\n")
        return escrow

    def _keep(self, serial: str, name: str, content: bytes) -> None:
        path = self.folder(serial) / name
        if path.exists():
            raise EscrowError(f"{path} is there already; it is never overwritten.")
        write_durably(path, self._secrets().encrypt(content).decode("ascii"), 0o400)
        if self._open(serial, name) != content:
            raise EscrowError(
                f"{path} does not give back what was written to it; the disk it lies on cannot be trusted."
            )

    def _open(self, serial: str, name: str) -> bytes:
        path = self.folder(serial) / name
        try:
            content: bytes = self._secrets().decrypt(path.read_bytes())
        except (AnsibleError, OSError) as error:
            raise EscrowError(f"{path} cannot be opened with the password of {self._password_file}: {error}") from error
        return content

    def _secrets(self) -> VaultLib:
        if self._vault is None:
            if not self._password_file:
                raise EscrowError(
                    "luks_volume_escrow_password_file is empty; name the file with the escrow's password, or a"
                    " program that"
                    " prints it."
                )
            try:
                secret: Any = get_file_vault_secret(self._password_file, loader=DataLoader())
                secret.load()
            except AnsibleError as error:
                raise EscrowError(f"luks_volume_escrow_password_file: {error}") from error
            if len(secret.bytes) < SHORTEST_PASSWORD:
                raise EscrowError(
                    f"The password in {self._password_file} has {len(secret.bytes)} characters; the escrow needs"
                    f" {SHORTEST_PASSWORD} or more (`openssl rand -base64 32`)."
                )
            self._vault = VaultLib([("bedplate", secret)])
        return self._vault

    def _destroy(self, kept: Escrow, *patterns: str) -> None:
        """What the record does not name, with what a crash left there."""
        named = {*kept.passphrases, *(backup.file for backup in kept.backups)}
        for pattern in patterns:
            for secret in self.folder(kept.serial).glob(pattern):
                if secret.name not in named:
                    _shred(secret)


def _shred(path: Path) -> None:
    """Overwrite and remove: it is encrypted anyway, and not every file system writes in place."""
    if not path.exists():
        return
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    sync_folder(path.parent)
