"""No reboot without leave, and none over anybody's head: each obstacle is named, and nothing is touched.

After `test_reboot.py` (by its name), whose reboot the role carried out.
"""

from __future__ import annotations

import pytest
from reboot_contract import ENGINE, REASON, have_it_wait, reboot, said
from scenario import boot_id


@pytest.fixture(scope="module", autouse=True)
def waiting(machine):
    have_it_wait(machine)


@pytest.fixture
def untouched(machine):
    """The boot and the engine's start are the same afterwards."""

    def look() -> tuple[str, str]:
        return boot_id(machine), machine.check_output(f"systemctl show --value --property InvocationID {ENGINE}")

    before = look()
    assert all(before)
    yield
    assert look() == before


def test_without_leave_it_is_said_what_waits_and_how_to_allow_it(untouched):
    done = reboot()
    assert done.returncode == 0, said(done)
    assert (
        f"store1 waits for a reboot: test_driver: {REASON}. It is not restarted, since nobody allowed it; allow it with"
        " `bedplate provision --reboot` or bedplate_reboot_allowed: true."
    ) in said(done)


@pytest.fixture
def obstacles(machine):
    """A process with a GPU, a package manager at work, and somebody at a terminal; the GPU is another device's node."""
    machine.check_output(
        "sudo mknod --mode 0666 /dev/nvidia0 c 1 3"
        " && sudo systemd-run --quiet --unit bedplate-test-training --property StandardInput=file:/dev/nvidia0"
        " sleep 600"
        " && sudo systemd-run --quiet --unit bedplate-test-lock systemd-inhibit --what shutdown --who apt"
        " --why 'Installing packages' --mode block sleep 600"
        " && sudo systemd-run --quiet --unit bedplate-test-console --property PAMName=login --property User=root"
        " --property TTYPath=/dev/tty3 --property StandardInput=tty sleep 600"
    )
    yield
    machine.check_output(
        "sudo systemctl stop bedplate-test-training bedplate-test-lock bedplate-test-console; sudo rm /dev/nvidia0"
    )


MISSING = {"id": "driver.modules", "ok": False, "reason": "Kernel 6.9 has no module.", "remedy": "build it."}


def test_with_leave_every_obstacle_is_named_at_once_and_nobody_is_ended(machine, obstacles, untouched):
    done = reboot(bedplate_reboot_allowed=True, reboot_holder_patience=1, reboot_refusals=[MISSING])
    assert done.returncode != 0
    text = said(done)
    assert "(/usr/bin/sleep 600) of bedplate-test-training.service with /dev/nvidia0" in text, text
    assert "apt (process" in text and "Installing packages" in text, text
    assert "root on tty3" in text, text
    assert "driver.modules: Kernel 6.9 has no module. Remedy: build it." in text, text
    for unit in ("training", "lock", "console"):
        assert machine.service(f"bedplate-test-{unit}").is_running
