# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""cryptsetup's commands, with every secret on standard input: arguments and environments are there for all to read."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import luks2_header
from ansible_collections.bedplate.llm.plugins.module_utils.cipher_profiles import Profile

# argv, standard input, descriptors that the command inherits; exit code, standard output, standard error.
Run = Callable[[Sequence[str], Optional[bytes], Sequence[int]], Tuple[int, str, str]]

# cryptsetup fills the area of the key slots with random bytes, so all of it travels with every backup of the header;
# 4 MiB are 16 key slots of 512-bit keys, where its default of 16 MiB holds 64.
KEYSLOTS_BYTES = 4 << 20
# The data begin where they do by default, so that a header restored from elsewhere finds them.
DATA_OFFSET = 16 << 20
_SECTOR = 512


class CryptsetupError(Exception):
    """What a command of cryptsetup's said, as one sentence."""


@dataclass(frozen=True)
class Cost:
    """What one guess of a passphrase costs; argon2id.  memory: KiB.  time: milliseconds on the host that formats."""

    memory: int = 1048576
    time: int = 2000
    threads: int = 4


def format_argv(device: str, uuid: str, label: str, profile: Profile, sector: int, cost: Cost) -> List[str]:
    return [
        *("cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--key-file", "-"),
        *("--uuid", uuid, "--label", label, "--cipher", profile.cipher, "--key-size", str(profile.key_bits)),
        *("--hash", profile.hash, "--sector-size", str(sector)),
        *("--luks2-keyslots-size", str(KEYSLOTS_BYTES), "--offset", str(DATA_OFFSET // _SECTOR)),
        *_cost(cost),
        device,
    ]


def open_argv(device: str, name: str, bypass: bool) -> List[str]:
    """bypass: let requests go around the kernel's work queues, and write that into the header for every later time."""
    flags = ["--perf-no_read_workqueue", "--perf-no_write_workqueue", "--persistent"] if bypass else []
    return ["cryptsetup", "open", "--type", "luks2", "--key-file", "-", *flags, device, name]


def sector_size(size: int) -> int:
    """The largest that the device's size in bytes allows: 4096-byte sectors cost an eighth of the calls."""
    return 4096 if size % 4096 == 0 else 512


def module_runner(module: Any) -> Run:
    """Runs commands by an AnsibleModule, in the C locale; FileNotFoundError for one that the host does not have."""

    def run(argv: Sequence[str], secret: Optional[bytes], inherited: Sequence[int]) -> Tuple[int, str, str]:
        code, output, said = module.run_command(
            list(argv),
            data=secret,
            binary_data=True,
            pass_fds=list(inherited) or None,
            environ_update={"LC_ALL": "C", "LANGUAGE": "C"},
            handle_exceptions=False,
        )
        return code, output, said

    return run


def _cost(cost: Cost) -> List[str]:
    return [
        *("--pbkdf", "argon2id", "--pbkdf-memory", str(cost.memory)),
        *("--iter-time", str(cost.time), "--pbkdf-parallel", str(cost.threads)),
    ]


@contextlib.contextmanager
def secret_pipe(secret: str) -> Iterator[int]:
    """A descriptor that gives a secret to a command which reads two of them; it fits into a pipe's buffer."""
    reading, writing = os.pipe()
    try:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(secret.encode())
        yield reading
    finally:
        os.close(reading)


@contextlib.contextmanager
def header_file(content: bytes) -> Iterator[str]:
    """A backup of a header as a file, in memory, which cryptsetup takes for a device where it only reads."""
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        file = Path(folder) / "header"
        file.write_bytes(content)
        yield str(file)


class Cryptsetup:
    """Runs the commands on one device."""

    def __init__(self, run: Run, device: str) -> None:
        self._runner = run
        self._device = device

    def format(self, uuid: str, label: str, profile: Profile, sector: int, cost: Cost, passphrase: str) -> None:
        self._do(format_argv(self._device, uuid, label, profile, sector, cost), passphrase)

    def opens(self, passphrase: str, slot: Optional[int] = None) -> bool:
        """Whether a passphrase opens the volume, or one key slot of it, without opening it."""
        which = [] if slot is None else ["--key-slot", str(slot)]
        # Without the switch a TPM that opens the volume makes every passphrase a right one (cryptsetup 2.6).
        argv = ["cryptsetup", "open", "--test-passphrase", "--disable-external-tokens", "--type", "luks2", *which]
        argv += ["--key-file", "-", self._device]
        code, _output, said = self._run(argv, passphrase.encode(), ())
        # 2: no permission, which is a wrong passphrase; 1: no such slot.  Anything else is no answer.
        if code not in (0, 1, 2):
            raise CryptsetupError(_sentence(argv, code, said))
        return code == 0

    def open(self, name: str, bypass: bool, passphrase: str) -> None:
        self._do(open_argv(self._device, name, bypass), passphrase)

    def add_passphrase(self, old: str, new: str, cost: Cost) -> int:
        """The new passphrase's key slot."""
        return self._add(old, new, _cost(cost))

    def add_key(self, old: str, new: str) -> int:
        """A key of full strength needs no stretching, and its slot opens in an instant."""
        return self._add(old, new, ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"])

    def _add(self, old: str, new: str, cost: Sequence[str]) -> int:
        before = set(self._slots())
        with secret_pipe(new) as reading:
            argv = ["cryptsetup", "luksAddKey", "--batch-mode", "--key-file", "-", *cost, self._device]
            self._do([*argv, f"/dev/fd/{reading}"], old, (reading,))
        slots = set(self._slots()) - before
        if len(slots) != 1:
            raise CryptsetupError(f"{self._device}: {len(slots)} key slots appeared where one was added")
        return slots.pop()

    def _slots(self) -> Sequence[int]:
        with open(self._device, "rb", buffering=0) as content:
            header = luks2_header.scan(lambda offset, length: os.pread(content.fileno(), length, offset)).header
        return header.keyslots if header else ()

    def import_token(self, content: Mapping[str, Any]) -> None:
        self._do(["cryptsetup", "token", "import", "--json-file", "-", self._device], json.dumps(content))

    def remove_token(self, number: int) -> None:
        """Nothing where it went with its key slot."""
        argv = ["cryptsetup", "token", "export", "--token-id", str(number), self._device]
        if self._run(argv, None, ())[0] == 0:
            self._do(["cryptsetup", "token", "remove", "--token-id", str(number), self._device])

    def remove_slot(self, slot: int, passphrase: str) -> None:
        """Needs a passphrase of another slot.  cryptsetup takes out the last one, too, when it runs in batch mode."""
        if tuple(self._slots()) == (slot,):
            raise CryptsetupError(
                f"{self._device}: key slot {slot} is the last one; without it nothing opens the volume"
            )
        argv = ["cryptsetup", "luksKillSlot", "--batch-mode", "--key-file", "-", self._device, str(slot)]
        self._do(argv, passphrase)

    def header_backup(self) -> bytes:
        """The header with its key slots, as cryptsetup restores it."""
        with tempfile.TemporaryDirectory(dir="/run") as folder:
            file = Path(folder) / "header"
            self._do(["cryptsetup", "luksHeaderBackup", "--header-backup-file", str(file), self._device])
            return file.read_bytes()

    def restore_header(self, content: bytes) -> None:
        with header_file(content) as file:
            argv = ["cryptsetup", "luksHeaderRestore", "--batch-mode", "--header-backup-file", file, self._device]
            self._do(argv)

    def erase(self) -> None:
        self._do(["cryptsetup", "luksErase", "--batch-mode", self._device])

    def close(self, name: str) -> None:
        self._do(["cryptsetup", "close", name])

    def _run(self, argv: Sequence[str], secret: Optional[bytes], inherited: Sequence[int]) -> Tuple[int, str, str]:
        try:
            return self._runner(argv, secret, inherited)
        except FileNotFoundError as error:
            raise CryptsetupError(f"{argv[0]} is missing on this host") from error

    def _do(self, argv: Sequence[str], secret: str = "", inherited: Sequence[int] = ()) -> str:
        code, output, said = self._run(argv, secret.encode() if secret else None, inherited)
        if code:
            raise CryptsetupError(_sentence(argv, code, said))
        return output


def _sentence(argv: Sequence[str], code: int, said: str) -> str:
    words = " ".join(line.strip() for line in said.splitlines() if line.strip()) or "and said nothing"
    return f"`{argv[0]} {argv[1]} {argv[-1]}` ended with {code}: {words}"
