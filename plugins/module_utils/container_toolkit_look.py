# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host has of NVIDIA's container toolkit: how `cdi_spec` and `container_toolkit_info` look."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable, List, Mapping, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.container_toolkit import (
    Gpus,
    Seen,
    Spec,
    is_spec,
    library_versions,
    names_of,
    parse_devices,
    parse_version,
)
from ansible_collections.bedplate.llm.plugins.module_utils.docker_daemon import server_problem
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_container import host_problem, podman_version

CTK = "/usr/bin/nvidia-ctk"
WATCH = "bedplate-cdi.path"
SERVICE = "bedplate-cdi.service"
# Where container engines look for specifications; of two devices with one name, that in the second folder counts.
FOLDERS = ("/etc/cdi", "/run/cdi")
CGROUP_V2 = "/sys/fs/cgroup/cgroup.controllers"

# (exit code, standard output, standard error) of a command.
Run = Callable[[Sequence[str]], Tuple[int, str, str]]


def gpus_of(fact: Mapping[str, Any]) -> Gpus:
    """Out of the fact bedplate_gpus."""
    driver = fact.get("driver") or {}
    version = driver.get("module_version") or driver.get("version") or ""
    return Gpus(str(version), names_of(fact.get("gpus") or []))


def specs(folders: Sequence[str] = FOLDERS) -> Tuple[Spec, ...]:
    """The files that describe NVIDIA's GPUs."""
    found: List[Spec] = []
    for folder in folders:
        for path in sorted(Path(folder).glob("*")):
            if path.suffix not in (".yaml", ".yml", ".json") or not path.is_file():
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
            if is_spec(text):
                found.append(Spec(str(path), library_versions(text)))
    return tuple(found)


def _engine(run: Run, wanted: str) -> Tuple[str, str]:
    """Name and version of the container engine, and what is wrong with it."""
    if wanted == "docker":
        code, out, err = run(["docker", "info", "--format", "{{json .}}"])
        try:
            told = json.loads(out) if not code else {}
        except ValueError:
            told = {}
        version = str(told.get("ServerVersion") or "")
        return f"Docker {version}".strip(), server_problem(version, told.get("CDISpecDirs"), err.strip())
    out = run(["/usr/bin/podman", "--version"])[1] if os.access("/usr/bin/podman", os.X_OK) else ""
    version_numbers = podman_version(out)
    name = f"podman {'.'.join(map(str, version_numbers))}".strip()
    return name, host_problem(version_numbers, os.path.exists(CGROUP_V2))


def look(run: Run, engine: str) -> Seen:
    name, problem = _engine(run, engine)
    if not os.access(CTK, os.X_OK):
        return Seen(name, problem, specs=specs())
    active = run(["systemctl", "is-active", "--quiet", WATCH])[0] == 0
    enabled = run(["systemctl", "is-enabled", "--quiet", WATCH])[0] == 0
    code, devices, err = run([CTK, "cdi", "list"])
    return Seen(
        engine=name,
        engine_problem=problem,
        toolkit=parse_version(run([CTK, "--version"])[1]),
        specs=specs(),
        devices=parse_devices(devices),
        watches=active and enabled,
        error=err.strip()[-200:] if code else "",
    )
