"""Who holds the GPUs, read from a tree that looks like /proc, and from this process itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import gpu_holders
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_holders import Found, Holder, holders, look, parse_maps

MAPS = """\
7f00-7f01 r-xp 00000000 08:01 1 /usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05
7f02-7f03 rw-s 00000000 00:05 9 /dev/nvidia3
7f04-7f05 rw-s 00000000 00:05 9 /dev/nvidiactl (deleted)
7f06-7f07 rw-p 00000000 00:00 0 [heap]
"""


def process(root: Path, pid: int, opened: Iterable[str], cmdline: str = "", cgroup: str = "0::/\n", maps: str = ""):
    folder = root / "proc" / str(pid)
    (folder / "fd").mkdir(parents=True)
    for number, target in enumerate(opened):
        (folder / "fd" / str(number)).symlink_to(target)
    for name, text in {"cmdline": cmdline, "comm": "name\n", "cgroup": cgroup, "maps": maps}.items():
        (folder / name).write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc/sys").mkdir(parents=True)
    return tmp_path


def test_holders_are_named_with_their_command_unit_and_devices(root):
    process(root, 1, ["/dev/null", "socket:[1]"])
    process(
        root,
        812,
        ["/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap1", "/dev/nvidia-uvm"],
        "VLLM::EngineCore\0",
        "0::/system.slice/bedplate-vllm.service\n",
    )
    process(root, 90, ["/dev/null"], "nvtop\0", "0::/user.slice/user-1000.slice/session-4.scope\n", MAPS)
    found = holders(root)
    assert found == [
        Holder(90, "nvtop", "session-4.scope", ("/dev/nvidia3", "/dev/nvidiactl")),
        Holder(
            812,
            "VLLM::EngineCore",
            "bedplate-vllm.service",
            ("/dev/nvidia-caps/nvidia-cap1", "/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidiactl"),
        ),
    ]
    assert found[0].sentence == "process 90 (nvtop) of session-4.scope with /dev/nvidia3, /dev/nvidiactl"


@pytest.mark.parametrize(
    "path",
    [
        "/home/a/dev/nvidia0",
        "/usr/lib/libnvidia-ml.so.580.95.05",
        "/dev/nvidia0.txt",
        "/dev/nvidiaX",
        "/tmp/not /dev/nvidia0",
        "/dev/nvme0",
    ],
)
def test_what_only_looks_like_a_device_holds_nothing(root, path):
    process(root, 5, [path], maps=f"7f-80 rw-s 0 0:0 1 {path}\n")
    assert holders(root) == []


def test_a_mapped_device_counts_also_after_its_node_was_made_anew():
    assert parse_maps(MAPS) == {"/dev/nvidia3", "/dev/nvidiactl"}


def test_a_process_that_ended_meanwhile_holds_nothing(root):
    (root / "proc/77").mkdir()
    assert look(root) == Found(())


def test_who_will_not_be_looked_at_is_told_and_not_taken_for_nobody(root, monkeypatch):
    process(root, 5, ["/dev/nvidia0"])
    process(root, 6, ["/dev/nvidia0"])
    opened = gpu_holders._opened

    def denied(folder: Path):
        if folder.name == "5":
            raise PermissionError(13, "Permission denied")
        return opened(folder)

    monkeypatch.setattr(gpu_holders, "_opened", denied)
    found = look(root)
    assert [holder.pid for holder in found.holders] == [6]
    assert found.unseen == (5,)


def test_a_process_of_this_machine_is_found_by_what_it_has_open(monkeypatch):
    """The real /proc, with another device in the place of the GPU's."""
    monkeypatch.setattr(gpu_holders, "_device", lambda path: path if path == "/dev/zero" else "")
    with (
        Path("/dev/zero").open("rb") as device,
        subprocess.Popen(["sleep", "60"], stdin=device) as sleeper,
    ):
        try:
            found = {holder.pid: holder for holder in holders(Path("/"))}
            assert found[sleeper.pid].command == "sleep 60"
            assert found[sleeper.pid].devices == ("/dev/zero",)
        finally:
            sleeper.terminate()
