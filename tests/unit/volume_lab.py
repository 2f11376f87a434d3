"""A host with one disk, made of a file: the tools that write on a disk are played, all that is ours is real.

Every change that survives a power cut is told to `Power`, which cuts where a test wants it.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import (
    block_device_host,
    luks2_header,
    volume_erase,
    volume_host,
    volume_record,
)
from ansible_collections.bedplate.llm.plugins.module_utils.volume_host import VolumeHost
from ansible_collections.bedplate.llm.plugins.modules import luks_volume
from volume_samples import COPY, SERIAL, VOLUME, both_copies, metadata, one_copy

SIZE = 80 << 20
MAPPER = VOLUME.mapper
SIGNING_KEY = {"kty": "EC", "crv": "P-521", "x": "AA", "y": "BB", "key_ops": ["verify"]}


class PowerCutError(BaseException):
    """Nothing may catch it, as nothing catches a power cut."""


class Power:
    """cut: how many durable changes there are before the power goes; None is never."""

    def __init__(self, cut: int | None = None) -> None:
        self.cut = cut
        self.events: list[str] = []
        self.changes: list[str] = []

    def wrote(self, event: str) -> None:
        self.events.append(event)
        self.changes.append(event)
        if self.cut is not None and len(self.changes) >= self.cut:
            raise PowerCutError(event)


class Lab:
    def __init__(self, folder: Path, power: Power) -> None:
        self.folder, self.power = folder, power
        self.disk, self.root, self.sys = folder / "disk", folder / "root", folder / "sys"
        self.root.mkdir(parents=True)
        with self.disk.open("wb") as disk:
            disk.truncate(SIZE)
        self.serial, self.size = SERIAL, SIZE
        self.argvs: list[Sequence[str]] = []
        self.keys: dict[int, bytes] = {}
        self.tpm: dict[int, bytes] = {}
        self.jwes: dict[str, bytes] = {}
        self.inside = ""  # what the opened volume holds
        self.opened = self.mounted = self.data = False
        self.services: dict[str, str] = {}
        self.broken: set[str] = set()  # commands that end with 1
        self.codes: dict[str, int] = {}  # or with something else
        self.missing: set[str] = set()
        (self.sys / "class/block/vdb/holders").mkdir(parents=True)

    # --- the disk ---

    @property
    def scan(self) -> luks2_header.Scan:
        content = self.disk.open("rb").read(2 * COPY)
        return luks2_header.scan(lambda offset, length: content[offset : offset + length])

    def write(self, content: bytes, event: str = "", offset: int = 0) -> None:
        with self.disk.open("r+b") as disk:
            disk.seek(offset)
            disk.write(content)
        if event:
            self.power.wrote(event)

    def _rewrite(self, content: dict[str, Any], event: str) -> None:
        header = self.scan.header
        assert header
        uuid, sequence = header.uuid, header.sequence + 1
        self.write(one_copy(content, uuid, sequence), f"{event}: first copy")
        self.write(one_copy(content, uuid, sequence, COPY), event, COPY)

    def reboot(self) -> None:
        self.opened = self.mounted = False
        self.services = dict.fromkeys(self.services, "inactive")
        shutil.rmtree(self.sys / "class/block/dm-0", ignore_errors=True)
        (self.sys / "class/block/vdb/holders/dm-0").unlink(missing_ok=True)

    # --- the tools ---

    def run(self, argv: Sequence[str], secret: bytes | None, inherited: Sequence[int]) -> tuple[int, str, str]:
        self.argvs.append(argv)
        if argv[0] in self.missing:
            raise FileNotFoundError(argv[0])
        if " ".join(argv[:2]) in self.codes:
            return self.codes[" ".join(argv[:2])], "", "it is broken"
        if argv[0] in self.broken or " ".join(argv[:2]) in self.broken:
            return 1, "", "it is broken"
        name = argv[0].replace("-", "_").replace(".", "_")
        answer = getattr(self, f"_{name}", None)
        if answer is None:
            return 0, "", ""
        code, output = answer(list(argv), secret)
        return code, output, "" if code == 0 else "no"

    def _lsblk(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        mapping = {"name": "models", "kname": "dm-0", "mountpoints": [VOLUME.mount if self.mounted else None]}
        shown = {"name": "vdb", "kname": "vdb", "path": str(self.disk), "type": "disk", "size": self.size, "ro": False}
        shown |= {"serial": self.serial, "mountpoints": [None], "children": [mapping] if self.opened else []}
        return 0, json.dumps({"blockdevices": [shown]})

    def _wipefs(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        if "--all" in argv:
            return 0, ""
        kind = self.inside if argv[-1] == MAPPER else "crypto_LUKS" if self.scan.traces else ""
        return 0, json.dumps({"signatures": [{"type": kind.replace("half ", ""), "offset": "0x0"}] if kind else []})

    def _blkid(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        return 2, ""

    def _mdadm(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        return 1, ""

    def _cryptsetup(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        answer: tuple[int, str] = getattr(self, f"_do_{argv[1].lower()}")(argv, secret)
        return answer

    def _do_luksformat(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        header = self.scan.header
        assert not (header and header.keyslots), "formatted over a key slot"
        assert not self.data, "formatted over data"
        assert secret
        uuid = argv[argv.index("--uuid") + 1]
        keyless, whole = metadata(()), metadata((0,))
        self.write(bytes(2 * COPY) + os.urandom(64))
        self.write(one_copy(keyless, uuid, 1)[: COPY // 3], "half a header")
        self.write(both_copies(keyless, uuid, 1), "a header without a key")
        self.keys = {0: secret}
        self.write(one_copy(whole, uuid, 3), "a header whose second copy is old")
        self.write(one_copy(whole, uuid, 3, COPY), "a header", COPY)
        return 0, ""

    def _do_open(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        backup = Path(argv[-1]) if argv[-1].startswith("/run/") else None
        header = luks2_header.of_backup(backup.read_bytes()) if backup else self.scan.header
        assert header
        if "--token-only" in argv:
            token = header.metadata["tokens"][argv[argv.index("--token-id") + 1]]
            return (0, "") if any(int(slot) in self.tpm for slot in token["keyslots"]) else (2, "")
        slots = [int(argv[argv.index("--key-slot") + 1])] if "--key-slot" in argv else header.keyslots
        if secret is None or secret not in [self.keys[slot] for slot in slots if slot in self.keys]:
            return 2, ""
        if "--test-passphrase" in argv:
            return 0, ""
        if "--persistent" in argv:
            self._rewrite(
                {**header.metadata, "config": {"flags": ["no-read-workqueue", "no-write-workqueue"]}}, "flags"
            )
        self._open()
        return 0, ""

    def _open(self) -> None:
        header = self.scan.header
        assert header
        self.opened = True
        folder = self.sys / "class/block/dm-0/dm"
        folder.mkdir(parents=True)
        (folder / "name").write_text("models")
        (folder / "uuid").write_text(f"CRYPT-LUKS2-{header.uuid.replace('-', '')}-models")
        (self.sys / "class/block/vdb/holders/dm-0").touch()

    def _do_luksheaderbackup(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        Path(argv[argv.index("--header-backup-file") + 1]).write_bytes(self.disk.open("rb").read(2 * COPY))
        return 0, ""

    def _do_luksheaderrestore(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        content = Path(argv[argv.index("--header-backup-file") + 1]).read_bytes()
        self.write(content[: len(content) // 3], "a third of a header that comes back")
        self.write(content, "a header that comes back")
        return 0, ""

    def _do_lukserase(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        header = self.scan.header
        assert header
        self._rewrite({**header.metadata, "keyslots": {}}, "no key slot")
        return 0, ""

    def _do_close(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        assert not self.mounted
        self.reboot()
        return 0, ""

    def _do_luksaddkey(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        new = os.read(int(argv[-1].rsplit("/", 1)[1]), 1 << 12)
        return self._add_slot(secret, new, "argon2id" if "argon2id" in argv else "pbkdf2")

    def _do_lukskillslot(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        header, slot = self.scan.header, argv[-1]
        assert header
        if secret not in [key for number, key in self.keys.items() if number != int(slot)]:
            return 2, ""
        kept = {number: content for number, content in header.metadata["keyslots"].items() if number != slot}
        tokens = {number: token for number, token in header.metadata["tokens"].items() if slot not in token["keyslots"]}
        self._rewrite({**header.metadata, "keyslots": kept, "tokens": tokens}, "a key slot less")
        return 0, ""

    def _do_token(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        header = self.scan.header
        assert header
        if argv[2] == "import":
            self._add_token(json.loads(secret or b""))
            return 0, ""
        number = argv[argv.index("--token-id") + 1]
        if argv[2] == "remove":
            kept = {key: token for key, token in header.metadata["tokens"].items() if key != number}
            self._rewrite({**header.metadata, "tokens": kept}, "a token less")
            return 0, ""
        return (0, "{}") if number in header.metadata["tokens"] else (1, "")

    def _systemd_cryptenroll(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        path = next(word.split("=", 1)[1] for word in argv if word.startswith("--unlock-key-file="))
        pcrs = next(word.split("=", 1)[1] for word in argv if word.startswith("--tpm2-pcrs="))
        bound = [int(pcr) for pcr in pcrs.split("+") if pcr]
        header, slot = self.scan.header, self._next_slot()
        assert header
        if any(token.content.get("tpm2-pcrs") == bound for token in header.tokens):
            # "This PCR set is already enrolled, executing no operation."
            return 0, ""
        if self._add_slot(Path(path).read_bytes(), b"from the TPM")[0]:
            return 1, ""
        self.tpm[slot] = b"from the TPM"
        self._add_token({"type": "systemd-tpm2", "keyslots": [str(slot)], "tpm2-pcrs": bound})
        return 0, ""

    def _clevis(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        if argv[1] == "decrypt":
            return 0, self.jwes[(secret or b"").decode()].decode()
        pin = {"pin": argv[2], argv[2]: {**json.loads(argv[3]), "adv": {"keys": [SIGNING_KEY]}}}
        protected = base64.urlsafe_b64encode(json.dumps({"clevis": pin}).encode()).decode().rstrip("=")
        jwe = f"{protected}.key.iv.text.tag"
        self.jwes[jwe] = secret or b""
        return 0, jwe

    def _mkfs_ext4(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        assert self.opened
        assert not self.data, "a file system over data"
        self.inside = "half ext4"
        self.power.wrote("half a file system")
        self.inside = "ext4"
        self.power.wrote("a file system")
        return 0, ""

    def _e2fsck(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        return (0 if self.inside == "ext4" else 8), ""

    def _systemctl(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        if argv[1].startswith("list-unit"):
            return 0, "".join(f"{name} enabled enabled\n" for name in self.services)
        if argv[1] == "show":
            return 0, "\n\n".join(
                f"Id={name}\nLoadState=loaded\nActiveState={self.services[name]}" for name in argv[3:]
            )
        if argv[1] == "start" and "--no-block" in argv:
            assert self.mounted, "a service on the bare mount point"
            self.services |= dict.fromkeys(argv[3:], "active")
            return 0, ""
        if argv[1] == "stop":
            self._stop(argv[2:])
            return 0, ""
        if argv[1] != "start":
            return 0, ""
        # The unit requires systemd-cryptsetup@models.service, which crypttab makes and which asks the TPM.
        if not self.opened:
            if "models UUID=" not in (self.root / "etc/crypttab").read_text() or not self.tpm:
                return 1, ""
            self._open()
        assert self.inside == "ext4"
        assert "/dev/mapper/models /var/lib/bedplate ext4" in (self.root / "etc/fstab").read_text()
        self.mounted = self.data = True
        self.power.wrote("mounted")
        return 0, ""

    def _stop(self, units: list[str]) -> None:
        for unit in units:
            if unit in self.services:
                self.services[unit] = "inactive"
            elif unit.endswith(".mount"):
                assert "active" not in self.services.values(), "a service lost its volume"
                self.mounted = False

    def _findmnt(self, argv: list[str], secret: bytes | None) -> tuple[int, str]:
        return (0, f"{MAPPER} ext4\n") if self.mounted else (1, "")

    def _next_slot(self) -> int:
        header = self.scan.header
        assert header
        return next(slot for slot in range(32) if slot not in header.keyslots)

    def _add_slot(self, old: bytes | None, new: bytes, kdf: str = "pbkdf2") -> tuple[int, str]:
        header, slot = self.scan.header, self._next_slot()
        assert header
        if old not in self.keys.values():
            return 2, ""
        self.keys[slot] = new
        added = {"key_size": 64, "kdf": {"type": kdf, "iterations": 1000}}
        self._rewrite({**header.metadata, "keyslots": {**header.metadata["keyslots"], str(slot): added}}, "a key slot")
        return 0, ""

    def _add_token(self, token: dict[str, Any]) -> None:
        header = self.scan.header
        assert header
        number = next(str(free) for free in range(32) if str(free) not in header.metadata["tokens"])
        self._rewrite({**header.metadata, "tokens": {**header.metadata["tokens"], number: token}}, "a token")


def play(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the host's half find this lab where a host has its disk."""
    block_device(lab.disk, monkeypatch)
    real_mount, real_replace = os.path.ismount, os.replace
    mount = str(lab.root / VOLUME.mount.lstrip("/"))

    def put(source: Any, target: Any) -> None:
        name = Path(target).name
        lab.power.wrote(f"part of {name}")
        real_replace(source, target)
        lab.power.wrote(_said(Path(target)))

    monkeypatch.setattr(os.path, "ismount", lambda path: lab.mounted if str(path) == mount else real_mount(path))
    monkeypatch.setattr(os, "replace", put)
    # A power cut is played by `Power`, so that the disk below these tests need not be waited for.
    monkeypatch.setattr(os, "fsync", lambda _file: None)
    monkeypatch.setattr(block_device_host, "BLANK_ENDS", 1 << 16)
    monkeypatch.setattr(volume_erase, "BEGINNING", 4 * COPY)
    monkeypatch.setattr(volume_erase, "write_over", lambda path, length: _write_over(lab, path, length))
    monkeypatch.setattr(block_device_host, "look", functools.partial(block_device_host.look, sys=lab.sys))
    monkeypatch.setattr(volume_host, "LOCKS", lab.folder / "locks")
    monkeypatch.setattr(luks_volume, "VolumeHost", functools.partial(VolumeHost, root=lab.root))
    monkeypatch.setattr(luks_volume, "module_runner", lambda _module: lab.run)


