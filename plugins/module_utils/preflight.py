# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a host can carry what the site asks for: facts on one side, demands on the other, checks as the answer.

Pure: `preflight_info` collects the facts, everything here only reads and compares.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check

OWN_UNIT_PREFIX = "bedplate-"
_LISTEN = {"tcp": "0A", "udp": "07"}


class DemandError(ValueError):
    """A demand is not usable; the message is one sentence for the user."""


@dataclass(frozen=True)
class Listener:
    """A socket that holds a port, and who holds it (empty when unknown)."""

    protocol: str
    port: int
    process: str = ""
    unit: str = ""

    @property
    def ours(self) -> bool:
        return self.unit.startswith(OWN_UNIT_PREFIX)

    @property
    def owner(self) -> str:
        return " of ".join(part for part in (self.process, self.unit) if part) or "an unknown process"


@dataclass(frozen=True)
class Space:
    """Room for one directory, on the filesystem that holds or would hold it."""

    path: str
    mount: str
    free_bytes: int
    in_use: bool


@dataclass(frozen=True)
class Facts:
    """What was found on the host."""

    os_release: Mapping[str, str]
    architecture: str
    kernel: str
    python: str
    systemd_version: str
    systemd_running: bool
    root: bool
    memory_bytes: int
    container: str
    clock_error: Optional[float]
    clock_offset: float
    spaces: Tuple[Space, ...] = ()
    listeners: Tuple[Listener, ...] = ()
    unresolved: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Demands:
    """What the site asks for, under the names of the role's variables without their prefix."""

    supported_systems: Tuple[str, ...]
    architectures: Tuple[str, ...]
    kernel_minimum: str
    python_minimum: str
    systemd_minimum: str
    memory_minimum_mb: int
    disk_minimums: Tuple[Tuple[str, float, float], ...]
    ports: Tuple[Tuple[str, str, int, int], ...]
    names: Tuple[str, ...]
    clock_skew_seconds: float
    clock_synchronised: bool


# --- parsing --------------------------------------------------------------------------------------------------------


def parse_os_release(text: str) -> Dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, _equals, value in pairs}


def version(text: str) -> Tuple[int, ...]:
    """The leading numbers: '6.1.0-18-amd64' is (6, 1, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def at_least(found: str, minimum: str) -> bool:
    """'5.14' is at least '5.14.0': missing numbers count as 0."""
    have, want = version(found), version(minimum)
    width = max(len(have), len(want))
    return bool(have) and have + (0,) * (width - len(have)) >= want + (0,) * (width - len(want))


def parse_sockets(protocol: str, text: str) -> List[Tuple[int, str]]:
    """Port and inode of every socket that holds a port, from /proc/net/{tcp,tcp6,udp,udp6}."""
    sockets: List[Tuple[int, str]] = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN[protocol]:
            sockets.append((int(fields[1].rpartition(":")[2], 16), fields[9]))
    return sockets


def parse_memory(meminfo: str, cgroup_limit: str) -> int:
    """Bytes that the host really has: in a container, the smaller of the machine's and the container's."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    total = int(match[1]) * 1024 if match else 0
    limit = cgroup_limit.strip()
    return min(total, int(limit)) if limit.isdigit() else total


def parse_ports(declared: Mapping[str, Any]) -> Tuple[Tuple[str, str, int, int], ...]:
    """Name, protocol, first and last port of every service that the roles declare for the firewall."""
    ports: List[Tuple[str, str, int, int]] = []
    for variable, entries in declared.items():
        for entry in entries:
            match = re.fullmatch(r"(\d+)(?:-(\d+))?", str(entry.get("port", "")))
            if not match or entry.get("protocol") not in _LISTEN:
                raise DemandError(f"{variable}: every entry needs a port and a protocol tcp or udp, found {entry!r}.")
            ports.append(
                (str(entry.get("name", variable)), entry["protocol"], int(match[1]), int(match[2] or match[1]))
            )
    return tuple(ports)


def parse_disk_minimums(values: Sequence[Mapping[str, Any]]) -> Tuple[Tuple[str, float, float], ...]:
    minimums: List[Tuple[str, float, float]] = []
    for value in values:
        free, reserve = float(value["free_gb"]), float(value["reserve_gb"])
        if not str(value["path"]).startswith("/") or not 0 <= reserve <= free:
            raise DemandError(
                f"preflight_disk_minimums: path must be absolute and 0 <= reserve_gb <= free_gb, found {dict(value)!r}."
            )
        minimums.append((str(value["path"]), free, reserve))
    return tuple(minimums)


# --- one check each -------------------------------------------------------------------------------------------------


def system_supported(os_release: Mapping[str, str], supported: Iterable[str]) -> bool:
    """'debian 12' is meant literally; 'rhel 9' also by those who say that they are like it, by major version."""
    name, release = os_release.get("ID", ""), os_release.get("VERSION_ID", "")
    like = os_release.get("ID_LIKE", "").split()
    for entry in supported:
        wanted, _space, number = entry.partition(" ")
        if wanted == "rhel":
            if (name == "rhel" or "rhel" in like) and release.split(".")[0] == number:
                return True
        elif (name, release) == (wanted, number):
            return True
    return False


def _check(name: str, ok: bool, holds: str, fails: str, remedy: str) -> Check:
    return Check(f"preflight.{name}", ok, holds if ok else fails, "" if ok else remedy)


