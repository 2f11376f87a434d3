# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Start a lab machine that is a virtual machine: QEMU with the base image's kernel, extra disks and a software TPM."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from ansible_collections.bedplate.llm.plugins.module_utils.lab_build import DISK, INITRAMFS, KERNEL
from ansible_collections.bedplate.llm.plugins.module_utils.lab_host import run
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import Lab, Machine
from ansible_collections.bedplate.llm.plugins.module_utils.lab_seed import initramfs

QEMU = "qemu-system-x86_64"
_PROBE_SECONDS = 6.0
# `max` emulates all that QEMU knows, and boots slower for it (which feature costs it is not known: AVX does not).
# Westmere is what distributions ask for at most (x86-64-v2), and has AES for encrypted disks.
PROCESSOR = {"kvm": "host", "tcg": "Westmere"}

# swtpm ends by itself when QEMU closes the connection; a reboot inside the machine ends neither.
SUPERVISOR = """\
while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 1; shift; done; shift
if [ -d "$1/tpm" ]; then
    swtpm socket --tpm2 --tpmstate "dir=$1/tpm" --ctrl "type=unixio,path=$1/tpm.sock" --terminate --daemon || exit 1
fi
shift
exec "$@"
"""


def kernel_arguments(accelerator: str) -> str:
    """What goes wrong and what systemd starts and waits for go to the console: nothing else tells of a boot that hangs.

    An emulated kernel checks its timers against each other, and QEMU may not get its turn between two looks: it then
    takes another interrupt for its timer, and panics when there is none left; or it takes its processor's clock for up
    to a hundred times slower than it is.  So it has no such check, and another clock.
    """
    # By label: the order in which the disks appear is not the order on QEMU's command line.
    words = ["root=LABEL=lab-root", "rw", "console=ttyS0", "loglevel=5", "mitigations=off"]
    if accelerator == "tcg":
        words += ["no_timer_check", "tsc=unstable"]
    return " ".join(words)


def qemu_argv(lab: Lab, machine: Machine, state: Path, base: Path, accelerator: str) -> list[str]:
    argv = [
        QEMU,
        *("-name", f"{lab.name}-{machine.name}"),
        *("-machine", "q35", "-accel", accelerator, "-cpu", PROCESSOR[accelerator]),
        *("-smp", str(machine.cpus), "-m", str(machine.memory_mib)),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-chardev", f"file,id=console,path={state / 'console.log'},append=on", "-serial", "chardev:console"),
        *("-kernel", str(base / KERNEL), "-initrd", str(state / INITRAMFS), "-append", kernel_arguments(accelerator)),
        *("-netdev", f"tap,id=net,ifname={lab.tap(machine.name)},script=no,downscript=no"),
        *("-device", f"virtio-net-pci,netdev=net,mac={lab.mac(machine.name)}"),
        *("-device", "virtio-rng-pci"),
        *drive("root", state / DISK, "qcow2"),
    ]
    for disk in machine.disks:
        argv += drive(disk.serial, disk_file(state, disk.serial), "raw")
    if machine.tpm:
        argv += ["-chardev", f"socket,id=tpm,path={state / 'tpm.sock'}"]
        argv += ["-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm"]
    return argv


def disk_file(state: Path, serial: str) -> Path:
    return state / f"disk-{serial}.raw"


def drive(serial: str, path: Path, form: str) -> list[str]:
    # unsafe: nobody wants these disks after a power cut of the operator's machine.
    return [
        *("-drive", f"file={path},if=none,id=disk-{serial},format={form},cache=unsafe,discard=unmap"),
        *("-device", f"virtio-blk-pci,drive=disk-{serial},serial={serial}"),
    ]


def create(machine: Machine, state: Path, base: Path, archive: bytes) -> None:
    """Make the disks, the TPM's state and the initramfs that carries the identity."""
    (state / INITRAMFS).write_bytes(initramfs((base / INITRAMFS).read_bytes(), archive))
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base / DISK, state / DISK)
    for disk in machine.disks:
        with disk_file(state, disk.serial).open("wb") as file:
            os.truncate(file.fileno(), disk.bytes)
    if machine.tpm:
        (state / "tpm").mkdir(exist_ok=True)


def make_tap(lab: Lab, machine: Machine) -> None:
    tap = lab.tap(machine.name)
    if not Path(f"/sys/class/net/{tap}").exists():
        run("ip", "tuntap", "add", tap, "mode", "tap")
    run("ip", "link", "set", tap, "master", lab.bridge, "up")


def accelerator(state: Path, base: Path) -> str:
    """`kvm` where a kernel really starts with it, else `tcg`: that /dev/kvm can be opened proves nothing.

    The answer is kept with the lab, since the proof of the negative takes seconds.
    """
    remembered = state / "accelerator"
    if remembered.exists():
        return remembered.read_text()
    found = "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) and _kernel_speaks(base) else "tcg"
    remembered.write_text(found)
    return found


def _kernel_speaks(base: Path) -> bool:
    """Start the image's kernel with KVM and no root file system, and wait for its first words."""
    argv = [
        *(QEMU, "-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults", "-display", "none"),
        *("-no-reboot", "-serial", "stdio", "-kernel", str(base / KERNEL)),
        *("-append", "console=ttyS0 earlyprintk=serial panic=-1"),
    ]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        output = process.stdout
        if output is None:  # never: it was asked for as a pipe
            return False
        os.set_blocking(output.fileno(), False)
        heard, deadline = b"", time.monotonic() + _PROBE_SECONDS
        try:
            while b"Linux version" not in heard:
                heard += output.read() or b""
                if process.poll() is not None or time.monotonic() > deadline:
                    return b"Linux version" in heard
                time.sleep(0.05)
        finally:
            process.kill()
    return True


def start_argv(
    lab: Lab, machine: Machine, state: Path, base: Path, cgroups: list[Path], accelerator_name: str
) -> list[str]:
    return [
        *("sh", "-c", SUPERVISOR, "bedplate-lab", *map(str, cgroups), "--", str(state)),
        *qemu_argv(lab, machine, state, base, accelerator_name),
    ]
