"""A host with three disks, made of files: mdadm and the kernel's RAID are played, all that is ours is real.

The disks object: to an array that is made over data.  Every change that survives a power cut is told to `Power`.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import md_samples
import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import block_device_host, md_array_host, md_array_look
from ansible_collections.bedplate.llm.plugins.module_utils.md_array_host import ArrayHost
from ansible_collections.bedplate.llm.plugins.module_utils.md_superblock import OFFSET, SPARE, Superblock, parse
from ansible_collections.bedplate.llm.plugins.modules import md_array, md_array_info
from volume_lab import Power

SIZE = 64 << 20
NAMES = {"leg0": "vdb", "leg1": "vdc", "leg2": "vdd"}
DATA = 1 << 20  # where a disk's data are looked for


class Lab:
    def __init__(self, folder: Path, power: Power) -> None:
        self.power = power
        self.root, self.sys, self.dev = folder / "root", folder / "sys", folder / "dev"
        for path in (self.root, self.sys / "class/block", self.dev):
            path.mkdir(parents=True)
        for kernel in NAMES.values():
            with (self.dev / kernel).open("wb") as disk:
                disk.truncate(SIZE)
            (self.sys / "class/block" / kernel / "holders").mkdir(parents=True)
        self.argvs: list[list[str]] = []
        self.broken: set[str] = set()

    # --- the disks ---

    def path(self, serial: str) -> Path:
        return self.dev / NAMES[serial]

    def superblock(self, serial: str) -> Superblock | None:
        with self.path(serial).open("rb") as disk:
            disk.seek(OFFSET)
            return parse(disk.read(4096))

    def write(self, serial: str, offset: int, content: bytes) -> None:
        with self.path(serial).open("r+b") as disk:
            disk.seek(offset)
            disk.write(content)

    def empty(self, serial: str) -> None:
        with self.path(serial).open("r+b") as disk:
            disk.write(bytes(DATA + 4096))

    def data(self, serial: str) -> bytes:
        with self.path(serial).open("rb") as disk:
            disk.seek(DATA)
            return disk.read(8)

    def _mark(self, serial: str, **fields: Any) -> None:
        self.write(serial, OFFSET, md_samples.block(**fields))

    # --- the kernel's part ---

    @property
    def folder(self) -> Path:
        return self.sys / "class/block/md127/md"

    def members(self) -> list[str]:
        kernels = sorted(entry.name[4:] for entry in self.folder.glob("dev-*"))
        return [serial for serial, kernel in NAMES.items() if kernel in kernels]

    def start(self, serials: Sequence[str], state: str = "clean") -> None:
        """What the kernel shows of an array once it has these members."""
        first = self.superblock(serials[0])
        assert first
        shown = {"array_state": state, "level": "raid1", "raid_disks": str(first.members), "metadata_version": "1.2"}
        shown |= {"sync_action": "idle", "sync_completed": "none", "mismatch_cnt": "0"}
        shown["degraded"] = str(first.members - len(serials))
        (self.folder / "bitmap").mkdir(parents=True, exist_ok=True)
        (self.folder / "bitmap/location").write_text("+8\n")
        for name, text in shown.items():
            (self.folder / name).write_text(f"{text}\n")
        for serial in serials:
            self.join(serial, "in_sync")

    def join(self, serial: str, state: str) -> None:
        kernel = NAMES[serial]
        (self.folder / f"dev-{kernel}").mkdir(exist_ok=True)
        (self.folder / f"dev-{kernel}/state").write_text(f"{state}\n")
        (self.sys / f"class/block/{kernel}/holders/md127").touch()

    def leave(self, kernel: str) -> None:
        shutil.rmtree(self.folder / f"dev-{kernel}")
        (self.sys / f"class/block/{kernel}/holders/md127").unlink()

    def stop(self) -> None:
        for serial in self.members():
            (self.sys / f"class/block/{NAMES[serial]}/holders/md127").unlink()
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def reboot(self) -> None:
        """What udev puts together of the superblocks that it finds; half an array is not started."""
        self.stop()
        found = [serial for serial in NAMES if self.superblock(serial)]
        if found:
            self.start(found, "clean" if len(found) >= 2 else "inactive")

    # --- the tools ---

    def run(self, argv: Sequence[str], _secret: bytes | None, _inherited: Sequence[int]) -> tuple[int, str, str]:
        self.argvs.append(list(argv))
        if argv[0] in self.broken or " ".join(argv[:2]) in self.broken:
            return 1, "", "it is broken"
        answer = getattr(self, f"_{argv[0]}", None)
        return answer(list(argv)) if answer else (0, "", "")

    def _lsblk(self, argv: list[str]) -> tuple[int, str, str]:
        kernel = Path(argv[-1]).name
        serial = next(serial for serial, name in NAMES.items() if name == kernel)
        if "--json" not in argv:
            return 0, f"{serial}\n", ""
        holders = sorted(path.name for path in (self.sys / f"class/block/{kernel}/holders").iterdir())
        shown = {"name": kernel, "kname": kernel, "path": argv[-1], "type": "disk", "size": SIZE, "ro": False}
        shown |= {
            "serial": serial,
            "mountpoints": [None],
            "children": [{"name": name, "kname": name} for name in holders],
        }
        return 0, json.dumps({"blockdevices": [shown]}), ""

    def _wipefs(self, argv: list[str]) -> tuple[int, str, str]:
        serial = next(serial for serial in NAMES if self.path(serial) == Path(argv[-1]))
        found = [{"type": "linux_raid_member", "offset": "0x1000"}] if self.superblock(serial) else []
        return 0, json.dumps({"signatures": found}), ""

    def _blkid(self, _argv: list[str]) -> tuple[int, str, str]:
        return 2, "", ""

    def _systemctl(self, argv: list[str]) -> tuple[int, str, str]:
        return 0, "", ""

    def _mdadm(self, argv: list[str]) -> tuple[int, str, str]:
        if argv[1] == "--examine":
            return 1, "", ""
        getattr(self, f"_do_{argv[1].strip('-')}")(argv)
        return 0, "", ""

    def _do_create(self, argv: list[str]) -> None:
        options = dict(word.split("=", 1) for word in argv if "=" in word)
        serials = [word.rsplit("-", 1)[1] for word in argv if word.startswith("/dev/disk/")]
        fields = {"uuid": options["--uuid"], "name": f"{options['--homehost']}:{options['--name']}"}
        for number, serial in enumerate(serials):
            assert self.data(serial) == bytes(8), "an array is made over data"
            assert not (self.sys / f"class/block/{NAMES[serial]}/holders/md127").exists(), "the disk is held"
            self._mark(serial, number=number, **fields)
            self.power.wrote(f"superblock {number}")
        self.start(serials)
        self.power.wrote("running")

    def _do_assemble(self, argv: list[str]) -> None:
        self.start([word.rsplit("-", 1)[1] for word in argv if word.startswith("/dev/disk/")])
        self.power.wrote("running")

    def _do_stop(self, _argv: list[str]) -> None:
        self.stop()

    def _do_manage(self, argv: list[str]) -> None:
        if "--remove" in argv:
            kernel = argv[argv.index("--remove") + 1]
            state = (self.folder / f"dev-{kernel}/state").read_text()
            assert "faulty" in state or "--fail" in argv, "a healthy member is removed"
            self.leave(kernel)
            self.power.wrote(f"removed {kernel}")
            return
        serial = argv[-1].rsplit("-", 1)[1]
        if argv[3] == "--add":
            assert self.data(serial) == bytes(8), "a disk with data is added"
            first = self.superblock(self.members()[0])
            assert first
            self._mark(serial, uuid=first.uuid, number=2, roles=(0, SPARE, 1))
        self.join(serial, "spare")
        self.power.wrote(f"added {serial}")


def play(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let our code find this lab where a host has its disks and its kernel."""
    real_path, real_exclusive = os.path.realpath, block_device_host.exclusive
    links = {f"/dev/disk/by-id/virtio-{serial}": str(lab.path(serial)) for serial in NAMES}
    real_replace = os.replace

    def put(source: Any, target: Any) -> None:
        real_replace(source, target)
        lab.power.wrote(f"{Path(target).name} {_state(Path(target))}".strip())

    def exclusive(path: str) -> bool:
        return not any((lab.sys / "class/block" / Path(path).name / "holders").iterdir()) and real_exclusive(path)

    monkeypatch.setattr(os.path, "realpath", lambda path, **more: links.get(str(path)) or real_path(path, **more))
    monkeypatch.setattr(Path, "is_block_device", lambda path: path.parent == lab.dev and path.is_file())
    monkeypatch.setattr(os, "replace", put)
    monkeypatch.setattr(os, "fsync", lambda _file: None)
    monkeypatch.setattr(block_device_host, "BLANK_ENDS", 2 << 20)
    monkeypatch.setattr(block_device_host, "exclusive", exclusive)
    monkeypatch.setattr(block_device_host, "look", functools.partial(block_device_host.look, sys=lab.sys))
    monkeypatch.setattr(md_array_look, "running", functools.partial(md_array_look.running, sys=lab.sys))
    monkeypatch.setattr(md_array_look, "DEVICES", lab.dev)
    monkeypatch.setattr(md_array_host, "LOCK", lab.root / "lock")
    for module in (md_array, md_array_info):
        monkeypatch.setattr(module, "module_runner", lambda _module: lab.run)
        monkeypatch.setattr(module, "ArrayHost", functools.partial(ArrayHost, root=lab.root))
        monkeypatch.setattr(module, "Boot", functools.partial(md_array_host.Boot, root=lab.root))


def declared(*serials: str) -> list[dict[str, Any]]:
    """The array of these disks, as a site says it."""
    devices = [{"device": f"/dev/disk/by-id/virtio-{serial}", "serial": serial, "size": SIZE} for serial in serials]
    return [{"name": "weights", "level": 1, "devices": devices}]


def _state(path: Path) -> str:
    return str(json.loads(path.read_text())["state"]) if path.suffix == ".json" else ""
