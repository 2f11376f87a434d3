# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The steps of an array's life on its host.  Each looks again before it does anything.

The order is the whole safety: the array's UUID is on the host's disk before mdadm is given it (`md_array_record`).
"""

from __future__ import annotations

import contextlib
import fcntl
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import (
    block_device_host,
    md_array_boot,
    md_array_look,
    md_array_record,
    volume_record,
)
from ansible_collections.bedplate.llm.plugins.module_utils.cryptsetup import Run
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_decision import (
    ASSEMBLE,
    CREATE,
    KEEP,
    REFUSE,
    REPAIR,
    Decision,
    decide,
)
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_declared import HOMEHOST, Array
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_found import Disk, Running
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_record import CREATING, READY, Record

LOCK = Path("/run/lock/bedplate-md-array")
# Where Debian's mdadm looks, and everybody else's; each knows the other place as its second.
CONFIGURATIONS = ("/etc/mdadm/mdadm.conf", "/etc/mdadm.conf")


class ArrayError(Exception):
    """Why a step was not done, as one sentence."""


@dataclass(frozen=True)
class Look:
    """All that a decision is made of, and the decision."""

    disks: Tuple[Disk, ...]
    running: Tuple[Running, ...]
    record: Optional[Record]
    decision: Decision

    @property
    def live(self) -> Optional[Running]:
        """The array, where it runs and is the declared one."""
        if self.decision.action in (KEEP, REPAIR):
            return self.running[0]
        return None


class ArrayHost:
    """One declared array on this host."""

    def __init__(self, array: Array, run: Run, root: Path = Path("/")) -> None:
        self.array = array
        self._run = run
        self._ask = block_device_host.asking(run)
        self._records = root / str(volume_record.FOLDER).lstrip("/")
        self._folder = root / str(md_array_record.FOLDER).lstrip("/")

    def look(self) -> Look:
        record = md_array_record.read(self.array.name, self._folder)
        running = md_array_look.running(self.array, record.uuid if record else "", self._ask)
        disks = [md_array_look.disk(leg, record, self._records, self._ask) for leg in self.array.legs]
        return Look(tuple(disks), tuple(running), record, decide(self.array, disks, running, record))

    def bring_up(self) -> Tuple[str, List[str]]:
        """The array's UUID, and what was done so that it runs with all the disks that can be had."""
        look = self.look()
        self._allowed(look)
        done: List[str] = []
        if look.decision.action in (CREATE, ASSEMBLE):
            if look.decision.stop:
                # It was never started, so nobody has anything of it.
                self._do(["mdadm", "--stop", f"/dev/{look.decision.stop}"])
            done.append(self._create(look) if look.decision.action == CREATE else self._assemble())
            self._settle()
            look = self.look()
            self._allowed(look)
        live = look.live
        if live is None:
            raise ArrayError(f"{self.array.name}: mdadm said nothing, and the array does not run")
        if look.record is None or look.record.state != READY:
            # Also what a host that was installed anew finds on its disks.
            self._remember(Record(self.array.name, live.uuid, self.array.level, self.array.serials, READY))
        done += self._repair(look.decision, live)
        return live.uuid, done

    def foresee(self, look: Look) -> List[str]:
        """What `bring_up` would do."""
        self._allowed(look)
        decision = look.decision
        said = {
            CREATE: [f"would make {self.array.name} of {', '.join(disk.device.path for disk in look.disks)}"],
            ASSEMBLE: [f"would start {self.array.name}"],
        }
        return [
            *said.get(decision.action, []),
            *(f"would remove the failed {kernel}" for kernel in decision.remove),
            *(f"would take back {device}" for device in decision.re_add),
            *(f"would add {device}" for device in decision.add),
        ]

    # --- steps ---

    def _create(self, look: Look) -> str:
        record = look.record
        if record is None or set(record.serials) != set(self.array.serials):
            record = Record(self.array.name, md_array_record.new_uuid(), self.array.level, self.array.serials, CREATING)
            self._remember(record)
        self._do(create_argv(self.array, record.uuid))
        return f"made {self.array.name} of {', '.join(disk.device.path for disk in look.disks)}"

    def _assemble(self) -> str:
        # Not --run: mdadm then starts it with less than it had only where the disks themselves say that less is left.
        self._do(["mdadm", "--assemble", self.array.node, *(leg.device for leg in self.array.legs)])
        return f"started {self.array.name}"

    def _repair(self, decision: Decision, live: Running) -> List[str]:
        done = []
        for kernel in decision.remove:
            # By the kernel's name, which it keeps when the device itself is gone.
            gone = [member.kernel for member in live.members if not member.failed and member.kernel == kernel]
            fail = ["--fail", kernel] if gone else []
            self._do(["mdadm", "--manage", live.path, *fail, "--remove", kernel])
            done.append(f"removed the failed {kernel} from {self.array.name}")
        for device in decision.re_add:
            code, output, said = self._run(["mdadm", "--manage", live.path, "--re-add", device], None, ())
            if code:
                raise ArrayError(
                    f"{self.array.name}: {device} was a member and cannot be taken back as one"
                    f" ({_short(said or output)}); if it is to be filled as a new disk, run `mdadm --zero-superblock"
                    f" {device}` and `mdadm --manage {live.path} --add {device}`"
                )
            done.append(f"took {device} back into {self.array.name}")
        for device in decision.add:
            self._do(["mdadm", "--manage", live.path, "--add", device])
            done.append(f"added {device} to {self.array.name}")
        if done:
            self._settle()
        return done

    # --- small things ---

    def _allowed(self, look: Look) -> None:
        if look.decision.action == REFUSE:
            raise ArrayError(f"{self.array.name}: {look.decision.sentence}")

    def _remember(self, record: Record) -> None:
        md_array_record.write(record, self._folder)

    def _settle(self) -> None:
        self._do(["udevadm", "settle", "--timeout=30"])

    def _do(self, argv: Sequence[str]) -> None:
        try:
            code, output, said = self._run(argv, None, ())
        except FileNotFoundError as error:
            raise ArrayError(f"{self.array.name}: {argv[0]} is missing on this host") from error
        if code:
            raise ArrayError(f"{self.array.name}: `{' '.join(argv)}` ended with {code}: {_short(said or output)}")


