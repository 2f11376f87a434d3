# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The operator's machine, as the lab uses it: commands, processes and their cgroups, locks, and the lab's records.

Every resource of a lab has a name that follows from the lab's and the machine's names, and a machine's folder of
records is made before anything else of it.  So whatever interrupted an `up`, a `down` finds all of it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator, Mapping

from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import STATE_ROOT, Lab, LabError

_LOCKS = Path("/run/lock")


def run(*argv: str | Path, check: bool = True, stdin: str | None = None, timeout: float | None = None) -> str:
    """Run a system tool and return its output; a failure is one sentence with the tool's own words."""
    command = [str(word) for word in argv]
    try:
        done = subprocess.run(
            command,
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "LC_ALL": "C", "LANGUAGE": "C"},
        )
    except FileNotFoundError:
        raise LabError(f"The program '{command[0]}' is missing: install it and try again.") from None
    if check and done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-1000:]
        raise LabError(f"`{' '.join(command)}` failed with {done.returncode}: {said}")
    return done.stdout if done.returncode == 0 else ""


def write(path: Path, content: str, mode: int = 0o644) -> None:
    """Write a whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(content)
    part.chmod(mode)
    part.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        raise LabError(f"{path} is damaged: take the lab down and up again.") from None
    return content


@contextlib.contextmanager
def lock(name: str, shared: bool = False, folder: Path = _LOCKS) -> Iterator[None]:
    """Hold a lock of this machine.  The file goes away with its last exclusive holder, so that nothing stays behind."""
    path = folder / f"bedplate-{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        try:
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                break
        except FileNotFoundError:
            pass  # its holder removed it while we waited: this lock guards nothing any more
        os.close(descriptor)
    try:
        yield
    finally:
        if not shared:
            path.unlink()
        os.close(descriptor)


# --- records ---


def record_lab(lab: Lab, outside: bool) -> None:
    STATE_ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
    write(lab.state / "lab.json", json.dumps({**lab.as_dict(), "outside": outside}), 0o600)


def read_session(lab_state: Path) -> dict[str, Any] | None:
    """Who said last to be changing the lab; a damaged note is none, since a `down` must go on regardless."""
    try:
        return read_json(lab_state / "session.json")
    except LabError:
        return None


def machine_names(lab_state: Path) -> list[str]:
    """All machines of a lab that may exist, whether or not their making was completed."""
    return sorted(folder.name for folder in (lab_state / "machines").glob("*"))


def recorded_machines(lab_state: Path) -> dict[str, dict[str, Any]]:
    """The machines of a lab as they were declared; of one whose making was interrupted only the name is known."""
    return {
        name: read_json(lab_state / "machines" / name / "machine.json") or {"name": name}
        for name in machine_names(lab_state)
    }


# --- processes and cgroups ---


def cgroup_roots(mounts: str | None = None) -> list[Path]:
    """Where cgroup hierarchies are mounted: one on a unified machine, several on a hybrid one.

    cpuset of version 1 takes no process before it has processors and memory nodes assigned; nothing here needs it.
    """
    text = Path("/proc/mounts").read_text() if mounts is None else mounts
    roots = []
    for line in text.splitlines():
        _device, where, kind, options = line.split()[:4]
        if kind == "cgroup2" or (kind == "cgroup" and "cpuset" not in options.split(",")):
            roots.append(Path(where))
    return roots


def make_cgroups(cgroup: str) -> list[Path]:
    made = []
    for root in cgroup_roots():
        (root / cgroup).mkdir(parents=True, exist_ok=True)
        made.append(root / cgroup)
    return made


def processes_in(cgroup: str) -> set[int]:
    found: set[int] = set()
    for root in cgroup_roots():
        for folder, _folders, _files in os.walk(root / cgroup):
            with contextlib.suppress(OSError):
                found.update(int(word) for word in (Path(folder) / "cgroup.procs").read_text().split())
    return found


def kill_cgroup(cgroup: str, timeout: float = 20.0) -> bool:
    """Kill every process in a cgroup and remove it; false when there was none to remove."""
    existed = any((root / cgroup).exists() for root in cgroup_roots())
    deadline = time.monotonic() + timeout
    while processes := processes_in(cgroup):
        if time.monotonic() > deadline:
            raise LabError(f"Processes {sorted(processes)} of {cgroup} do not end: look at what they wait for.")
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
    for root in cgroup_roots():
        for folder, _folders, _files in os.walk(root / cgroup, topdown=False):
            _remove_folder(Path(folder), deadline)
    return existed


def _remove_folder(folder: Path, deadline: float) -> None:
    """The kernel lets a cgroup go some milliseconds after the last of its processes."""
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise LabError(f"The cgroup {folder} cannot be removed: look for processes in it.") from None
            time.sleep(0.02)
        else:
            return


def process_start(process: int) -> str | None:
    """When a process began, in the kernel's ticks: together with its number and the boot it names one process."""
    try:
        # The second field, the program's name, may hold blanks and brackets.
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else fields[18]


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def name_process(process: int) -> dict[str, Any]:
    """A record that names a living process and never another one that gets its number later."""
    return {"process": process, "start": process_start(process), "boot": boot_id()}


def is_alive(record: Mapping[str, Any] | None) -> bool:
    return record is not None and record == name_process(record["process"]) and record["start"] is not None


def parents(process: int) -> list[tuple[int, str]]:
    """A process and its ancestors, nearest first, each with its command line."""
    chain = []
    while process > 1:
        try:
            command = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            parent = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            break
        chain.append((process, command.strip()))
        process = parent
    return chain


def descendants(process: int) -> dict[int, str]:
    """All processes below one, with their start."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found: dict[int, str] = {}
    queue = [process]
    while queue:
        for child in children.get(queue.pop(), []):
            start = process_start(child)
            if start is not None and child not in found:
                found[child] = start
                queue.append(child)
    return found


def end_tree(process: int, patience: float = 10.0) -> None:
    """Ask a process to end, kill it after some seconds, and kill all that ran below it; a reused number is left alone.

    What runs below is found before the end: afterwards nothing connects it with the process any more.
    """
    start = process_start(process)
    if start is None:
        return
    below = descendants(process)
    _signal({process: start}, signal.SIGTERM, patience)
    below.update(descendants(process))
    _signal({process: start, **below}, signal.SIGKILL, patience)


def _signal(processes: Mapping[int, str], number: signal.Signals, patience: float) -> None:
    deadline = time.monotonic() + patience
    alive = {process for process, start in processes.items() if process_start(process) == start}
    for process in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
    while alive and time.monotonic() < deadline:
        time.sleep(0.05)
        alive = {process for process in alive if process_start(process) == processes[process]}


def remove_tree(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
