# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the engine's container has to fulfil: the kernel's own words about its process in, checks out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check

# Made by the container engine: nothing of the host's.
_OWN_TYPES = ("overlay", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup2", "devtmpfs")
# Files that podman makes for a container.
_OWN_FILES = ("/etc/passwd", "/etc/group", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv")
# What NVIDIA's specification brings in: its libraries and programs, all read-only.
_DRIVER = re.compile(
    r"^/(usr|lib|lib64|run/nvidia-|etc/(vulkan|OpenCL|nvidia|egl|glvnd)/|proc/driver/|tmp/nvidia-|dev/)"
)
SHARED_MEMORY = "/".join(("", "dev", "shm"))
_GPU = re.compile(r"^nvidia\d+$")


@dataclass(frozen=True)
class Mount:
    path: str
    writable: bool
    kind: str
    options: str


@dataclass(frozen=True)
class Seen:
    """status: of the engine's process, by name; devices and host_devices: the names in /dev there and on the host."""

    status: Mapping[str, str]
    mounts: Tuple[Mount, ...] = ()
    devices: Tuple[str, ...] = ()
    host_devices: Tuple[str, ...] = ()
    image: str = ""
    error: str = ""


@dataclass(frozen=True)
class Wanted:
    image: str
    user_id: int
    read_only: Tuple[str, ...]
    writable: Tuple[str, ...]
    shm_bytes: int
    device: str


def parse_status(text: str) -> Dict[str, str]:
    """Names and values out of /proc/<pid>/status."""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name: value.strip() for name, value in pairs}


def parse_mounts(text: str) -> Tuple[Mount, ...]:
    """/proc/<pid>/mountinfo; proc(5) says what stands in which column."""
    mounts = []
    for line in text.splitlines():
        own, _dash, rest = line.partition(" - ")
        columns, last = own.split(), rest.split()
        if len(columns) > 5 and len(last) > 2:
            path = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal.group(1), 8)), columns[4])
            mounts.append(Mount(path, "rw" in columns[5].split(","), last[0], last[2]))
    return tuple(mounts)


def look(pid: int, image: str, proc: Path = Path("/proc"), devices: Path = Path("/dev")) -> Seen:
    """image: what podman says that the container was made from."""
    if not pid:
        return Seen({}, error="it does not run")
    own = proc / str(pid)
    try:
        return Seen(
            status=parse_status((own / "status").read_text(encoding="utf-8")),
            mounts=parse_mounts((own / "mountinfo").read_text(encoding="utf-8")),
            devices=tuple(path.name for path in (own / "root/dev").iterdir()),
            host_devices=tuple(path.name for path in devices.iterdir()),
            image=image,
        )
    except OSError as error:
        return Seen({}, error=str(error))


def shm_bytes(mounts: Tuple[Mount, ...]) -> int:
    """Size of the shared memory; 0 when it has none."""
    for mount in mounts:
        size = re.search(r"\bsize=(\d+)k", mount.options) if mount.path == SHARED_MEMORY else None
        if size:
            return int(size.group(1)) * 1024
    return 0


def _privileges(seen: Seen, wanted: Wanted) -> Check:
    status = seen.status
    faults = []
    if status.get("Uid", "").split() != [str(wanted.user_id)] * 4:
        faults.append(f"runs as user {status.get('Uid', '?').split() or '?'}, wanted is {wanted.user_id}")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if int(status.get(name, "1"), 16):
            faults.append(f"has capabilities ({name} {status.get(name, 'unknown')})")
    if status.get("NoNewPrivs") != "1":
        faults.append("may gain privileges")
    if status.get("Seccomp") != "2":
        faults.append("has no filter of system calls")
    return Check(
        "vllm.container-privileges",
        not faults,
        f"the engine {', '.join(faults)}." if faults else "the engine has its own user, no capabilities, and a filter.",
        "look for what changed `systemctl cat bedplate-vllm`, and roll out again." if faults else "",
    )


def _sight(seen: Seen, wanted: Wanted) -> Check:
    """Of the host it sees its model, and writes its cache and its socket's folder only."""
    root = next((mount for mount in seen.mounts if mount.path == "/"), None)
    faults = [] if root and not root.writable else ["its root file system is writable"]
    for path in wanted.read_only:
        if not any(mount.path == path and not mount.writable for mount in seen.mounts):
            faults.append(f"{path} is not there read-only")
    known = {"/", *wanted.read_only, *wanted.writable, *_OWN_FILES}
    foreign = [
        mount.path
        for mount in seen.mounts
        if mount.path not in known
        and mount.kind not in _OWN_TYPES
        and (mount.writable or not _DRIVER.match(mount.path))
    ]
    if foreign:
        faults.append(f"it sees more of the host: {', '.join(foreign[:5])}")
    return Check(
        "vllm.container-mounts",
        not faults,
        f"of the engine's container: {'; '.join(faults)}."
        if faults
        else "the engine reads its model, and writes its cache and its socket's folder only.",
        "look for what changed `systemctl cat bedplate-vllm`, and roll out again." if faults else "",
    )


def _image(seen: Seen, wanted: Wanted) -> Check:
    ok = seen.image == wanted.image
    return Check(
        "vllm.image",
        ok,
        f"the engine runs from image {seen.image[:12] or 'unknown'}, the bundle's is {wanted.image[:12]}.",
        "" if ok else "run the rollout again.",
    )


def _gpus(seen: Seen) -> Check:
    inside, outside = (
        sorted(name for name in names if _GPU.match(name)) for names in (seen.devices, seen.host_devices)
    )
    ok = bool(inside) and inside == outside
    return Check(
        "vllm.container-gpus",
        ok,
        f"the engine's container has {', '.join(inside) or 'no GPU'}, the host {', '.join(outside) or 'none'}.",
        "" if ok else "restart the engine: its GPUs are looked up anew then, see the checks of container_toolkit.",
    )


def _shm(seen: Seen, wanted: Wanted) -> Check:
    found = shm_bytes(seen.mounts)
    ok = found == wanted.shm_bytes
    return Check(
        "vllm.container-shm",
        ok,
        f"{SHARED_MEMORY} of the engine's container may grow to {found} bytes, vllm_shm_size is {wanted.shm_bytes}.",
        "" if ok else "run the rollout again.",
    )


def evaluate(seen: Seen, wanted: Wanted) -> List[Check]:
    if seen.error:
        reason = f"the engine's container cannot be looked at: {seen.error}."
        return [Check("vllm.container-privileges", False, reason, "read `journalctl -u bedplate-vllm` on the host.")]
    checks = [_image(seen, wanted), _privileges(seen, wanted), _sight(seen, wanted), _shm(seen, wanted)]
    return [*checks, _gpus(seen)] if wanted.device == "cuda" else checks
