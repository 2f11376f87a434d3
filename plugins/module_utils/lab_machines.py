# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring lab machines into being and out of it again, whichever kind they are."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Mapping, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import lab_boot, lab_container, lab_gpu, lab_vm
from ansible_collections.bedplate.llm.plugins.module_utils.lab_host import (
    end_tree,
    is_alive,
    kill_cgroup,
    lock,
    machine_names,
    make_cgroups,
    name_process,
    read_json,
    remove_tree,
    run,
    write,
)
from ansible_collections.bedplate.llm.plugins.module_utils.lab_keys import CLIENT_KEY, KNOWN_HOSTS, host_key
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import (
    STATE_ROOT,
    USER,
    Lab,
    LabError,
    Machine,
    decide,
)
from ansible_collections.bedplate.llm.plugins.module_utils.lab_network import remove_network, restore_forwarding
from ansible_collections.bedplate.llm.plugins.module_utils.lab_seed import (
    Identity,
    resolv_conf,
    seed_archive,
    seed_files,
)

# A new machine is handed over when its boot is complete; one that is started again when it admits the operator, since
# what runs on it by then may take minutes to start.
_BOOTED = ("systemctl", "is-system-running", "--wait")
_ADMITS = ("true",)

# How long one command may keep us from looking at the console, s.
_ASKING = 30.0
# How much of a console is looked at, bytes.
_CONSOLE_TAIL = 16384


@dataclass(frozen=True)
class Access:
    """How the operator reaches the machines."""

    secrets: Path
    peers: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """What was done, as plan() says it, and what the operator should know of it."""

    action: str
    warnings: Tuple[str, ...] = ()


def plan(lab: Lab, machine: Machine) -> str:
    """create, start or keep; raises LabError when the machine exists with another declaration."""
    recorded = read_json(lab.machine_state(machine.name) / "machine.json")
    action: str = decide(recorded, machine, runs(lab, machine.name))
    return action


def runs(lab: Lab, name: str) -> bool:
    """Whether a machine's supervisor lives.  What it left behind may still answer, but would not survive a reboot."""
    alive: bool = is_alive(read_json(lab.machine_state(name) / "process.json"))
    return alive


def ensure_running(
    lab: Lab, machine: Machine, base: Path, access: Access, gpus: Optional[lab_gpu.Gpus] = None
) -> Outcome:
    """Create or start what is not running and wait until it lets the operator in."""
    with lock(lab.name, shared=True):
        _require_network(lab)
        action = plan(lab, machine)
        if action == "create":
            _create(lab, machine, base, access, gpus)
        if action != "keep":
            _start(lab, machine, base)
    if action == "keep" and answers(machine.address):
        return Outcome(action)
    emulated = action == "create" and machine.kind == "vm" and lab_vm.accelerator(lab.state, base) == "tcg"
    boots: Tuple[lab_boot.Boot, ...] = ()
    for seconds in lab_boot.patience(action, machine.kind, emulated):
        if boots:  # patience() has a second boot for machines that this run has created, and for no other
            with lock(lab.name, shared=True):
                _require_network(lab)
                boots = (_make_once_more(lab, machine, base, access, gpus, boots[0]),)
        failed = _wait(lab, machine, access, _BOOTED if action == "create" else _ADMITS, seconds)
        if failed is None:
            return Outcome(action, tuple(map(lab_boot.once_more, boots)))
        boots += (failed,)
    raise LabError(lab_boot.given_up(boots))


def _make_once_more(
    lab: Lab, machine: Machine, base: Path, access: Access, gpus: Optional[lab_gpu.Gpus], failed: lab_boot.Boot
) -> lab_boot.Boot:
    """What the console said of the boot that failed outlives the machine that said it."""
    console = Path(failed.console_file)
    said = console.read_bytes()
    _create(lab, machine, base, access, gpus)
    _start(lab, machine, base)
    kept = console.with_name("console.failed.log")
    kept.write_bytes(said)
    return replace(failed, console_file=str(kept))


def _require_network(lab: Lab) -> None:
    if read_json(lab.state / "lab.json") is None:
        raise LabError(f"The lab {lab.name} has no network: run lab_up.yml, which makes it first.")


def remove(lab: Lab, name: str) -> bool:
    """Remove one machine with all it holds; true when there was one."""
    with lock(lab.name, shared=True):
        return remove_locked(lab, name)


def remove_locked(lab: Lab, name: str) -> bool:
    existed: bool = kill_cgroup(lab.cgroup(name))
    _remove_interfaces(lab, name)
    # The record was there before anything else of the machine, and goes after everything else.
    state = lab.machine_state(name)
    existed = existed or state.exists()
    if state.exists():
        remove_tree(state)
    return existed


def _remove_interfaces(lab: Lab, name: str) -> None:
    """At once: the kernel takes its time with the interface of a container that was killed, and its name is needed."""
    for interface in (lab.tap(name), lab.container_interface(name)):
        run("ip", "link", "delete", interface, check=False)


def remove_all(lab: Lab) -> list[str]:
    """Remove every machine of a lab, also one that no inventory names any more.  The caller holds the locks."""
    names: list[str] = machine_names(lab.state)
    for name in names:
        remove_locked(lab, name)
    kill_cgroup(lab.cgroup("").rstrip("/"))
    return names