WRITE_OVER = volume_erase.write_over


def _write_over(lab: Lab, path: str, length: int) -> None:
    assert not lab.opened, "a volume that is open was overwritten"
    lab.power.wrote("the erasure's first byte")
    WRITE_OVER(path, length // 3)
    lab.power.wrote("a third of the erasure")
    WRITE_OVER(path, length)
    lab.power.wrote("the erasure")


def _said(path: Path) -> str:
    """What a file that was written durably says, as far as the order of writes is concerned."""
    if path.name == "escrow.json":
        found = json.loads(path.read_text())
        return f"escrow with {len(found['passphrases'])} passphrases, {len(found['backups'])} backups"
    if path.name == f"{SERIAL}.json":
        return f"record {json.loads(path.read_text())['state']}"
    return path.name.split("-")[0] if path.suffix == ".vault" else path.name


def block_device(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file stand for the declared device."""
    real = os.path.realpath
    monkeypatch.setattr(
        os.path, "realpath", lambda path, **more: str(file) if str(path) == VOLUME.device else real(path, **more)
    )
    monkeypatch.setattr(Path, "is_block_device", lambda path: path == file)


def host(lab: Lab, escrow: Any = None, **changed: Any) -> VolumeHost:
    return VolumeHost(replace(VOLUME, size=SIZE, **changed), escrow, lab.run, lab.root)


def remembered(lab: Lab) -> volume_record.Record | None:
    return volume_record.read(SERIAL, lab.root / "var/lib/bedplate-volumes")