def create_argv(array: Array, uuid: str) -> List[str]:
    # --run: mdadm asks whether it may go on when a disk holds a piece of the array; that is proved to be ours.
    argv = ["mdadm", "--create", array.node, "--run", "--metadata=1.2"]
    argv += [f"--homehost={HOMEHOST}", f"--name={array.name}", f"--uuid={uuid}"]
    argv += [f"--level={array.level}", f"--raid-devices={len(array.legs)}"]
    if array.level == 1:
        argv.append(f"--bitmap={'internal' if array.bitmap else 'none'}")
    if array.chunk:
        argv.append(f"--chunk={array.chunk >> 10}K")
    return argv + [leg.device for leg in array.legs]


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One run at a time on a host's arrays."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ArrayError("another run works on this host's arrays; wait for it") from error
        yield


class Boot:
    """What has to be written so that arrays come up at boot."""

    def __init__(self, preferred: str, root: Path = Path("/")) -> None:
        there = [path for path in (preferred, *CONFIGURATIONS) if (root / path.lstrip("/")).exists()]
        self.path = there[0] if there else preferred
        self._root = root
        self._file = root / self.path.lstrip("/")

    def wanted(self, array: Array, uuid: str) -> str:
        """What the configuration should hold with the array in it; empty when it does."""
        text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
        try:
            wanted: str = md_array_boot.merged(text, array, uuid, self.path)
        except md_array_boot.BootLineError as error:
            raise ArrayError(str(error)) from error
        return "" if wanted == text else wanted

    def write(self, content: str) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        volume_record.write_durably(self._file, content, 0o644)


def _short(text: str) -> str:
    return " ".join(text.split())[-600:]
