"""cryptsetup's commands: what is asked of them, that no secret is seen, and the real one on a file."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import luks2_header
from ansible_collections.bedplate.llm.plugins.module_utils.cipher_profiles import PROFILES
from ansible_collections.bedplate.llm.plugins.module_utils.cryptsetup import (
    DATA_OFFSET,
    Cost,
    Cryptsetup,
    CryptsetupError,
    format_argv,
    module_runner,
    open_argv,
    secret_pipe,
    sector_size,
)
from volume_samples import UUID

CHEAP = Cost(memory=64, time=1, threads=1)
OLD, NEW = "old-secret-passphrase", "new-secret-passphrase"


def option(argv: Sequence[str], name: str) -> str:
    return argv[argv.index(name) + 1]


@pytest.mark.parametrize(
    ("profile", "cipher", "bits", "hash_name"),
    [("international", "aes-xts-plain64", "512", "sha256"), ("guomi", "sm4-xts-plain64", "256", "sm3")],
)
def test_a_volume_is_formatted_as_its_profile_says(profile, cipher, bits, hash_name):
    argv = format_argv("/dev/vdb", UUID, "models", PROFILES[profile], 4096, Cost())
    assert argv[:3] == ["cryptsetup", "luksFormat", "--batch-mode"]
    assert argv[-1] == "/dev/vdb"
    shown = {"--cipher": cipher, "--key-size": bits, "--hash": hash_name, "--sector-size": "4096", "--uuid": UUID}
    shown |= {"--type": "luks2", "--label": "models", "--pbkdf": "argon2id", "--pbkdf-memory": "1048576"}
    shown |= {"--key-file": "-", "--offset": "32768", "--luks2-keyslots-size": str(4 << 20)}
    assert {name: option(argv, name) for name in shown} == shown


def test_work_queues_are_gone_around_for_good_where_it_is_wanted():
    assert "--persistent" not in open_argv("/dev/vdb", "models", False)
    argv = open_argv("/dev/nvme0n1", "models", True)
    assert {"--perf-no_read_workqueue", "--perf-no_write_workqueue", "--persistent"} <= set(argv)
    assert argv[-2:] == ["/dev/nvme0n1", "models"]


@pytest.mark.parametrize(("size", "sector"), [(256 << 20, 4096), (3840755982336, 4096), ((256 << 20) + 512, 512)])
def test_sectors_are_as_large_as_the_device_allows(size, sector):
    assert sector_size(size) == sector


class Told:
    """A runner that remembers what it was told, and says what a test wants."""

    def __init__(self, code: int = 0, said: str = "") -> None:
        self.calls: list[tuple[Sequence[str], bytes | None]] = []
        self.code, self.said = code, said

    def __call__(self, argv: Sequence[str], secret: bytes | None, inherited: Sequence[int]) -> tuple[int, str, str]:
        self.calls.append((argv, secret))
        return self.code, "", self.said


@pytest.mark.parametrize(
    "step",
    [
        lambda it: it.format(UUID, "models", PROFILES["international"], 4096, Cost(), OLD),
        lambda it: it.open("models", False, OLD),
        lambda it: it.erase(),
        lambda it: it.close("models"),
        lambda it: it.import_token({"type": "clevis"}),
        lambda it: it.header_backup(),
        lambda it: it.restore_header(b"header"),
    ],
)
def test_a_command_that_fails_is_one_sentence_with_what_it_said(step):
    with pytest.raises(CryptsetupError, match=r"`cryptsetup \w+ .*` ended with 5: Device in use\. Sorry\.") as error:
        step(Cryptsetup(Told(5, "Device in use.\n\n  Sorry.\n"), "/dev/vdb"))
    assert OLD not in str(error.value)


def test_a_command_that_is_missing_is_one_sentence():
    def missing(*_arguments: object) -> tuple[int, str, str]:
        raise FileNotFoundError

    for step in (lambda it: it.erase(), lambda it: it.opens(OLD), lambda it: it.remove_token(0)):
        with pytest.raises(CryptsetupError, match="cryptsetup is missing on this host"):
            step(Cryptsetup(missing, "/dev/vdb"))


def test_a_command_that_fails_silently_is_told_too():
    with pytest.raises(CryptsetupError, match="ended with 1: and said nothing"):
        Cryptsetup(Told(1), "/dev/vdb").erase()


def test_a_new_passphrase_is_stretched_and_a_key_of_full_strength_is_not(monkeypatch):
    told, slots = Told(), iter([(), (0,), (0,), (0, 1)])
    monkeypatch.setattr(Cryptsetup, "_slots", lambda _self: next(slots))
    it = Cryptsetup(told, "/dev/vdb")
    assert (it.add_passphrase(OLD, NEW, Cost()), it.add_key(OLD, NEW)) == (0, 1)
    (first, _), (second, secret) = told.calls
    assert (option(first, "--pbkdf"), option(second, "--pbkdf")) == ("argon2id", "pbkdf2")
    assert (secret, option(second, "--key-file")) == (OLD.encode(), "-")
    assert first[-1].startswith("/dev/fd/")


def test_a_key_slot_that_did_not_appear_is_an_error(monkeypatch):
    monkeypatch.setattr(Cryptsetup, "_slots", lambda _self: (0,))
    with pytest.raises(CryptsetupError, match="0 key slots appeared where one was added"):
        Cryptsetup(Told(), "/dev/vdb").add_key(OLD, NEW)


@pytest.mark.parametrize(("code", "opens"), [(0, True), (2, False), (1, False)])
def test_a_passphrase_opens_or_does_not(code, opens):
    told = Told(code)
    assert Cryptsetup(told, "/dev/vdb").opens(OLD, 3) is opens
    argv, secret = told.calls[0]
    assert ("--test-passphrase" in argv, option(argv, "--key-slot"), secret) == (True, "3", OLD.encode())


def test_a_device_that_cannot_be_asked_is_not_a_wrong_passphrase():
    with pytest.raises(CryptsetupError, match="ended with 4"):
        Cryptsetup(Told(4), "/dev/vdb").opens(OLD)


def test_a_token_that_went_with_its_slot_is_not_removed_again():
    told = Told(1)
    Cryptsetup(told, "/dev/vdb").remove_token(0)
    assert [argv[2] for argv, _secret in told.calls] == ["export"]


def test_a_secret_pipe_gives_the_secret_once_and_is_gone():
    with secret_pipe(OLD) as reading:
        assert os.read(reading, 100) == OLD.encode()
        assert os.read(reading, 100) == b""
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.read(reading, 1)


def test_the_modules_runner_gives_secrets_on_standard_input_only():
    seen: dict[str, Any] = {}

    def run_command(argv: list[str], **more: Any) -> tuple[int, str, str]:
        seen.update(more, argv=argv)
        return 0, "out", "err"

    run = module_runner(SimpleNamespace(run_command=run_command))
    assert run(["cryptsetup", "x"], OLD.encode(), (7,)) == (0, "out", "err")
    assert (seen["argv"], seen["data"], seen["pass_fds"]) == (["cryptsetup", "x"], OLD.encode(), [7])
    assert seen["binary_data"] is True
    assert seen["environ_update"]["LC_ALL"] == "C"
    assert OLD not in str({name: value for name, value in seen.items() if name != "data"})


# --- the real one, on a file ---

CRYPTSETUP = shutil.which("cryptsetup", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
live = pytest.mark.skipif(not CRYPTSETUP, reason="needs cryptsetup")


class Live:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.argvs: list[Sequence[str]] = []
        self.cryptsetup = Cryptsetup(self.run, str(path))

    def run(self, argv: Sequence[str], secret: bytes | None, inherited: Sequence[int]) -> tuple[int, str, str]:
        self.argvs.append(argv)
        done = subprocess.run(
            [str(CRYPTSETUP), *argv[1:]],
            input=secret or b"",
            pass_fds=tuple(inherited),
            capture_output=True,
            check=False,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    @property
    def scan(self) -> luks2_header.Scan:
        content = self.path.read_bytes()
        return luks2_header.scan(lambda offset, length: content[offset : offset + length])

    @property
    def header(self) -> luks2_header.Header:
        header = self.scan.header
        assert header
        return header


@pytest.fixture(scope="module")
def formatted(tmp_path_factory):
    """A volume with the passphrase OLD in key slot 0."""
    made = Live(tmp_path_factory.mktemp("volume") / "disk")
    with made.path.open("wb") as file:
        file.truncate(DATA_OFFSET + (1 << 20))
    made.cryptsetup.format(UUID, "models", PROFILES["international"], 4096, CHEAP, OLD)
    return made


@pytest.fixture
def volume(formatted, tmp_path):
    shutil.copyfile(formatted.path, tmp_path / "disk")
    return Live(tmp_path / "disk")


@live
def test_a_volume_is_made_where_it_was_said_and_only_there(volume):
    header = volume.header
    assert (header.uuid, header.label, header.keyslots) == (UUID, "models", (0,))
    assert (header.cipher, header.key_bits, header.sector_size) == ("aes-xts-plain64", 512, 4096)
    assert header.data_offset == DATA_OFFSET
    assert header.metadata["keyslots"]["0"]["kdf"]["type"] == "argon2id"
    # What proves later that nothing was stored since: formatting writes nothing behind the place of the header.
    assert not any(volume.path.read_bytes()[DATA_OFFSET:])


@live
def test_keys_are_added_proved_and_removed(volume):
    it = volume.cryptsetup
    assert (it.opens(OLD), it.opens(OLD, 0), it.opens(OLD, 1), it.opens(NEW)) == (True, True, False, False)
    slot = it.add_key(OLD, NEW)
    assert (slot, it.opens(NEW, slot), it.opens(OLD)) == (1, True, True)
    with pytest.raises(CryptsetupError):
        it.remove_slot(0, OLD)  # it opens no other slot
    assert volume.header.keyslots == (0, 1)
    it.remove_slot(0, NEW)
    assert (volume.header.keyslots, it.opens(OLD)) == ((1,), False)
    with pytest.raises(CryptsetupError):
        it.add_key("wrong", NEW)
    assert not any(OLD in word or NEW in word for argv in volume.argvs for word in argv)


@live
def test_a_header_comes_back_from_its_backup_after_both_copies_are_gone(volume):
    backup = volume.cryptsetup.header_backup()
    found = luks2_header.of_backup(backup)
    assert found
    assert (found.uuid, found.sequence) == (UUID, volume.header.sequence)
    with volume.path.open("r+b") as file:
        file.write(bytes(8 << 20))
    assert not volume.scan.traces
    volume.cryptsetup.restore_header(backup)
    assert volume.cryptsetup.opens(OLD)


@live
def test_the_last_way_is_never_taken_out(volume):
    """In batch mode cryptsetup itself takes it out, by its own passphrase."""
    with pytest.raises(CryptsetupError, match="key slot 0 is the last one"):
        volume.cryptsetup.remove_slot(0, OLD)
    assert volume.header.keyslots == (0,)
    assert volume.cryptsetup.opens(OLD)


@live
def test_tokens_are_kept_in_the_header(volume):
    it = volume.cryptsetup
    it.import_token({"type": "clevis", "keyslots": ["0"], "jwe": {"protected": "x"}})
    (token,) = volume.header.tokens
    assert (token.type, token.keyslots, token.content["jwe"]) == ("clevis", (0,), {"protected": "x"})
    it.remove_token(token.number)
    it.remove_token(token.number)
    assert volume.header.tokens == ()


@live
def test_an_erased_volume_is_opened_by_nothing(volume):
    volume.cryptsetup.erase()
    assert volume.header.keyslots == ()
    assert not volume.cryptsetup.opens(OLD)
