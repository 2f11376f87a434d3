# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the engine of a host has to fulfil: observations in, checks out; the `vllm_info` module observes."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_policy import (
    FLOORS,
    refused_variable,
    version_key,
    version_problem,
)

LOGS = "read `journalctl -u bedplate-vllm` on the host."
ROLLOUT = "run the rollout again."


@dataclass(frozen=True)
class Listener:
    address: str
    port: int


@dataclass(frozen=True)
class Observed:
    """What was seen on the host; None and "" where it could not be seen, with the reason in `errors` by topic."""

    active_state: str = ""
    unit_file_state: str = ""
    needs_reload: bool = False
    main_pid: int = 0
    running_release: str = ""
    arguments: Tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    socket_mode: Optional[int] = None
    socket_owner: str = ""
    directory_mode: Optional[int] = None
    interfaces: Tuple[str, ...] = ()
    listeners: Tuple[Listener, ...] = ()
    models: Tuple[str, ...] = ()
    generated_tokens: int = 0
    version: str = ""
    exposure: Optional[float] = None
    endpoint_published: bool = False
    installed_flags: Optional[Mapping[str, object]] = None
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Expected:
    release: str
    arguments: Tuple[str, ...]
    environment: Mapping[str, str]
    served_model_name: str
    device: str
    user: str
    group: str
    private_network: bool
    exposure_limit: float = 3.0
    version_floor: str = ""
    recorded_flags: Optional[Mapping[str, object]] = None
    container: bool = False


def parse_listeners(table: str, user_id: int) -> List[Listener]:
    """Listening sockets of one user out of /proc/<pid>/net/tcp or tcp6."""
    listeners = []
    for line in table.splitlines()[1:]:
        columns = line.split()
        if len(columns) > 7 and columns[3] == "0A" and int(columns[7]) == user_id:
            raw, port = columns[1].split(":")
            # The kernel prints each 32-bit word in the byte order of the machine; all of ours are little-endian.
            words = [raw[start : start + 8] for start in range(0, len(raw), 8)]
            packed = b"".join(bytes.fromhex(word)[::-1] for word in words)
            listeners.append(Listener(str(ipaddress.ip_address(packed)), int(port, 16)))
    return listeners


def parse_interfaces(table: str) -> List[str]:
    """Names out of /proc/<pid>/net/dev."""
    return sorted(line.split(":")[0].strip() for line in table.splitlines()[2:] if ":" in line)


def parse_exposure(text: str) -> Optional[float]:
    """The score out of `systemd-analyze security`; None when it says none."""
    match = re.search(r"Overall exposure level for \S+: (\d+(?:\.\d+)?)", text)
    return float(match.group(1)) if match else None


def _service(seen: Observed, wanted: Expected) -> List[Check]:
    up = seen.active_state == "active" and seen.unit_file_state == "enabled"
    current = seen.running_release == wanted.release and not seen.needs_reload
    return [
        Check(
            "vllm.service-active",
            up,
            f"bedplate-vllm.service is {seen.active_state or 'unknown'} and {seen.unit_file_state or 'not installed'}.",
            "" if up else LOGS,
        ),
        Check(
            "vllm.release-current",
            current,
            f"the engine serves release {seen.running_release or 'none'}, configured is {wanted.release}.",
            "" if current else "run the rollout with vllm_restart: when_changed, so that the engine is restarted.",
        ),
    ]


def _arguments(seen: Observed, wanted: Expected) -> Check:
    # argv[0] differs: the launcher replaces itself by the interpreter.  What follows "serve" is what was configured.
    def after_serve(arguments: Sequence[str]) -> List[str]:
        return list(arguments[arguments.index("serve") :]) if "serve" in arguments else []

    running, rendered = after_serve(seen.arguments), after_serve(wanted.arguments)
    extra = [item for item in running if item not in rendered]
    missing = [item for item in rendered if item not in running]
    if running == rendered:
        reason = f"the engine runs with the {len(rendered)} arguments that were rendered."
    elif extra or missing:
        reason = f"the engine's arguments differ: missing {missing}, not expected {extra}."
    else:
        reason = "the engine's arguments stand in another order than rendered."
    return Check("vllm.arguments", running == rendered, reason, "" if running == rendered else ROLLOUT)


def _environment(seen: Observed, wanted: Expected) -> Check:
    wrong = [name for name, value in wanted.environment.items() if seen.environment.get(name) != value]
    refused = [name for name in seen.environment if refused_variable(name)]
    ok = bool(seen.environment) and not wrong and not refused
    if not seen.environment:
        reason = f"the engine's environment cannot be read: {seen.errors.get('process', 'it does not run')}."
    elif ok:
        reason = f"all {len(wanted.environment)} variables are set as configured, and none that is refused."
    else:
        reason = f"the engine's environment differs: not as configured {wrong}, refused but set {refused}."
    return Check("vllm.environment", ok, reason, "" if ok else ROLLOUT)


def _socket(seen: Observed, wanted: Expected) -> Check:
    owner = f"{wanted.user}:{wanted.group}"
    ok = seen.socket_mode == 0o660 and seen.socket_owner == owner and seen.directory_mode == 0o750
    if seen.socket_mode is None:
        reason = f"the engine's socket is not there: {seen.errors.get('socket', 'no such file')}."
    else:
        reason = (
            f"the socket is {seen.socket_owner} {seen.socket_mode:04o} in a directory {seen.directory_mode or 0:04o};"
            f" expected {owner} 0660 in 0750."
        )
    return Check(
        "vllm.socket-permissions", ok, reason, "" if ok else f"`systemctl restart bedplate-vllm`, or {ROLLOUT}"
    )


