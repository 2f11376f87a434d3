"""Raising what stands changes nothing; taking down what is being raised leaves nothing."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
import traces
from ansible_collections.bedplate.llm.plugins.module_utils.lab_build import CACHE, DISK, INITRAMFS, KERNEL
from ansible_collections.bedplate.llm.plugins.module_utils.lab_host import processes_in
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import parse_lab
from conftest import LAB, NAME, SCENARIO, play
from scenario import PROJECT, changed, said, wait_until


def test_raising_the_lab_again_changes_nothing(machine):
    assert changed(play("bedplate.llm.lab_up")) == 0


@pytest.fixture
def second_lab(tmp_path):
    """One more lab beside that of the scenario, with a route to the outside: it switches on more of this computer."""
    return {
        "lab_name": "bpvmcut",
        "lab_network": "10.90.1.0/24",
        "lab_network6": "fd90:b3d1::/64",
        "lab_outside": True,
        "ansible_host": "10.90.1.31",
        "bedplate_secrets_dir": str(tmp_path / "secrets"),
    }


@pytest.mark.parametrize("killed", [False, True], ids=["still being raised", "its playbook was killed"])
def test_a_lab_goes_down_in_the_middle_of_its_rise_and_leaves_nothing(second_lab, tmp_path, killed):
    lab = parse_lab(second_lab["lab_name"], second_lab["lab_network"], second_lab["lab_network6"])
    before = traces.look()
    assert before.of(lab.name) == []
    with (tmp_path / "up.log").open("w") as log:
        up = subprocess.Popen(LAB.play_argv("bedplate.llm.lab_up", second_lab), cwd=PROJECT, stdout=log, stderr=log)
    try:
        wait_until(lambda: up.poll() is not None or len(processes_in(lab.cgroup(NAME))) > 1, 120, 0.2)
        middle = traces.look().of(lab.name)
        assert up.poll() is None, (tmp_path / "up.log").read_text()
        for kind in ("interface", "route", "nft", "process", "record", "control group"):
            assert any(line.startswith(kind) for line in middle), (kind, middle)
        if killed:
            up.kill()
    finally:
        down = play("bedplate.llm.lab_down", second_lab)
    assert changed(down) == 1
    assert up.wait(30) != 0
    assert traces.differences(before, traces.look(), lab.name) == []


@pytest.fixture
def unbootable(declared, tmp_path) -> Path:
    """The image of the scenario's machine, with nothing in its initramfs."""
    scenario = parse_lab(declared["lab_name"], declared["lab_network"], declared["lab_network6"])
    image = CACHE / json.loads((scenario.machine_state(NAME) / "machine.json").read_text())["base"]
    made = tmp_path / "unbootable"
    made.mkdir()
    for name in (KERNEL, DISK):
        (made / name).symlink_to(image / name)
    (made / INITRAMFS).write_bytes(b"")
    return made


def test_a_boot_that_panics_is_told_with_its_console_after_a_second_try(second_lab, unbootable):
    lab = parse_lab(second_lab["lab_name"], second_lab["lab_network"], second_lab["lab_network6"])
    started = time.monotonic()
    try:
        done = play(str(SCENARIO / "playbooks/broken.yml"), {**second_lab, "base": str(unbootable)})
        emulated = (lab.state / "accelerator").read_text() == "tcg"
        consoles = sorted(path.name for path in lab.machine_state(NAME).glob("console*"))
    finally:
        down = play("bedplate.llm.lab_down", second_lab)
    assert changed(down) == 1
    assert done.returncode != 0
    # Nobody waits for a kernel that has said its last word.
    assert time.monotonic() - started < 150
    told = said(done)
    assert "its kernel panicked" in told
    assert "Kernel panic - not syncing: VFS: Unable to mount root fs" in told
    assert "VFS: Cannot open root device" in told  # what came before is told as well
    assert ("It was the second boot; of the first one:" in told) == emulated
    assert consoles == ["console.failed.log", "console.log"] if emulated else ["console.log"]