def _create(lab: Lab, machine: Machine, base: Path, access: Access, gpus: Optional[lab_gpu.Gpus]) -> None:
    state = lab.machine_state(machine.name)
    # What an interrupted creation left is not a machine yet: `machine.json` is written when all of it is there.
    kill_cgroup(lab.cgroup(machine.name))
    remove_tree(state)
    state.mkdir(mode=0o700, parents=True)
    files = seed_files(lab, _identity(machine, access)) + (lab_gpu.files(gpus) if gpus else [])
    if machine.kind == "vm":
        lab_vm.create(machine, state, base, seed_archive(files))
    else:
        lab_container.create(state, files)
    write(state / "machine.json", json.dumps(machine.as_dict(), indent=1), 0o600)


def _identity(machine: Machine, access: Access) -> Identity:
    key = host_key(access.secrets, machine.name)
    return Identity(
        machine=machine,
        machine_id=uuid.uuid4().hex,
        host_key=key.read_text(),
        host_key_public=key.with_name(key.name + ".pub").read_text(),
        authorized_key=(access.secrets / f"{CLIENT_KEY}.pub").read_text(),
        resolv_conf=_operators_resolvers(),
        peers=access.peers,
    )


def _operators_resolvers() -> str:
    # systemd-resolved's stub listens on loopback; the resolvers behind it are in its own file.
    for path in (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf")):
        if path.exists():
            text: str = resolv_conf(path.read_text())
            return text
    return ""


def _start(lab: Lab, machine: Machine, base: Path) -> None:
    state = lab.machine_state(machine.name)
    kill_cgroup(lab.cgroup(machine.name))  # what a supervisor that died left running
    _remove_interfaces(lab, machine.name)
    cgroups = make_cgroups(lab.cgroup(machine.name))
    if machine.kind == "vm":
        lab_vm.make_tap(lab, machine)
        accelerator = lab_vm.accelerator(lab.state, base)
        argv = lab_vm.start_argv(lab, machine, state, base, cgroups, accelerator)
    else:
        argv = lab_container.start_argv(lab, machine, state, base, cgroups)
    with (state / "console.log").open("a") as console:
        supervisor = subprocess.Popen(  # outlives this module on purpose: its cgroup is the handle to end it by
            argv,
            env=lab_container.environment(),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
    write(state / "process.json", json.dumps(name_process(supervisor.pid)), 0o600)


def answers(address: str, timeout: float = 2.0) -> bool:
    """Whether an ssh server greets: an open port alone may be somebody in between."""
    try:
        with socket.create_connection((address, 22), timeout=timeout) as connection:
            connection.settimeout(timeout)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def ssh_argv(machine: Machine, access: Access) -> list[str]:
    return [
        *("ssh", "-F", "/dev/null", "-i", str(access.secrets / CLIENT_KEY), "-o", "IdentitiesOnly=yes"),
        *("-o", f"UserKnownHostsFile={access.secrets / KNOWN_HOSTS}", "-o", "GlobalKnownHostsFile=/dev/null"),
        *("-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"),
        f"{USER}@{machine.address}",
    ]


def _wait(
    lab: Lab, machine: Machine, access: Access, command: tuple[str, ...], seconds: float
) -> Optional[lab_boot.Boot]:
    """Wait until the operator can log in and a command has run there; returns the boot that did not come so far.

    systemd refuses users early in a boot.
    """
    console = lab.machine_state(machine.name) / "console.log"
    deadline = time.monotonic() + seconds
    said = "no ssh server answers"
    while time.monotonic() < deadline and not lab_boot.panicked(_tail(console)):
        if not runs(lab, machine.name):
            ends = " | ".join(lab_boot.last_lines(_tail(console))) or "nothing is on its console"
            raise LabError(f"{machine.name} has ended while it booted: {ends}; all of it: {console}")
        if answers(machine.address):
            said = _try(machine, access, command, min(deadline - time.monotonic(), _ASKING))
            if not said:
                return None
        time.sleep(0.05 if machine.kind == "container" else 0.5)
    jobs = _ask(machine, access, ("systemctl", "list-jobs", "--no-legend", "--no-pager"))
    return lab_boot.Boot(
        name=machine.name,
        seconds=seconds + time.monotonic() - deadline,
        access=said,
        console=_tail(console),
        console_file=str(console),
        silence=max(time.time() - console.stat().st_mtime, 0.0),
        jobs=lab_boot.jobs(jobs),
    )


def _try(machine: Machine, access: Access, command: tuple[str, ...], timeout: float) -> str:
    """Why the operator could not run a command on a machine, or nothing."""
    argv = [*ssh_argv(machine, access), *command]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=max(timeout, 1.0)
        )
    except subprocess.TimeoutExpired:
        return "an ssh server answers, and its boot does not come to an end"
    # 255 is ssh's own failure; any other answer is the machine's, and a degraded system is a system, too.
    return " ".join(done.stderr.split()) or "ssh failed" if done.returncode == 255 else ""


def _ask(machine: Machine, access: Access, command: tuple[str, ...]) -> str:
    """What a machine answers that may answer nothing."""
    if not answers(machine.address):
        return ""
    argv = [*ssh_argv(machine, access), *command]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_ASKING
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout if done.returncode == 0 else ""


def _tail(console: Path) -> str:
    with console.open("rb") as file:
        file.seek(max(console.stat().st_size - _CONSOLE_TAIL, 0))
        return file.read().decode(errors="replace")


def take_down(lab: Lab, session: int | None) -> bool:
    """End the playbook that is raising the lab, then remove all of it; true when there was anything."""
    if session is not None:
        end_tree(session)
    with lock("host"), lock(lab.name):
        existed: bool = lab.state.exists()
        remove_all(lab)
        existed = remove_network(lab) or existed
        remove_tree(lab.state)
        restore_forwarding()
        with contextlib.suppress(OSError):  # another lab's records are in it, or it was never made
            STATE_ROOT.rmdir()
    return existed
