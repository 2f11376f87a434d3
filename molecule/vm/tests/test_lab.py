"""Raising what stands changes nothing; taking down what is being raised leaves nothing."""

from __future__ import annotations

import subprocess

import pytest
import traces
from ansible_collections.bedplate.llm.plugins.module_utils.lab_host import processes_in
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import parse_lab
from conftest import LAB, NAME, play
from scenario import PROJECT, changed, wait_until


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