def _network(seen: Observed, wanted: Expected) -> List[Check]:
    private = seen.interfaces == ("lo",)
    reachable = [
        f"{listener.address} port {listener.port}"
        for listener in seen.listeners
        if not private and not ipaddress.ip_address(listener.address).is_loopback
    ]
    running = bool(seen.interfaces)
    not_running = f"the engine's network cannot be seen: {seen.errors.get('process', 'it does not run')}."
    checks = [
        Check(
            "vllm.no-listener",
            running and not reachable,
            not_running
            if not running
            else f"the engine listens on {', '.join(reachable)}."
            if reachable
            else f"none of the engine's {len(seen.listeners)} TCP listeners can be reached from outside the host.",
            ""
            if running and not reachable
            else "remove the flag in vllm_extra_args that opens it, and roll out again.",
        )
    ]
    if wanted.private_network:
        checks.append(
            Check(
                "vllm.no-network",
                private,
                not_running if not running else f"the engine sees the network interfaces {', '.join(seen.interfaces)}.",
                "" if private else "the unit's PrivateNetwork= is not in force; look for drop-ins of the unit.",
            )
        )
    return checks


def _answers(seen: Observed, wanted: Expected) -> List[Check]:
    listed = wanted.served_model_name in seen.models
    api_error = seen.errors.get("api", "")
    generates = seen.generated_tokens > 0
    return [
        Check(
            "vllm.model-listed",
            listed,
            f"the engine lists {', '.join(seen.models) or 'no model'}" + (f" ({api_error})." if api_error else "."),
            "" if listed else LOGS,
        ),
        Check(
            "vllm.generates",
            generates,
            f"asked for one token, the engine generated {seen.generated_tokens}"
            + (f" ({seen.errors['generate']})." if "generate" in seen.errors else "."),
            "" if generates else LOGS,
        ),
        Check(
            "vllm.in-gateway",
            seen.endpoint_published,
            "the engine is announced to the gateway."
            if seen.endpoint_published
            else f"the engine is not announced to the gateway: {seen.errors.get('endpoint', 'the file is empty')}.",
            "" if seen.endpoint_published else "`systemctl restart bedplate-vllm`, and " + LOGS,
        ),
    ]


def _version(seen: Observed, wanted: Expected) -> Check:
    if not seen.version:
        return Check("vllm.version-floor", False, "the engine does not tell its version.", LOGS)
    problem = version_problem(seen.version, wanted.device, wanted.version_floor)
    floor = max([FLOORS[wanted.device].version, wanted.version_floor or "0.0.0"], key=version_key)
    reason = f"vLLM {seen.version} runs; device {wanted.device} requires {floor} or newer."
    return Check("vllm.version-floor", problem is None, problem or reason, "build the bundle anew." if problem else "")


def _hardening(seen: Observed, wanted: Expected) -> Check:
    ok = seen.exposure is not None and seen.exposure <= wanted.exposure_limit
    found = f"{seen.exposure}" if seen.exposure is not None else f"unknown ({seen.errors.get('exposure', 'no answer')})"
    return Check(
        "vllm.hardening",
        ok,
        f"systemd-analyze rates the unit's exposure {found}; the limit is {wanted.exposure_limit}.",
        "" if ok else "look for drop-ins of bedplate-vllm.service that weaken it: `systemctl cat bedplate-vllm`.",
    )


def _flags(seen: Observed, wanted: Expected) -> List[Check]:
    """The controller refuses wrong flags by its recorded list; that is worth only as much as the list is right."""
    if wanted.recorded_flags is None:
        return []
    if seen.installed_flags is None:
        why = seen.errors.get("flags", "flags.json is missing")
        return [Check("vllm.flags-recorded", False, f"the engine's own list of flags cannot be read: {why}.", ROLLOUT)]
    recorded, installed = wanted.recorded_flags, seen.installed_flags
    names: Dict[str, None] = dict.fromkeys([*recorded, *installed])
    differing = [name for name in names if recorded.get(name) != installed.get(name)]
    return [
        Check(
            "vllm.flags-recorded",
            not differing,
            f"the engine's list of flags differs from the recorded one in {', '.join(differing[:5])}"
            + (f" and {len(differing) - 5} more." if len(differing) > 5 else ".")
            if differing
            else f"the engine's {len(installed)} flags are those that the collection has recorded.",
            "record the list of this engine again: see roles/vllm/README.md." if differing else "",
        )
    ]


def evaluate(seen: Observed, wanted: Expected) -> List[Check]:
    return [
        *_service(seen, wanted),
        _arguments(seen, wanted),
        _environment(seen, wanted),
        _socket(seen, wanted),
        *_network(seen, wanted),
        *_answers(seen, wanted),
        _version(seen, wanted),
        # A container is not confined by its unit: what it may is asked of its process (vllm_container_health).
        *([] if wanted.container else [_hardening(seen, wanted)]),
        *_flags(seen, wanted),
    ]
