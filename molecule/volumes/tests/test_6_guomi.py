"""National cryptography on a real kernel: refused where SM4 is missing, and what lies on the disk where it is there.

Debian's kernels have no SM4.  The role sm4_module builds it on builder1, a container with the virtual machine's kernel,
its headers and its source, at native speed; the files are carried over, and the virtual machine's kernel loads them.
What else the role does on a host: molecule/gpu_host/tests/test_6_sm4.py.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.cipher_profiles import GUOMI
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from scenario import Scenario, by_ssh, changed
from xts import Xts

from bedplate.describe import Host

SCENARIO = Path(__file__).resolve().parent.parent
LAB = Scenario(SCENARIO)
DISK, NAME = "/dev/disk/by-id/virtio-guomi0", "bedplate-test-guomi"
MAPPED, WORDS = f"/dev/mapper/{NAME}", "what nobody else shall read"
KEY = "correct-horse-battery-staple"
# Guesses cost little here: an emulated processor takes minutes for what a real one does in seconds.
COST = "--pbkdf argon2id --pbkdf-memory 32768 --pbkdf-parallel 1 --pbkdf-force-iterations 4"
FORMAT = (
    f"luksFormat --type luks2 --cipher {GUOMI.cipher} --key-size {GUOMI.key_bits} --hash {GUOMI.hash}"
    f" --sector-size 4096 {COST} {DISK}"
)
# cryptsetup's own default for where the data begin.
SECTOR, DATA = 4096, 16 << 20
BLOCKS = 8


@pytest.fixture(scope="module")
def machine():
    return by_ssh(LAB.access()["store1"], keep=60)


def cryptsetup(machine, action: str):
    """With the key on standard input: an argument would be readable by every user of the machine."""
    return machine.run(f"printf %s {KEY} | sudo cryptsetup --batch-mode --key-file=- {action}")


def read(device: str, size: int = 1 << 20, more: str = "") -> str:
    """The device itself, not what the kernel remembers of it: what lies under a mapping is changed behind its back."""
    return f"sudo dd if={device} bs={size} {more} iflag=direct status=none"


def look() -> dict[str, Any]:
    found: dict[str, Any] = LAB.by_ansible("store1").ansible(
        "bedplate.llm.sm4_module_info", "", become=True, check=False
    )
    return found


def digest(machine) -> str:
    return str(machine.check_output(f"{read(DISK)} | sha256sum"))


@pytest.fixture(scope="module")
def refused(machine):
    """Before the module comes: what is said, and the disk before and after an attempt all the same."""
    assert machine.check_output("find /lib/modules -name 'sm4*'") == ""
    before = digest(machine)
    return look(), cryptsetup(machine, FORMAT), before, digest(machine)


def test_a_kernel_without_sm4_is_refused_in_a_sentence_and_the_disk_is_as_it_was(machine, refused):
    found, attempt, before, after = refused
    release = machine.check_output("uname -r")
    for words in (f"kernel {release} of Debian", "cannot encrypt with xts(sm4)", "run the role sm4_module"):
        assert words in found["host"]["unusable"]
    assert attempt.rc == 1
    assert before == after


def ssh(host: Host, command: str, stdin: bytes = b"") -> bytes:
    argv = ["ssh", "-F", "/dev/null", "-i", host.ssh_key, "-p", str(host.ssh_port), *shlex.split(host.ssh_arguments)]
    to = f"{host.ssh_user}@{host.address}"
    return subprocess.run([*argv, to, command], input=stdin, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def module(refused, machine) -> str:
    """The folder of the modules on the machine, which boots the kernel that they were built for."""
    assert changed(LAB.play(SCENARIO / "playbooks" / "guomi.yml")) > 0
    release, hosts = machine.check_output("uname -r"), LAB.access()
    # With the lists of depmod, which takes long by emulation; they are of the same kernel with the same modules.
    folder = f"/lib/modules/{release}"
    files = ssh(hosts["builder1"], f"cd {folder} && tar -cz updates modules.*")
    ssh(hosts["store1"], f"sudo tar -xz --no-same-owner -C {folder}", files)
    return f"{folder}/updates/dkms"


def test_the_kernel_that_has_it_encrypts_as_the_standard_says(machine, module):
    checks = {check["id"]: check for check in look()["checks"]}
    release = machine.check_output("uname -r")
    for name in ("kernel-has-sm4", "module-every-kernel"):
        assert checks[f"sm4_module.{name}"]["ok"], checks
    assert checks["sm4_module.kernel-has-sm4"]["reason"] == (
        f"Kernel {release} encrypts with xts(sm4) as the standard says."
    )


@pytest.fixture(scope="module")
def volume(machine, module):
    """Made, written to, closed, and open again."""
    made = cryptsetup(machine, FORMAT)
    assert made.rc == 0, made.stderr
    assert cryptsetup(machine, f"open {DISK} {NAME}").rc == 0
    machine.check_output(
        f"sudo mkfs.ext4 -q {MAPPED} && sudo mount {MAPPED} /mnt && echo '{WORDS}' | sudo tee /mnt/words"
    )
    machine.check_output(f"sudo umount /mnt && sudo cryptsetup close {NAME}")
    assert cryptsetup(machine, f"open {DISK} {NAME}").rc == 0
    yield
    machine.run(f"sudo umount /mnt; sudo cryptsetup close {NAME}")


def test_what_was_written_is_read_after_the_volume_was_closed_and_opened(machine, volume):
    assert machine.check_output(f"sudo mount {MAPPED} /mnt && cat /mnt/words && sudo umount /mnt") == WORDS
    assert machine.check_output(f"{read(MAPPED)} | grep --count --text '{WORDS}'") != "0"
    assert machine.run(f"{read(DISK)} | grep --count --text '{WORDS}'").stdout.strip() == "0"


def test_header_and_mapping_have_the_profiles_parameters_and_no_others(machine, volume):
    dump = machine.check_output(f"sudo cryptsetup luksDump {DISK}")
    fields = [tuple(part.strip() for part in line.split(":", 1)) for line in dump.splitlines() if ":" in line]
    assert {value for key, value in fields if key.lower().startswith("cipher") and "-" in value} == {GUOMI.cipher}
    assert {value for key, value in fields if "hash" in key.lower()} == {GUOMI.hash}
    assert f" crypt {GUOMI.cipher} " in machine.check_output(f"sudo dmsetup table {NAME}")
    assert {value for key, value in fields if key == "Cipher key"} == {f"{GUOMI.key_bits} bits"}


def blocks(machine, device: str, offset: int) -> bytes:
    command = read(device, SECTOR, f"skip={offset // SECTOR} count={BLOCKS}")
    return bytes.fromhex(machine.check_output(f"{command} | od -An -v -tx1 | tr -d ' \\n'"))


def test_what_lies_on_the_disk_is_sm4_by_another_implementation(machine, volume):
    """OpenSSL's SM4 on the operator's side, from the volume key and the raw sectors alone."""
    dump = cryptsetup(machine, f"luksDump --dump-volume-key {DISK}")
    key = bytes.fromhex("".join(dump.stdout.partition("MK dump:")[2].split()))
    assert len(key) * 8 == GUOMI.key_bits
    plain, stored = blocks(machine, MAPPED, 0), blocks(machine, DISK, DATA)
    assert plain[0x438:0x43A] == b"\x53\xef"  # the file system's own mark, so that these are no zeros
    volume_key = Xts(SM4, key)
    # plain64 counts in units of 512 bytes, whatever the size of a sector is.
    sectors = range(0, BLOCKS * SECTOR, SECTOR)
    assert b"".join(volume_key.decrypt(at // 512, stored[at : at + SECTOR]) for at in sectors) == plain


def test_a_kernel_that_comes_without_the_module_leaves_the_volume_closed_and_whole(machine, volume, module):
    machine.check_output(f"sudo cryptsetup close {NAME} && sudo rmmod sm4_generic sm4")
    before = digest(machine)
    machine.check_output(f"sudo mv {module} /root/away")
    opened = cryptsetup(machine, f"open {DISK} {NAME}")
    machine.check_output(f"sudo mv /root/away {module}")
    assert opened.rc != 0
    assert digest(machine) == before
    assert cryptsetup(machine, f"open {DISK} {NAME}").rc == 0
    assert machine.check_output(f"sudo mount {MAPPED} /mnt && cat /mnt/words && sudo umount /mnt") == WORDS
