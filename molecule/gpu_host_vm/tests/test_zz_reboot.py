"""After a restart of the machine the engine comes back by itself, with the GPUs. Runs last, by its name."""

from __future__ import annotations

import pytest
from conftest import SPEC, engine_pid
from scenario import boot_id, wait_for_next_boot, wait_until


@pytest.fixture(scope="module")
def before(machine, access) -> dict[str, str]:
    found = {
        "boot": boot_id(machine),
        "spec": machine.file(SPEC).content_string,
        "image": machine.check_output("sudo podman container inspect --format '{{.Image}}' bedplate-vllm"),
    }
    machine.check_output("sudo systemd-run --on-active=1 systemctl reboot")  # after the answer is here
    wait_for_next_boot(machine, access, found["boot"])
    wait_until(lambda: machine.run("systemctl is-active --quiet bedplate-vllm").rc == 0, 300)
    return found


def test_a_client_gets_an_answer_from_the_gpus(before, ask):
    wait_until(lambda: "nvidia0 nvidia1" in ask("good evening"), 60)


def test_the_gpus_were_described_anew_before_the_engine_started(before, machine):
    assert machine.file(SPEC).content_string == before["spec"]
    assert machine.check_output("stat --file-system --format %T /run/cdi") == "tmpfs"


def test_it_is_the_same_image_without_a_bundle_at_hand(before, machine):
    said = machine.check_output("sudo podman container inspect --format '{{.Image}}' bedplate-vllm")
    assert said == before["image"]
    assert int(engine_pid(machine)) > 1


def test_no_unit_failed_and_none_waits_for_itself(before, machine):
    assert machine.check_output("systemctl list-units --failed --no-legend --plain") == ""
    cycles = machine.run("sudo journalctl --boot --output cat | grep 'Found ordering cycle'")
    assert cycles.stdout == ""
