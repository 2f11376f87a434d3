# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Build a base image with mmdebstrap and keep it in the cache under the digest of its recipe."""

from __future__ import annotations

import shutil
from pathlib import Path

from ansible_collections.bedplate.llm.plugins.module_utils.lab_host import lock, remove_tree, run
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import USER, USER_ID, LabError
from ansible_collections.bedplate.llm.plugins.module_utils.lab_recipe import (
    ENABLED_UNITS,
    MASKED_UNITS,
    Recipe,
    files,
    make_recipe,
    parse_index_targets,
)

CACHE = Path("/var/cache/bedplate/lab")
TREE = "tree"
DISK, KERNEL, INITRAMFS = "root.qcow2", "vmlinuz", "initrd"
DISK_SIZE = "20G"

# Nobody reads manuals on a machine that lives for an hour; without them the build is a third shorter.
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*")


def os_release(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name: value.strip().strip("\"'") for name, value in pairs}


def recipe_here(kind: str, extra_packages: list[str]) -> Recipe:
    """The recipe for a base like this machine itself."""
    return make_recipe(
        kind,
        os_release(Path("/etc/os-release").read_text()),
        run("dpkg", "--print-architecture").strip(),
        parse_index_targets(run("apt-get", "indextargets")),
        extra_packages,
    )


def image(recipe: Recipe) -> Path:
    folder: Path = CACHE / recipe.name
    return folder


def build(recipe: Recipe) -> bool:
    """Make the image unless it is there; true when it was made.  Two builds of one image wait for each other."""
    if image(recipe).exists():
        return False
    with lock(recipe.name, folder=CACHE):
        if image(recipe).exists():
            return False
        part = CACHE / f".{recipe.name}.part"
        remove_tree(part)  # an interrupted build's; the lock says that it is nobody's
        part.mkdir()
        tree = part / TREE
        _bootstrap(recipe, part, tree)
        _furnish(recipe, tree)
        if recipe.kind == "vm":
            _make_disk(part, tree)
        part.rename(image(recipe))
    return True


def apt_options() -> list[str]:
    """The proxy that this machine's apt uses is needed for the same mirrors."""
    options = []
    for line in run("apt-config", "dump", "Acquire").splitlines():
        name, _blank, value = line.partition(" ")
        if name.lower() in ("acquire::http::proxy", "acquire::https::proxy") and value != '"";':
            options.append(f"--aptopt={name} {value.rstrip(';')}")
    return options


def _bootstrap(recipe: Recipe, part: Path, tree: Path) -> None:
    sources = part / "sources.list"
    sources.write_text("".join(f"{source.line}\n" for source in recipe.sources))
    # The kernel ends the whole build with its first process, and with it every mount of the build: an interrupted
    # build leaves a folder in the cache and nothing else.
    run(
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--quiet"),
        *(f"--architectures={recipe.architecture}", "--aptopt=APT::Install-Recommends false"),
        *apt_options(),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
        f"--include={','.join(recipe.packages)}",
        *(recipe.codename, tree, sources),
    )


def _furnish(recipe: Recipe, tree: Path) -> None:
    """Add the user, the units' state and the few files of the recipe; take out what must not be shared."""
    run("useradd", "--root", tree, "--create-home", "--uid", str(USER_ID), "--shell", "/bin/bash", USER)
    for host_key in (tree / "etc/ssh").glob("ssh_host_*"):
        host_key.unlink()
    (tree / "etc/resolv.conf").unlink(missing_ok=True)
    for path, (content, mode) in files(recipe.kind).items():
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_text(content)
        target.chmod(mode)
    units = tree / "etc/systemd/system"
    for unit in MASKED_UNITS:
        _link(units / unit, "/dev/null")
    for unit in ENABLED_UNITS:
        _link(units / "multi-user.target.wants" / unit, f"/lib/systemd/system/{unit}")


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _make_disk(part: Path, tree: Path) -> None:
    """The tree as a disk image, and beside it the kernel and initramfs that QEMU starts it with."""
    if not any((tree / "boot").glob("vmlinuz-*")):
        raise LabError("The base image for virtual machines has no kernel: remove it from the cache and try again.")
    # Once more, since the initramfs was made before the script that unpacks a machine's identity was there.
    run(
        *("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"),
        *("chroot", tree, "update-initramfs", "-u", "-k", "all"),
    )
    kernel = sorted((tree / "boot").glob("vmlinuz-*"))[-1]
    version = kernel.name[len("vmlinuz-") :]
    shutil.copy(kernel, part / KERNEL)
    shutil.copy(tree / "boot" / f"initrd.img-{version}", part / INITRAMFS)
    raw = part / "root.raw"
    run("truncate", "--size", DISK_SIZE, raw)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", "lab-root", "-E", "lazy_itable_init=1", "-d", tree, raw)
    run("qemu-img", "convert", "-O", "qcow2", raw, part / DISK)
    raw.unlink()
    remove_tree(tree)
