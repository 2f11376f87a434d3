"""The machine has what a container cannot have: a kernel, disks and a TPM of its own."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import Disk
from scenario import BOOT_ID, boot_id

# TPM2_GetRandom for eight bytes, and where the answer says how it went: Trusted Platform Module Library, part 3.
ASK_THE_TPM = """
tpm = open("/dev/tpmrm0", "r+b", buffering=0)
tpm.write(bytes.fromhex("8001 0000000c 0000017b 0008"))
answer = tpm.read(4096)
print(answer[6:10].hex(), int.from_bytes(answer[10:12], "big"))
"""


def test_the_kernel_is_the_images_and_not_the_operators(machine):
    assert boot_id(machine) != Path(BOOT_ID).read_text().strip()
    assert machine.file(f"/boot/vmlinuz-{machine.check_output('uname -r')}").exists
    assert machine.check_output("systemd-detect-virt") in ("qemu", "kvm")


def test_every_declared_disk_is_found_by_its_serial_with_its_size(machine, declared):
    disks = [Disk(**disk) for disk in declared["lab_disks"]]
    assert len(disks) > 1
    for disk in disks:
        found = machine.check_output(
            f"lsblk --bytes --nodeps --noheadings --output SIZE /dev/disk/by-id/virtio-{disk.serial}"
        )
        assert int(found) == disk.bytes, disk


def test_the_tpm_is_version_2_and_answers(machine):
    assert machine.check_output("cat /sys/class/tpm/tpm0/tpm_version_major") == "2"
    assert machine.check_output(f"sudo python3 -c '{ASK_THE_TPM}'") == "00000000 8"


def test_processors_and_memory_are_the_declared_ones(machine, declared):
    assert int(machine.check_output("nproc")) == declared["lab_cpus"]
    mebibytes = int(machine.check_output("awk '/^MemTotal/ {print $2}' /proc/meminfo")) // 1024
    wanted = Disk("memory", declared["lab_memory"]).bytes // 2**20
    assert 0.9 * wanted < mebibytes <= wanted  # the kernel and the firmware keep some for themselves


def test_every_unit_of_the_machine_is_well(machine):
    assert machine.check_output("systemctl is-system-running --wait") == "running"
