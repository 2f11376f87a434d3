# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a lab is: its networks, its machines, the names of everything it makes on the operator's machine, and the
decision what to do with a machine.  Nothing here looks at or changes the machine it runs on."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Union

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

STATE_ROOT = Path("/var/lib/bedplate-lab")
KINDS = ("container", "vm")
USER = "ops"
USER_ID = 1000

# A bridge is called bp-<lab>, and the kernel allows 15 characters for the name of an interface.
_LAB_NAME = re.compile(r"[a-z][a-z0-9]{0,11}")
_MACHINE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_SIZE = re.compile(r"([1-9][0-9]*)([MGT])")
_SERIAL = re.compile(r"[A-Za-z0-9_-]{1,20}")
_UNITS = {"M": 2**20, "G": 2**30, "T": 2**40}


class LabError(Exception):
    """One sentence for the operator: what, where, the value found, and what to do."""


@dataclass(frozen=True)
class Lab:
    """One lab: a private bridge with two networks, of which the operator has the first address each."""

    name: str
    network: ipaddress.IPv4Network
    network6: ipaddress.IPv6Network

    @property
    def bridge(self) -> str:
        return f"bp-{self.name}"

    @property
    def table(self) -> str:
        return f"bedplate_lab_{self.name}"

    @property
    def gateway(self) -> ipaddress.IPv4Address:
        return self.network.network_address + 1

    @property
    def gateway6(self) -> ipaddress.IPv6Address:
        return self.network6.network_address + 1

    @property
    def state(self) -> Path:
        return STATE_ROOT / self.name

    def machine_state(self, machine: str) -> Path:
        return self.state / "machines" / machine

    def cgroup(self, machine: str) -> str:
        """Path below the root of each cgroup hierarchy: what is in it belongs to the machine, and only that."""
        return f"bedplate-lab-{self.name}/{machine}"

    def tap(self, machine: str) -> str:
        """Name of a virtual machine's interface on the bridge: short and the same every time."""
        return "bpt" + hashlib.sha256(f"{self.name}/{machine}".encode()).hexdigest()[:10]

    def container_interface(self, machine: str) -> str:
        """What systemd-nspawn calls a container's interface on the bridge; an alternative name when it is long."""
        return f"vb-{self.name}-{machine}"

    def mac(self, machine: str) -> str:
        """A locally administered hardware address, the same every time, so that neighbour caches stay valid."""
        digest = hashlib.sha256(f"{self.name}/{machine}".encode()).digest()
        return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])

    def address6(self, address: ipaddress.IPv4Address) -> ipaddress.IPv6Address:
        """The IPv6 address that goes with an IPv4 address: the same place in its network, counted from the start."""
        return self.network6.network_address + (int(address) - int(self.network.network_address))

    def as_dict(self) -> dict[str, str]:
        return {"name": self.name, "network": str(self.network), "network6": str(self.network6)}


def parse_lab(name: str, network: str, network6: str) -> Lab:
    if not _LAB_NAME.fullmatch(name):
        raise LabError(
            f"lab_name is '{name}', which cannot name a bridge: use one to twelve lower-case letters and digits, "
            "beginning with a letter."
        )
    try:
        four, six = ipaddress.IPv4Network(network), ipaddress.IPv6Network(network6)
    except ValueError as error:
        raise LabError(
            f"lab_network or lab_network6 is not a network ({error}): write one like 10.87.0.0/24."
        ) from None
    if four.prefixlen > 29 or six.prefixlen > 120:
        raise LabError(f"lab_network {four} or lab_network6 {six} is too small: use /29, /120 or larger.")
    return Lab(name, four, six)


@dataclass(frozen=True)
class Disk:
    """An extra disk of a virtual machine."""

    serial: str
    size: str

    @property
    def bytes(self) -> int:
        match = _SIZE.fullmatch(self.size)
        if match is None:  # parse_machine() lets no other size through
            raise AssertionError(self.size)
        return int(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True)
class Machine:
    """One machine as declared.  A recorded machine that differs from its declaration has to be reset.

    gpus: the profile of the GPUs that it wears, with its digest; empty when it wears none.
    """

    name: str
    kind: str
    address: str
    address6: str
    base: str
    memory: str = "1G"
    cpus: int = 1
    disks: tuple[Disk, ...] = ()
    tpm: bool = False
    gpus: str = ""

    @property
    def memory_mib(self) -> int:
        return Disk("memory", self.memory).bytes // 2**20

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "address": self.address,
            "address6": self.address6,
            "base": self.base,
            "memory": self.memory,
            "cpus": self.cpus,
            "disks": [{"serial": disk.serial, "size": disk.size} for disk in self.disks],
            "tpm": self.tpm,
            "gpus": self.gpus,
        }


def _host_address(lab: Lab, where: str, text: str) -> ipaddress.IPv4Address:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        raise LabError(
            f"ansible_host of {where} is '{text}': give it an IPv4 address in lab_network {lab.network}."
        ) from None
    if address not in lab.network or address in (lab.network.network_address, lab.network.broadcast_address):
        raise LabError(f"ansible_host of {where} is {address}: choose a host address in lab_network {lab.network}.")
    if address == lab.gateway:
        raise LabError(f"ansible_host of {where} is {address}, which is the operator's own: choose another one.")
    return address


