"""A machine that was switched off is started again by raising the lab, with its disks as they were.

Runs last (by its name): it ends the boot that the other tests look at.
"""

from __future__ import annotations

from ansible_collections.bedplate.llm.plugins.module_utils.lab_host import processes_in
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import parse_lab
from conftest import NAME, play
from scenario import boot_id, changed, wait_until

WORDS = "written before the power went"


def test_a_machine_that_was_switched_off_comes_back_with_its_disks(machine, declared):
    lab = parse_lab(declared["lab_name"], declared["lab_network"], declared["lab_network6"])
    disk = f"/dev/disk/by-id/virtio-{declared['lab_disks'][-1]['serial']}"
    before = boot_id(machine)
    machine.check_output(f"echo '{WORDS}' | sudo dd of={disk} conv=fsync status=none")
    machine.check_output("sudo systemd-run --on-active=1 systemctl poweroff")  # after the answer is here
    wait_until(lambda: not processes_in(lab.cgroup(NAME)), 60)
    assert changed(play("bedplate.llm.lab_up")) == 1
    assert boot_id(machine) not in ("", before)
    assert machine.check_output(f"sudo head --lines 1 {disk}") == WORDS
