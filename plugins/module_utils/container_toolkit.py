# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""NVIDIA's container toolkit: which versions may be used and why, and what makes the GPUs of a host fit for containers.

Observations in, checks out; the module `container_toolkit_info` observes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check


class Fix(NamedTuple):
    """A security fault, and the first release without it."""

    version: str
    advisory: str
    what: str


# What the floor stands on.  A newer fault goes to the end; the floor is the newest of these versions.
FIXES = (
    Fix("1.16.2", "CVE-2024-0132", "an image could reach the host's file system through a race"),
    Fix("1.17.3", "CVE-2024-0134 to CVE-2024-0137", "an image could write files of the host and reach its network"),
    Fix("1.17.4", "CVE-2025-23359", "the fix of CVE-2024-0132 was not complete"),
    Fix("1.17.8", "CVE-2025-23266", "an image could run code as root of the host through a hook (NVIDIAScape)"),
    Fix("1.19.1", "CVE-2026-24260", "a race; no release is named as its fix, this is the first one after it"),
)
FLOOR = FIXES[-1].version
PACKAGE = "nvidia-container-toolkit-base"
KIND = "nvidia.com/gpu"
REFRESH = "run the role container_toolkit again, or `systemctl start bedplate-cdi.service` on the host."


def version_key(version: str) -> Tuple[int, ...]:
    """Sort key of a release such as 1.19.1, 1.19.1-1 or 1.19.1~rc.2; ValueError when it is none."""
    match = re.match(r"^(\d+)\.(\d+)\.(\d+)(~?[-.]?rc[.\d]*)?(?:-\d+)?$", version)
    if not match:
        raise ValueError(f"{version!r} is not a version of the toolkit such as 1.19.1")
    return int(match.group(1)), int(match.group(2)), int(match.group(3)), 0 if match.group(4) else 1


def version_problem(version: str, what: str) -> str:
    """One sentence when this version may not be used, with every reason; empty when it may."""
    try:
        found = version_key(version)
    except ValueError as error:
        return f"{what} is wrong: {error}; give one, {FLOOR} or newer."
    open_faults = [fix for fix in FIXES if found < version_key(fix.version)]
    if not open_faults:
        return ""
    reasons = "; ".join(f"{fix.advisory}: {fix.what}" for fix in open_faults)
    return f"{what} is {version}, and {FLOOR} or newer is required ({reasons}); use a newer release."


@dataclass(frozen=True)
class Gpus:
    """What the driver has: one name for each thing that a container can get, a GPU or a part of one."""

    driver: str = ""
    names: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Spec:
    """One file that describes devices, and the versions of the driver's libraries that it names."""

    path: str
    libraries: Tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """What was found on the host; empty where there is nothing, with the reason in `error` where that is known."""

    engine: str = ""
    engine_problem: str = ""
    toolkit: str = ""
    specs: Tuple[Spec, ...] = ()
    devices: Tuple[str, ...] = ()
    watches: bool = False
    error: str = ""


def parse_version(text: str) -> str:
    """Out of `nvidia-ctk --version`; empty when it says none."""
    match = re.search(r"version (\d+\.\d+\.\d+\S*)", text)
    return match.group(1) if match else ""


def parse_devices(text: str) -> Tuple[str, ...]:
    """Names out of `nvidia-ctk cdi list`, without the kind; its other lines are a log."""
    names = (line.strip() for line in text.splitlines())
    return tuple(name[len(KIND) + 1 :] for name in names if name.startswith(KIND + "="))


def is_spec(text: str) -> bool:
    """Whether a file, YAML or JSON, describes NVIDIA's GPUs."""
    return re.search(r"""["']?kind["']?\s*:\s*["']?nvidia\.com/gpu["']?\s*(?:,|$)""", text, re.MULTILINE) is not None


def library_versions(text: str) -> Tuple[str, ...]:
    """Versions of the driver that a specification was made for, by the libraries that it brings into a container."""
    return tuple(sorted(set(re.findall(r"lib(?:cuda|nvidia-ml)\.so\.(\d+\.\d+(?:\.\d+)?)", text))))


def is_current(seen: Seen, gpus: Gpus) -> bool:
    """Whether the specification is of this driver and these GPUs; otherwise it is made anew."""
    return bool(seen.specs) and all(check.ok for check in (_driver(seen, gpus), _devices(seen, gpus)))