def _platform(facts: Facts, demands: Demands) -> List[Check]:
    system = facts.os_release.get("PRETTY_NAME") or "an unknown system"
    return [
        _check(
            "system",
            system_supported(facts.os_release, demands.supported_systems),
            f"The host runs {system}.",
            f"The host runs {system}, which is none of: {', '.join(demands.supported_systems)}.",
            "Install a supported system, or add yours to preflight_supported_systems at your own risk.",
        ),
        _check(
            "architecture",
            facts.architecture in demands.architectures,
            f"The architecture is {facts.architecture}.",
            f"The architecture is {facts.architecture}, but the artefacts are for {', '.join(demands.architectures)}.",
            "Use a host or a bundle of the right architecture.",
        ),
        _check(
            "kernel",
            at_least(facts.kernel, demands.kernel_minimum),
            f"The kernel is {facts.kernel}.",
            f"The kernel is {facts.kernel}, older than {demands.kernel_minimum}.",
            "Install a newer kernel of the distribution and boot it.",
        ),
        _check(
            "init",
            facts.systemd_running and at_least(facts.systemd_version, demands.systemd_minimum),
            f"systemd {facts.systemd_version} runs the host.",
            (
                f"systemd {facts.systemd_version or 'of unknown version'} runs the host, older than"
                f" {demands.systemd_minimum}."
                if facts.systemd_running
                else "The host is not run by systemd."
            ),
            f"Use a system that is run by systemd {demands.systemd_minimum} or newer.",
        ),
        _check(
            "python",
            at_least(facts.python, demands.python_minimum),
            f"Python is {facts.python}.",
            f"Python is {facts.python}, older than {demands.python_minimum}.",
            "Install a newer Python and name it in ansible_python_interpreter.",
        ),
        _check(
            "root",
            facts.root,
            "Roles can become root.",
            "Tasks do not run as root although they ask for it.",
            "Let the user that connects use sudo, or set ansible_become_user to root.",
        ),
    ]


def _memory(facts: Facts, demands: Demands) -> Check:
    found = facts.memory_bytes // 1024**2
    return _check(
        "memory",
        found >= demands.memory_minimum_mb,
        f"The host has {found} MiB of memory.",
        f"The host has {found} MiB of memory, fewer than {demands.memory_minimum_mb}.",
        "Add memory, or lower preflight_memory_minimum_mb if this host serves a smaller model.",
    )


def _disk(facts: Facts, demands: Demands) -> List[Check]:
    """Room is demanded in full before the first installation; later what was demanded is partly ours already."""
    spaces = {space.path: space for space in facts.spaces}
    checks = []
    for path, free_gb, reserve_gb in demands.disk_minimums:
        space = spaces[path]
        wanted = reserve_gb if space.in_use else free_gb
        found = space.free_bytes / 1e9
        where = path if path == space.mount else f"{path} (on {space.mount})"
        name = "disk" + re.sub(r"[^a-z0-9]+", "-", path.lower()).rstrip("-")
        checks.append(
            _check(
                name,
                found >= wanted,
                f"{where} has {found:.1f} GB free.",
                f"{where} has {found:.1f} GB free, less than {wanted:g} GB.",
                f"Free some space, or mount a larger disk at {path}.",
            )
        )
    return checks


def _clock(facts: Facts, demands: Demands) -> List[Check]:
    offset = abs(facts.clock_offset)
    checks = [
        _check(
            "clock",
            offset <= demands.clock_skew_seconds,
            f"The clock is within {demands.clock_skew_seconds:g} s of the controller's.",
            f"The clock is {offset:.0f} s {'ahead of' if facts.clock_offset > 0 else 'behind'} the controller's:"
            " certificates and tokens would be taken for expired or not yet valid.",
            "Set the clock of whichever is wrong, and let both follow a time server.",
        )
    ]
    # A container cannot set its clock: it has its machine's, which the comparison above judges.
    if demands.clock_synchronised and not facts.container:
        checks.append(
            _check(
                "clock-synchronised",
                facts.clock_error is not None and facts.clock_error < 16,
                "The clock follows a time source.",
                "The clock follows no time source, so it will drift.",
                "Start chrony or systemd-timesyncd with servers that this host reaches (and list them in"
                " firewall_ntp_servers), or set preflight_clock_synchronised: false.",
            )
        )
    return checks


def _names(facts: Facts, demands: Demands) -> List[Check]:
    return [
        _check(
            f"name-{name}",
            name not in facts.unresolved,
            f"The name {name} resolves.",
            f"The name {name} does not resolve: {facts.unresolved.get(name, '')}.",
            "Declare a DNS server that knows the name, or add it to /etc/hosts.",
        )
        for name in demands.names
    ]


def _ports(facts: Facts, demands: Demands) -> List[Check]:
    checks = []
    for name, protocol, first, last in demands.ports:
        taken = sorted(
            {
                (listener.port, listener.owner)
                for listener in facts.listeners
                if listener.protocol == protocol and first <= listener.port <= last and not listener.ours
            }
        )
        ports = str(first) if first == last else f"{first}-{last}"
        holders = ", ".join(f"{port} by {owner}" for port, owner in taken)
        checks.append(
            _check(
                f"port-{name}",
                not taken,
                f"Nobody else holds {protocol} port {ports}.",
                f"Somebody else holds {protocol} port {holders}.",
                f"Stop or move that program, or give the service {name} another port.",
            )
        )
    return checks


def checks(facts: Facts, demands: Demands) -> List[Check]:
    """All of them, so that one run tells everything that has to be put right."""
    return [
        *_platform(facts, demands),
        _memory(facts, demands),
        *_disk(facts, demands),
        *_clock(facts, demands),
        *_names(facts, demands),
        *_ports(facts, demands),
    ]
