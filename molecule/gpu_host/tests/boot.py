"""One boot of a copy of a lab container's root, with the kernel, the initramfs and the modules that are in it.

The container never notices.  The copy has a virtual machine for itself, without a network: it tells what it sees on a
second serial port, in the initramfs and again when all has started, and switches itself off.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ansible_collections.bedplate.llm.plugins.module_utils import lab_boot, lab_vm
from ansible_collections.bedplate.llm.plugins.module_utils.lab_build import INITRAMFS, KERNEL
from ansible_collections.bedplate.llm.plugins.module_utils.lab_host import run
from ansible_collections.bedplate.llm.plugins.module_utils.lab_seed import initramfs

# An emulated boot takes a minute with all that is asked; of one that hangs the end of the console is told.
PATIENCE = 300.0
CONSOLE, REPORT, IMAGE = "console.log", "report", "root.raw"
END = "end"

# The kernel's first program, before any of the initramfs: there is no device yet but the console.
FIRST = """\
#!/bin/sh
export PATH=/sbin:/bin
mknod /port c 4 65
{{
{look}}} > /port 2>&1
exec /init
"""

# The script waits itself: a command before ExecStart would be a part of the boot whose end it waits for.
LAST = "systemctl is-system-running --wait > /dev/null\n{look}"
UNIT = """\
[Unit]
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
ExecStart=/bin/sh /look
Environment=SYSTEMD_COLORS=0
StandardOutput=tty
TTYPath=/dev/ttyS1
"""


def boot(
    state: Path, kernel: str, first: Mapping[str, str], last: Mapping[str, str], files: Mapping[str, str]
) -> dict[str, str]:
    """What each command said, by the names that the commands have.

    state: the folder of the container.
    first: commands for the initramfs, which has sh, cat, kmod and little else.
    last: commands for the end of the boot.
    files: what the copy has beside all that the container has.
    """
    # Below the container's own folder: if this run is killed, the image goes away with the lab.
    with tempfile.TemporaryDirectory(dir=state, prefix="boot-") as name:
        folder = Path(name)
        # The container's root is mounted in the mount namespace of its supervisor, without /proc, /sys and /dev.
        supervisor = json.loads((state / "process.json").read_text())["process"]
        tree = Path(f"/proc/{supervisor}/root{state}/root")
        shutil.copy(tree / "boot" / f"vmlinuz-{kernel}", folder / KERNEL)
        own = (tree / "boot" / f"initrd.img-{kernel}").read_bytes()
        (folder / INITRAMFS).write_bytes(initramfs(own, _script(FIRST, first).encode(), "look", 0o755))
        looking = {"/look": _script(LAST, {**last, END: ""}), "/etc/systemd/system/look.service": UNIT}
        _make_image(folder / IMAGE, tree, {**files, **looking})
        return _boot(folder)


def _script(frame: str, commands: Mapping[str, str]) -> str:
    parts = (f"echo {shlex.quote(f'== {name}')}\n{command}\n" for name, command in commands.items())
    return frame.format(look="".join(parts))


def _make_image(image: Path, tree: Path, files: Mapping[str, str]) -> None:
    """A disk with all that is in the tree, and the files."""
    run("truncate", "--size", "8G", image)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "lab-root", "-E", "lazy_itable_init=1", "-d", tree, image)
    commands = ""
    for number, (name, content) in enumerate(files.items()):
        source, target = image.with_name(f"file{number}"), PurePosixPath(name)
        source.write_text(content)
        commands += f"cd {target.parent}\nwrite {source} {target.name}\n"
    run("debugfs", "-w", "-f", "-", image, stdin=commands)


def _boot(folder: Path) -> dict[str, str]:
    accelerator = lab_vm.accelerator(folder, folder)
    arguments = f"{lab_vm.kernel_arguments(accelerator)} panic=-1 rdinit=/look systemd.wants=look.service"
    argv = [
        *(lab_vm.QEMU, "-machine", "q35", "-accel", accelerator, "-cpu", lab_vm.PROCESSOR[accelerator]),
        *("-smp", "1", "-m", "1024", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-chardev", f"file,id=console,path={folder / CONSOLE}", "-serial", "chardev:console"),
        *("-chardev", f"file,id=report,path={folder / REPORT}", "-serial", "chardev:report"),
        *("-kernel", str(folder / KERNEL), "-initrd", str(folder / INITRAMFS), "-append", arguments),
        *("-device", "pci-testdev", "-device", "virtio-rng-pci"),
        *lab_vm.drive("root", folder / IMAGE, "raw"),
    ]
    try:
        ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE).stderr
    except subprocess.TimeoutExpired:  # QEMU has been killed by then
        ended = f"it was not through after {PATIENCE:.0f} s"
    report = _read(folder / REPORT)
    parts = [part.partition("\n") for part in f"\n{report}".split("\n== ")[1:]]
    console = "\n".join(lab_boot.lines(_read(folder / CONSOLE))[-60:])
    assert END in [name for name, _, _ in parts], f"{ended}\nit said:\n{report}\nits console ends with:\n{console}"
    return {name: said.strip() for name, _, said in parts}


def _read(path: Path) -> str:
    return path.read_text(errors="replace").replace("\r", "") if path.exists() else ""
