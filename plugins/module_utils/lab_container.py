# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Start a lab machine that is a systemd container: an overlay over the base tree, its own network, its own cgroups."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.bedplate.llm.plugins.module_utils.lab_build import TREE
from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import Lab, Machine
from ansible_collections.bedplate.llm.plugins.module_utils.lab_seed import SeedFile

# The supervisor of one container; it stays as its first process's parent.
#  - It enters the machine's cgroups first: without cgroups of their own all containers would share the caller's, and
#    their systemds would fight over it (services then fail at random with 219/CGROUP).
#  - The overlay is mounted in a mount namespace of its own, so that it goes away with the processes.
#  - With --keep-unit nspawn ends with 133 when the container reboots, and leaves starting it again to the caller.
SUPERVISOR = """\
while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 1; shift; done; shift
exec unshare --mount sh -c '
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root" || exit 1
shift 2
while :; do
    "$@"; code=$?
    [ "$code" = 133 ] || exit "$code"
done' bedplate-lab-container "$@"
"""


def nspawn_argv(lab: Lab, machine: Machine, state: Path) -> list[str]:
    return [
        "systemd-nspawn",
        "--quiet",
        "--boot",
        f"--directory={state / 'root'}",
        # Names the interface on the bridge as well, so it has to differ between labs.
        f"--machine={lab.name}-{machine.name}",
        f"--hostname={machine.name}",
        f"--network-bridge={lab.bridge}",
        # Roles load firewall rules, mount and set limits as on a real host.
        "--capability=all",
        # The operator's machine may have no systemd to register with.
        "--register=no",
        "--keep-unit",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--console=read-only",
    ]


def environment() -> dict[str, str]:
    return {
        **os.environ,
        # /proc/sys/net stays writable inside, and the container gets cgroup version 2 also on a hybrid machine.
        "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
    }


def create(state: Path, files: list[SeedFile]) -> None:
    """Lay out the overlay with the machine's identity in its upper layer."""
    for folder in ("upper", "work", "root"):
        (state / folder).mkdir(exist_ok=True)
    for file in files:
        path = state / "upper" / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.content is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(file.content if isinstance(file.content, bytes) else file.content.encode())
        path.chmod(file.mode)
        os.chown(path, file.owner, file.owner)


def start_argv(lab: Lab, machine: Machine, state: Path, base: Path, cgroups: list[Path]) -> list[str]:
    return [
        *("sh", "-c", SUPERVISOR, "bedplate-lab", *map(str, cgroups), "--", str(base / TREE), str(state)),
        *nspawn_argv(lab, machine, state),
    ]