def _driver(seen: Seen, gpus: Gpus) -> Check:
    found = sorted({version for spec in seen.specs for version in spec.libraries})
    ok = bool(gpus.driver) and found == [gpus.driver]
    return Check(
        "container_toolkit.cdi-driver",
        ok,
        f"the GPUs are described with libraries of driver {', '.join(found) or 'none'}, loaded is"
        f" {gpus.driver or 'none'}.",
        "" if ok else REFRESH if gpus.driver else "run the role nvidia_driver first.",
    )


def _devices(seen: Seen, gpus: Gpus) -> Check:
    by_uuid = [name for name in seen.devices if re.match(r"(GPU|MIG)-", name)]
    if by_uuid:
        missing = sorted(set(gpus.names) - set(by_uuid))
        gone = sorted(set(by_uuid) - set(gpus.names))
    else:
        # A specification that was made with names by number only.
        numbers = [name for name in seen.devices if re.match(r"\d+(:\d+)?$", name)]
        missing = [f"{len(gpus.names) - len(numbers)} more"] if len(numbers) < len(gpus.names) else []
        gone = [f"{len(numbers) - len(gpus.names)} too many"] if len(numbers) > len(gpus.names) else []
    ok = bool(gpus.names) and not missing and not gone
    said = [f"missing {', '.join(missing)}"] if missing else []
    said += [f"not there any more {', '.join(gone)}"] if gone else []
    reason = f"containers know {len(gpus.names)} of {len(gpus.names)} GPUs and parts of GPUs."
    if not gpus.names:
        reason = "the driver has no GPU."
    elif said:
        reason = f"containers know other GPUs than the driver: {'; '.join(said)}."
    return Check("container_toolkit.cdi-gpus", ok, reason, "" if ok else REFRESH)


def _one_spec(seen: Seen) -> Check:
    paths = [spec.path for spec in seen.specs]
    ok = len(paths) == 1
    remedy = "" if ok else REFRESH
    if len(paths) > 1:
        remedy = "remove those that nobody refreshes, such as one that was once written to /etc/cdi by hand."
    return Check(
        "container_toolkit.cdi-one-spec",
        ok,
        f"the GPUs are described in {', '.join(paths) or 'no file'}{f' ({seen.error})' if seen.error else ''}.",
        remedy,
    )


def _toolkit(seen: Seen) -> Check:
    if not seen.toolkit:
        reason = "the host has no nvidia-ctk."
        return Check("container_toolkit.version-floor", False, reason, "run the role container_toolkit.")
    problem = version_problem(seen.toolkit, "NVIDIA's container toolkit")
    reason = problem or f"NVIDIA's container toolkit is {seen.toolkit}, required is {FLOOR} or newer."
    return Check(
        "container_toolkit.version-floor", not problem, reason, "set container_toolkit_version." if problem else ""
    )


def _watch(seen: Seen) -> Check:
    return Check(
        "container_toolkit.cdi-refresh",
        seen.watches,
        "the GPUs are described anew when MIG changes."
        if seen.watches
        else "bedplate-cdi.path is not active and enabled, so a change of MIG would not reach containers.",
        "" if seen.watches else "run the role container_toolkit again.",
    )


def evaluate(seen: Seen, gpus: Gpus) -> List[Check]:
    engine = Check(
        "container_toolkit.engine",
        not seen.engine_problem,
        seen.engine_problem or f"the host has {seen.engine}.",
        "run the role container_toolkit." if seen.engine_problem else "",
    )
    return [engine, _toolkit(seen), _one_spec(seen), _driver(seen, gpus), _devices(seen, gpus), _watch(seen)]


def decide(seen: Seen, gpus: Gpus, needs_reload: bool, enabled: bool, active: bool) -> List[str]:
    """The steps, in order, after which containers can be given the GPUs; an empty list when they can already."""
    steps = []
    # Not without need, although it takes no GPU from our own engine: other containers of the host may be less lucky.
    if needs_reload:
        steps.append("daemon-reload")
    if not enabled:
        steps.append("enable")
    if not active:
        steps.append("start")
    if gpus.names and not is_current(seen, gpus):
        steps.append("generate")
    return steps


def names_of(gpus: Sequence[Mapping[str, Any]]) -> Tuple[str, ...]:
    """What a container can be given, out of the fact bedplate_gpus: whole GPUs, or the parts of one that is split."""
    names: List[Optional[str]] = []
    for gpu in gpus:
        mig = gpu.get("mig") or {}
        if mig.get("enabled"):
            names += [part.get("uuid") for part in mig.get("instances") or []]
        else:
            names.append(gpu.get("uuid"))
    return tuple(name for name in names if name)