def _disks(where: str, items: Any) -> tuple[Disk, ...]:
    disks = tuple(Disk(str(item["serial"]), str(item["size"])) for item in items)
    serials = [disk.serial for disk in disks]
    for disk in disks:
        if not _SERIAL.fullmatch(disk.serial) or disk.serial == "root":
            raise LabError(
                f"lab_disks of {where} has the serial '{disk.serial}': use up to 20 letters, digits, - and _, "
                "and not 'root', which the system disk has."
            )
        if serials.count(disk.serial) > 1:
            raise LabError(f"lab_disks of {where} has the serial '{disk.serial}' twice: give each disk its own.")
        if not _SIZE.fullmatch(disk.size):
            raise LabError(
                f"lab_disks of {where} has the size '{disk.size}' for {disk.serial}: write a number and M, G or T."
            )
    return disks


def parse_machine(lab: Lab, declared: Mapping[str, Any]) -> Machine:
    """Check one host's declaration; the keys are those of Machine.as_dict(), the caller knows `base` and `gpus`."""
    name = str(declared["name"])
    if not _MACHINE_NAME.fullmatch(name):
        raise LabError(
            f"The lab host '{name}' cannot be a host name: use up to 32 lower-case letters, digits and dashes."
        )
    kind = str(declared.get("kind", "container"))
    if kind not in KINDS:
        raise LabError(f"lab_kind of {name} is '{kind}': use one of {', '.join(KINDS)}.")
    address = _host_address(lab, name, str(declared["address"]))
    disks = _disks(name, declared.get("disks") or ())
    tpm = bool(declared.get("tpm", False))
    if kind == "container" and (disks or tpm):
        raise LabError(f"{name} is a container and has no disks or TPM of its own: set lab_kind to vm.")
    memory, cpus = str(declared.get("memory", "1G")), int(declared.get("cpus", 1))
    if not _SIZE.fullmatch(memory):
        raise LabError(f"lab_memory of {name} is '{memory}': write a number and M or G, for example 1G.")
    if cpus < 1:
        raise LabError(f"lab_cpus of {name} is {cpus}: use 1 or more.")
    return Machine(
        name=name,
        kind=kind,
        address=str(address),
        address6=str(lab.address6(address)),
        base=str(declared.get("base", "")),
        memory=memory,
        cpus=cpus,
        disks=disks,
        tpm=tpm,
        gpus=str(declared.get("gpus", "")),
    )


def check_peers(lab: Lab, peers: Mapping[str, str]) -> None:
    """All machines of the lab by name: valid addresses, and no address twice."""
    seen: dict[ipaddress.IPv4Address, str] = {}
    for name in sorted(peers):
        address = _host_address(lab, name, peers[name])
        if address in seen:
            raise LabError(
                f"ansible_host of {name} is {address}, which {seen[address]} has already: change one of them."
            )
        seen[address] = name


def decide(recorded: Mapping[str, Any] | None, declared: Machine, running: bool) -> str:
    """What to do with a machine: create it, start it again with its disks as they are, or keep it.

    A machine whose recorded declaration differs is never changed in place: its disks may hold something of value.
    """
    if recorded is None:
        return "create"
    wanted = declared.as_dict()
    recorded = {"gpus": "", **recorded}  # machines made before there were any have no entry
    different = sorted(key for key in wanted if recorded.get(key) != wanted[key])
    if different:
        changes = ", ".join(f"{key} {recorded.get(key)} -> {wanted[key]}" for key in different)
        raise LabError(
            f"{declared.name} exists with another declaration ({changes}): "
            f"make it afresh with `bedplate lab reset` or lab_reset.yml --limit {declared.name}."
        )
    return "keep" if running else "start"


def network_conflict(lab: Lab, addresses: Mapping[str, Any]) -> str | None:
    """Name an interface that already uses the lab's networks; `addresses` is {interface: [address/prefix, …]}."""
    for interface in sorted(addresses):
        if interface == lab.bridge:
            continue
        for text in addresses[interface]:
            used = ipaddress.ip_interface(text).network
            ours: Network = lab.network if used.version == 4 else lab.network6
            apart = int(used[-1]) < int(ours[0]) or int(ours[-1]) < int(used[0])
            if not apart:
                return (
                    f"{interface} of this machine already uses {used}, which overlaps the lab's {ours}: "
                    f"choose another {'lab_network' if ours.version == 4 else 'lab_network6'}."
                )
    return None


def ruleset(lab: Lab, outside: bool) -> str:
    """The lab's own nftables table, replaced as a whole in one transaction; no other table is touched.

    Without the outside, machines reach each other and answer the operator, and everything they start themselves is
    refused at once (refused, not dropped: a name look-up then fails in milliseconds).
    """
    refuse = "reject with icmpx type admin-prohibited"
    forward = (
        f"""
    ct state established,related accept
    oifname "{lab.bridge}" {refuse}
    tcp flags syn tcp option maxseg size set rt mtu
    accept"""
        if outside
        else f"""
    {refuse}"""
    )
    nat = (
        f"""
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {lab.network} oifname != "{lab.bridge}" masquerade
  }}"""
        if outside
        else ""
    )
    return f"""table inet {lab.table} {{}}
delete table inet {lab.table}
table inet {lab.table} {{
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "{lab.bridge}" oifname "{lab.bridge}" accept
    iifname "{lab.bridge}" jump crossing
    oifname "{lab.bridge}" jump crossing
  }}
  chain crossing {{{forward}
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "{lab.bridge}" ct state established,related accept
    iifname "{lab.bridge}" meta l4proto {{ icmp, ipv6-icmp }} accept
    iifname "{lab.bridge}" {"accept" if outside else refuse}
  }}{nat}
}}
"""
