"""A boot that hangs is told with what the console shows, and only a machine that holds nothing is made once more."""

from __future__ import annotations

import contextlib

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import lab_boot, lab_machines, lab_vm
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import LabError, parse_lab, parse_machine

PANIC = "[    2.1] Kernel panic - not syncing: IO-APIC + timer doesn't work!"


@pytest.mark.parametrize(
    ("action", "kind", "emulated", "boots"),
    [
        ("create", "vm", True, 2),
        ("create", "vm", False, 1),
        ("start", "vm", True, 1),
        ("keep", "vm", True, 1),
        ("create", "container", False, 1),
    ],
)
def test_only_a_new_emulated_machine_has_a_second_boot(action, kind, emulated, boots):
    waits = lab_boot.patience(action, kind, emulated)
    assert len(waits) == boots
    assert sum(waits) <= 420


def test_the_console_is_shown_without_colours_and_with_the_kernels_last_words():
    console = "\x1b[0;32m  OK  \x1b[0m] Started\r\n\n" + PANIC
    assert lab_boot.tail(console) == f"OK  ] Started | {PANIC}"
    assert lab_boot.panic(console) == PANIC
    assert lab_boot.panic("login:") is None
    assert lab_boot.tail("") == "nothing"


def test_an_emulated_kernel_does_not_give_up_over_a_timer_that_did_not_get_its_turn():
    assert "no_timer_check" in lab_vm.kernel_arguments("tcg")
    assert "no_timer_check" not in lab_vm.kernel_arguments("kvm")


@pytest.fixture
def boots(monkeypatch, tmp_path):
    """A lab whose machines do not come up as often as `boots.hang` says."""

    class Boots:
        hang = 0
        steps: list[str]

    made = Boots()
    made.steps = []
    lab = parse_lab("unit", "10.99.1.0/24", "fd99::/64")
    monkeypatch.setattr(type(lab), "state", property(lambda _lab: tmp_path))
    monkeypatch.setattr(lab_machines, "lock", lambda *_names, **_options: contextlib.nullcontext())
    monkeypatch.setattr(lab_machines, "read_json", lambda path: {} if path.name == "lab.json" else None)
    monkeypatch.setattr(lab_machines, "answers", lambda _address: False)
    monkeypatch.setattr(lab_vm, "accelerator", lambda _state, _base: "tcg")
    for name in ("_create", "_start", "remove_locked"):
        monkeypatch.setattr(lab_machines, name, lambda *_given, step=name: made.steps.append(step))

    def wait(*_given):
        made.steps.append("wait")
        if made.hang:
            made.hang -= 1
            raise LabError("vm1 let nobody in; its console ends with: nothing.")

    monkeypatch.setattr(lab_machines, "_wait", wait)
    made.lab = lab
    made.machine = parse_machine(
        lab, {"name": "vm1", "kind": "vm", "address": "10.99.1.5", "memory": "1G", "base": "x"}
    )
    return made


def run(boots, tmp_path):
    return lab_machines.ensure_running(boots.lab, boots.machine, tmp_path, lab_machines.Access(tmp_path, {}))


def test_a_new_machine_that_hangs_is_made_once_more_and_it_is_said(boots, tmp_path):
    boots.hang = 1
    action, failed = run(boots, tmp_path)
    assert action == "create"
    assert "made once more" in failed[0]
    assert boots.steps == ["_create", "_start", "wait", "remove_locked", "_create", "_start", "wait"]


def test_one_that_hangs_twice_is_given_up_with_both_stories(boots, tmp_path):
    boots.hang = 2
    with pytest.raises(LabError, match="Before that: vm1 let nobody in"):
        run(boots, tmp_path)
    assert boots.steps.count("_create") == 2


def test_a_machine_that_was_there_is_never_made_afresh(boots, tmp_path, monkeypatch):
    boots.hang = 1
    monkeypatch.setattr(lab_machines, "plan", lambda _lab, _machine: "start")
    with pytest.raises(LabError):
        run(boots, tmp_path)
    assert "_create" not in boots.steps
    assert "remove_locked" not in boots.steps
