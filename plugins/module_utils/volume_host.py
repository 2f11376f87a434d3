# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The steps of a volume's life on its host.  Each looks again before it does anything, since time has passed.

The order is the whole safety: what may have begun is written down before it begins (`volume_record`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import (
    block_device_host,
    cipher_profiles,
    volume_boot,
    volume_inside,
    volume_record,
)
from ansible_collections.bedplate.llm.plugins.module_utils.block_device import Device, Signature
from ansible_collections.bedplate.llm.plugins.module_utils.cryptsetup import Cost, Cryptsetup, Run, sector_size
from ansible_collections.bedplate.llm.plugins.module_utils.luks2_header import Header
from ansible_collections.bedplate.llm.plugins.module_utils.volume_decision import (
    BACK_UP,
    FORMAT,
    KEEP,
    MAKE_FILESYSTEM,
    REFUSE,
    Decision,
    decide,
)
from ansible_collections.bedplate.llm.plugins.module_utils.volume_declared import Volume
from ansible_collections.bedplate.llm.plugins.module_utils.volume_record import (
    ERASED,
    FORMATTED,
    FORMATTING,
    MAKING_FILESYSTEM,
    READY,
    Escrow,
    Record,
)

LOCKS = Path("/run/lock")
# How a header says that requests go around the kernel's work queues.
QUEUES = {"no-read-workqueue", "no-write-workqueue"}


class VolumeError(Exception):
    """Why a step was not done, as one sentence."""


@dataclass(frozen=True)
class Look:
    """All that a decision is made of, and the decision."""

    device: Device
    record: Optional[Record]
    decision: Decision

    @property
    def header(self) -> Header:
        header = self.device.luks.header
        if header is None:
            raise VolumeError(f"{self.device.given} has no header that can be read")
        return header

    @property
    def is_open(self) -> bool:
        return any(self.header.uuid.replace("-", "") in mapping.uuid for mapping in self.device.mappings)


class VolumeHost:
    """One declared volume on this host."""

    def __init__(self, volume: Volume, escrow: Optional[Escrow], run: Run, root: Path = Path("/")) -> None:
        self.volume = volume
        self.escrow = escrow
        self.run = run
        self.ask = block_device_host.asking(run)
        self._root = root
        self._records = root / str(volume_record.FOLDER).lstrip("/")

    # --- looking ---

    def look(self, confirmed: bool = False) -> Look:
        record = volume_record.read(self.volume.serial, self._records)
        # A volume that was finished is never formatted, whatever its ends hold.
        ends = record is None or record.state in (FORMATTING, ERASED)
        device = block_device_host.look(self.volume.device, self.ask, ends=ends)
        return Look(device, record, decide(self.volume, device, record, self.escrow, confirmed))

    def existing(self) -> Look:
        """Of a volume that is ours and there."""
        look = self.look()
        if look.decision.action in (REFUSE, FORMAT):
            raise VolumeError(f"{self.volume.name}: {look.decision.sentence or 'it is not formatted'}")
        return look

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One step at a time on a device; whoever holds the lock is done in seconds or minutes."""
        LOCKS.mkdir(parents=True, exist_ok=True)
        with (LOCKS / f"bedplate-volume-{self.volume.serial}").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise VolumeError(
                    f"{self.volume.name}: another run works on {self.volume.device}; wait for it"
                ) from error
            yield

    def cryptsetup(self, look: Look) -> Cryptsetup:
        return Cryptsetup(self.run, look.device.path)

    # --- making ---

    def format(self, uuid: str, passphrase: str, cost: Cost, confirmed: bool) -> None:
        """Write the header on a device that is proved to be empty, or that we began to format."""
        look = self._expect(FORMAT, confirmed)
        if not self.escrow or self.escrow.uuid != uuid or not self.escrow.passphrases:
            raise VolumeError(
                f"{self.volume.name}: the escrow does not know volume {uuid}; nothing is formatted without it"
            )
        profile = cipher_profiles.PROFILES[self.volume.cipher]
        refusal = cipher_profiles.probe(self.volume.cipher, self.ask)
        if refusal:
            raise VolumeError(f"{self.volume.name}: {refusal.rstrip('.')}")
        begun = look.record if look.record and look.record.state == FORMATTING else None
        confirmed = confirmed or bool(begun and begun.confirmed)
        self.remember(Record(self.volume.serial, self.volume.name, uuid, FORMATTING, confirmed))
        cryptsetup = self.cryptsetup(look)
        cryptsetup.format(uuid, self.volume.name, profile, sector_size(look.device.size), cost, passphrase)
        if not cryptsetup.opens(passphrase):
            raise VolumeError(f"{self.volume.name}: the passphrase does not open what it has just formatted")

    def adopt(self) -> None:
        """Remember what the escrow knows and this host, installed anew, does not."""
        look = self.look()
        if look.record is None and look.decision.action in (KEEP, BACK_UP):
            self.remember(Record(self.volume.serial, self.volume.name, look.header.uuid, look.decision.state))

    def backed_up(self) -> None:
        """The operator's side has the header: from here on losing it loses nothing."""
        look = self.look()
        if not self.escrow or not self.escrow.backups:
            raise VolumeError(f"{self.volume.name}: the escrow has no backup of the header")
        if look.record and look.record.state == FORMATTING and look.decision.action != REFUSE:
            self.remember(look.record.after(FORMATTED))

    def open(self, passphrase: str, queues: str) -> bool:
        """queues: whether to go around the kernel's work queues: yes, no, or auto for "on NVMe"."""
        look = self.existing()
        if look.is_open:
            return False
        # A boot that waits for somebody to answer for the key would hold the mapping's unit until it gives up.
        self.ask(["systemctl", "stop", f"systemd-cryptsetup@{volume_boot.unit_name(self.volume.name)}.service"])
        bypass = queues == "yes" or (queues == "auto" and "nvme" in look.device.path)
        # It is in the header for good; writing it again would be a change, and another backup.
        bypass = bypass and not set(look.header.flags) >= QUEUES
        self.cryptsetup(look).open(self.volume.name, bypass, passphrase)
        self.settle()
        return True

    def make_filesystem(self) -> bool:
        """A file system on the inside, once: only before anything was ever mounted."""
        look = self.existing()
        record = look.record
        if record is None or record.state == READY:
            return False
        if look.decision.action != MAKE_FILESYSTEM:
            raise VolumeError(f"{self.volume.name}: {look.decision.sentence or 'the header has no backup yet'}")
        self._require_mapper(look)
        found = self.inside()
        problems = volume_inside.problems(record.state, found, self.volume.filesystem, self.volume.mapper)
        if problems:
            raise VolumeError(f"{self.volume.name}: {'; '.join(problems)}")
        # One that is whole is kept, though its record was never finished: somebody may have mounted it by hand.
        whole = bool(found) and self.ask(volume_inside.check_argv(self.volume.filesystem, self.volume.mapper))[0] == 0
        if not whole:
            self.remember(record.after(MAKING_FILESYSTEM))
            self.do(volume_inside.make_argv(self.volume.filesystem, self.volume.mapper, self.volume.name))
        self.do(["blockdev", "--flushbufs", self.volume.mapper])
        self.remember(record.after(READY))
        self.settle()
        return True

    def inside(self) -> List[Signature]:
        """What file system, or else, the opened volume holds."""
        found: List[Signature] = block_device_host.signatures(self.volume.mapper, self.ask)
        return found

    # --- coming up at boot ---

    def boot_files(self, look: Look, discard: bool) -> Dict[Path, str]:
        """Files with what they should hold, of those that do not hold it."""
        return self._boot_files(look.header.uuid, discard)

    def boot_problems(self, look: Look) -> List[str]:
        """Whose lines would keep the volume from coming up at boot, also one that is yet to be made."""
        header = look.device.luks.header
        try:
            self._boot_files(header.uuid if header else "", False)
        except VolumeError as error:
            return [str(error).split(": ", 1)[1]]
        return []

    def _boot_files(self, uuid: str, discard: bool) -> Dict[Path, str]:
        wanted = {self.path(path): volume_boot.drop_in(self.volume) for path in volume_boot.drop_in_paths(self.volume)}
        try:
            crypttab = self.path(volume_boot.CRYPTTAB)
            line = volume_boot.crypttab_line(self.volume, uuid, discard)
            former = [record.uuid for record in volume_record.read_all(self._records)]
            wanted[crypttab] = volume_boot.set_crypttab(text_of(crypttab), self.volume, line, former)
            fstab = self.path(volume_boot.FSTAB)
            wanted[fstab] = volume_boot.set_fstab(text_of(fstab), self.volume, volume_boot.fstab_line(self.volume))
        except volume_boot.BootLineError as error:
            raise VolumeError(f"{self.volume.name}: {error}") from error
        return {path: content for path, content in wanted.items() if text_of(path) != content}

    def write_boot_files(self, files: Mapping[Path, str]) -> None:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            volume_record.write_durably(path, content, 0o644)
        if files:
            self.do(["systemctl", "daemon-reload"])

    def mount_point_problems(self) -> List[str]:
        """Why the volume may not be mounted where it is declared: it would hide what is there."""
        folder = self.path(self.volume.mount)
        if os.path.ismount(folder):
            return []
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            return [f"{self.volume.mount} is no folder; a volume is mounted on an empty one"]
        held = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        if held:
            names = ", ".join(held[:5])
            return [
                f"{self.volume.mount} holds {names}, which the volume would hide; move it away, and back onto the"
                " volume"
                " once it is mounted"
            ]
        return []

    def mount(self) -> bool:
        """Mount as a boot would, through systemd, on a folder that takes no files while nothing is mounted on it."""
        folder = self.path(self.volume.mount)
        if os.path.ismount(folder):
            self._require_mounted_is_ours()
            return False
        problems = self.mount_point_problems()
        if problems:
            raise VolumeError(f"{self.volume.name}: {problems[0]}")
        folder.mkdir(parents=True, exist_ok=True)
        self.do(["chattr", "+i", str(folder)])
        unit = volume_boot.mount_unit(self.volume.mount)
        self.do(["systemctl", "start", unit])
        self._require_mounted_is_ours()
        return True

    # --- small things ---

    def _expect(self, action: str, confirmed: bool = False) -> Look:
        look = self.look(confirmed)
        if look.decision.action != action:
            raise VolumeError(f"{self.volume.name}: {look.decision.sentence or f'it is at {look.decision.action}'}")
        return look

    def _require_mapper(self, look: Look) -> None:
        names = [mapping.name for mapping in look.device.mappings]
        if self.volume.name not in names:
            raise VolumeError(
                f"{self.volume.name} is not open as {self.volume.mapper} (open: {', '.join(names) or 'nothing'})"
            )
        mounted = [mount for mapping in look.device.mappings for mount in mapping.mounts]
        if mounted:
            raise VolumeError(f"{self.volume.mapper} is mounted at {', '.join(mounted)}")

    def mounted(self) -> Tuple[str, str]:
        """Source and file system of what is mounted where the volume should be; empty without anything."""
        argv = ["findmnt", "--noheadings", "--raw", "--output", "SOURCE,FSTYPE", "--mountpoint", self.volume.mount]
        code, output = self.ask(argv)
        words = output.splitlines()[-1].split() if code == 0 and output.strip() else []
        return (words[0], words[1]) if len(words) == 2 else ("", "")

    def _require_mounted_is_ours(self) -> None:
        source, _filesystem = self.mounted()
        if source != self.volume.mapper:
            raise VolumeError(
                f"{self.volume.name}: {self.volume.mount} is {source or 'nothing'}, not {self.volume.mapper}"
            )

    def remember(self, record: Record) -> None:
        volume_record.write(record, self._records)

    def settle(self) -> None:
        self.do(["udevadm", "settle", "--timeout=30"])

    def path(self, path: str) -> Path:
        return self._root / path.lstrip("/")

    def do(self, argv: Sequence[str]) -> str:
        try:
            code, output, said = self.run(argv, None, ())
        except FileNotFoundError as error:
            raise VolumeError(f"{argv[0]} is missing on this host") from error
        if code:
            raise VolumeError(f"`{' '.join(argv)}` ended with {code}: {' '.join((said or output).split())[-600:]}")
        return str(output)


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
