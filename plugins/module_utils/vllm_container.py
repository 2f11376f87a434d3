# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine in a container: the command that its unit runs, and what of the host it gets to see.

The unit is one of ours and no quadlet: a quadlet is a generator for such a unit, exists from podman 4.4 on (Debian 12
has 4.3), and what it generates runs every command as root, also the one that talks to the engine.  So one unit serves
every podman, and the engine's arguments and environment are those of the virtual environment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import List, Mapping, Sequence, Tuple

PODMAN = "/usr/bin/podman"
# The oldest podman that this was run with; 4.1 learned to read CDI specifications.
PODMAN_FLOOR = (4, 3)
GPUS = "nvidia.com/gpu=all"


@dataclass(frozen=True)
class Container:
    """image: id of the image; user_id and group_id are the host's; shm_size as podman writes it, such as 16g."""

    name: str
    image: str
    user_id: int
    group_id: int
    shm_size: str
    stop_timeout: int
    read_only: Tuple[str, ...]
    writable: Tuple[str, ...]
    device: str
    private_network: bool


def run_argv(container: Container, engine: Sequence[str], environment: Mapping[str, str]) -> List[str]:
    """`podman run` for the engine's command line, whose first word is its program in the image."""
    argv = [
        *(PODMAN, "run", f"--name={container.name}", "--replace", "--rm", "--detach"),
        # What is not there is not fetched from anywhere.
        "--pull=never",
        # The unit's own group holds the container's, so that systemd stops, counts and limits all of it; its main
        # process is conmon, which ends with the engine, and its journal is the engine's output.
        *("--cgroups=split", "--sdnotify=conmon", "--log-driver=passthrough"),
        "--network=none" if container.private_network else "--network=host",
        *("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"),
        # Where SELinux is on: it would keep the container from the GPUs, the model and the socket.
        "--security-opt=label=disable",
        f"--user={container.user_id}:{container.group_id}",
        # The socket is made 0600; vllm-endpoint opens it to the group when the engine works.
        "--umask=0077",
        # A limit and no reservation: the processes of one engine pass tensors through it.
        f"--shm-size={container.shm_size}",
        # Its memory holds prompts and answers.
        *("--ulimit=nofile=65535:65535", "--ulimit=core=0:0"),
        f"--stop-timeout={container.stop_timeout}",
    ]
    if container.device == "cuda":
        argv.append(f"--device={GPUS}")
    argv += [f"--mount=type=bind,src={path},dst={path},ro=true" for path in container.read_only]
    argv += [f"--mount=type=bind,src={path},dst={path}" for path in container.writable]
    argv += [f"--env={name}={value}" for name, value in environment.items()]
    # Taken from the unit's environment: the unit's text cannot hold its own digest.
    argv.append("--env=BEDPLATE_RELEASE")
    return [*argv, f"--entrypoint={engine[0]}", f"sha256:{container.image}", *engine[1:]]


def podman_version(text: str) -> Tuple[int, ...]:
    """Out of `podman --version`; empty when it says none."""
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in match.groups() if part) if match else ()


def host_problem(version: Tuple[int, ...], cgroup_v2: bool) -> str:
    """Why this host cannot run the engine in a container, or nothing."""
    if not version:
        return "This host has no podman; run the role container_toolkit first, or set vllm_runtime to venv."
    if version < PODMAN_FLOOR:
        return (
            f"This host has podman {'.'.join(map(str, version))}, and the engine's container needs"
            f" {'.'.join(map(str, PODMAN_FLOOR))} or newer; use a newer release of its distribution, or set"
            " vllm_runtime to venv."
        )
    if not cgroup_v2:
        return (
            "This host uses version 1 of control groups, and a container below a unit needs version 2; boot it with"
            " systemd.unified_cgroup_hierarchy=1, or set vllm_runtime to venv."
        )
    return ""
