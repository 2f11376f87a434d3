# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""From what the inventory and the roles declare to the text of one nftables table.

`parse_policy` turns untrusted variables into a `Policy` or raises `RulesetError` with one sentence; `render` turns a
`Policy` into a script that replaces the table `inet bedplate`, and nothing else, in one transaction.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

FAMILY = "inet"
TABLE = "bedplate"
FORWARD_POLICIES = ("untouched", "drop")

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
Networks = Tuple[Network, ...]

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_ENTRY_KEYS = ("name", "port", "protocol", "networks")


class RulesetError(ValueError):
    """A declared value is not usable; the message is one sentence that says where it stands and what to do."""


@dataclass(frozen=True)
class Opening:
    """One port, or range of ports, that some networks may reach (a service) or that may be reached there (egress)."""

    name: str
    first: int
    last: int
    protocol: str
    networks: Networks

    @property
    def ports(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True)
class Policy:
    """Everything that the table depends on."""

    ssh_port: int
    operator_networks: Networks
    services: Tuple[Opening, ...] = ()
    egress: Tuple[Opening, ...] = ()
    denied_users: Tuple[str, ...] = ()
    dns_servers: Networks = ()
    ntp_servers: Networks = ()
    dhcp_client: bool = True
    forward_policy: str = "untouched"
    log_per_minute: int = 30


# --- from variables to a policy -------------------------------------------------------------------------------------


def parse_network(where: str, value: Any) -> Network:
    """A CIDR, or one address for itself."""
    if not isinstance(value, str):
        raise RulesetError(f"{where}: a network is a string such as '10.0.0.0/24' or 'fd00::/8', found {value!r}.")
    try:
        return ipaddress.ip_network(value.strip())
    except ValueError:
        pass
    try:
        meant: Any = ipaddress.ip_interface(value.strip())
    except ValueError:
        raise RulesetError(
            f"{where}: {value!r} is not an IPv4 or IPv6 network; write it as '10.0.0.0/24' or 'fd00::/8'."
        ) from None
    raise RulesetError(
        f"{where}: {value!r} has bits set beyond its prefix; write '{meant.network}' for the network"
        f" or '{meant.ip}' for the one address."
    )


def parse_networks(where: str, values: Any) -> Networks:
    """Overlapping networks are merged: nftables refuses overlapping intervals in one set."""
    if not isinstance(values, (list, tuple)):
        raise RulesetError(f"{where}: must be a list of networks, found {values!r}.")
    networks = [parse_network(where, value) for value in values]
    v4 = ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv4Network))
    v6 = ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv6Network))
    return (*v4, *v6)


def parse_ports(where: str, value: Any) -> Tuple[int, int]:
    match = None if isinstance(value, bool) else _PORTS.fullmatch(str(value).strip())
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= 65535:
        raise RulesetError(
            f"{where}: port must be a number from 1 to 65535 or a range such as '8000-8010', found {value!r}."
        )
    return first, last


def _parse_opening(variable: str, index: int, entry: Any) -> Opening:
    where = f"{variable}[{index}]"
    if not isinstance(entry, Mapping):
        raise RulesetError(f"{where}: must be a dictionary with {', '.join(_ENTRY_KEYS)}, found {entry!r}.")
    missing = [key for key in _ENTRY_KEYS if key not in entry]
    unknown = sorted(str(key) for key in entry if key not in _ENTRY_KEYS)
    if missing or unknown:
        wrong = f"{', '.join(missing)} missing" if missing else f"{', '.join(unknown)} not known"
        raise RulesetError(f"{where}: an entry has exactly the keys {', '.join(_ENTRY_KEYS)}; {wrong} in {entry!r}.")
    name = str(entry["name"])
    if not _NAME.fullmatch(name):
        raise RulesetError(
            f"{where}.name: must be lower-case letters, digits, '.', '_' or '-' (at most 63), found {name!r}."
        )
    first, last = parse_ports(f"{where}.port", entry["port"])
    if entry["protocol"] not in ("tcp", "udp"):
        raise RulesetError(f"{where}.protocol: must be tcp or udp, found {entry['protocol']!r}.")
    networks = parse_networks(f"{where}.networks", entry["networks"])
    return Opening(name, first, last, str(entry["protocol"]), networks)


def parse_openings(declared: Any) -> Tuple[Opening, ...]:
    """`declared`: variable name -> its list.  A name may be used once over all variables: it is the rule's comment.

    An entry without networks is legal and opens nothing: a role may declare a port before the site says for whom.
    """
    if not isinstance(declared, Mapping):
        raise RulesetError(f"the declared openings must be a dictionary of lists, found {declared!r}.")
    owner: Dict[str, str] = {}
    openings: List[Opening] = []
    for variable, entries in declared.items():
        if not isinstance(entries, (list, tuple)):
            raise RulesetError(f"{variable}: must be a list of entries, found {entries!r}.")
        for index, entry in enumerate(entries):
            opening = _parse_opening(str(variable), index, entry)
            if opening.name in owner:
                raise RulesetError(
                    f"{variable}[{index}].name: {opening.name!r} is already used by {owner[opening.name]};"
                    " give every entry a name of its own."
                )
            owner[opening.name] = f"{variable}[{index}]"
            openings.append(opening)
    return tuple(openings)


def _reserve_ssh_port(openings: Iterable[Opening], ssh_port: int) -> None:
    for opening in openings:
        if opening.protocol == "tcp" and opening.first <= ssh_port <= opening.last:
            raise RulesetError(
                f"service {opening.name!r} opens port {opening.ports}, which holds the ssh port {ssh_port};"
                " ssh is opened from firewall_operator_networks alone, so move the service to another port."
            )


def _users(values: Iterable[Any]) -> Tuple[str, ...]:
    users = sorted({str(value) for value in values})
    for user in users:
        if not _USER.fullmatch(user):
            raise RulesetError(f"firewall denied users: {user!r} is not the name of a local user.")
    return tuple(users)


def parse_policy(raw: Mapping[str, Any]) -> Policy:
    """The variables of the firewall role, under the names of `Policy`, as a checked `Policy`."""
    unknown = sorted(set(raw) - set(Policy.__dataclass_fields__))
    if unknown:
        raise RulesetError(f"the firewall policy has no {', '.join(unknown)}.")
    operator_networks = parse_networks("firewall_operator_networks", raw.get("operator_networks", []))
    if not operator_networks:
        raise RulesetError(
            "firewall_operator_networks is empty, so nobody could reach the host by ssh any more;"
            " list the networks that the operators connect from."
        )
    ssh_port, ssh_last = parse_ports("firewall_ssh_port", raw.get("ssh_port", 22))
    if ssh_port != ssh_last:
        raise RulesetError(f"firewall_ssh_port: must be one port, found {raw['ssh_port']!r}.")
    services = parse_openings(raw.get("services", {}))
    _reserve_ssh_port(services, ssh_port)
    forward_policy = str(raw.get("forward_policy", "untouched"))
    if forward_policy not in FORWARD_POLICIES:
        raise RulesetError(f"firewall_forward_policy: must be untouched or drop, found {forward_policy!r}.")
    log_per_minute = raw.get("log_per_minute", 30)
    if isinstance(log_per_minute, bool) or not isinstance(log_per_minute, int) or log_per_minute < 0:
        raise RulesetError(f"firewall_log_per_minute: must be 0 (log nothing) or more, found {log_per_minute!r}.")
    return Policy(
        ssh_port=ssh_port,
        operator_networks=operator_networks,
        services=services,
        egress=parse_openings(raw.get("egress", {})),
        denied_users=_users(raw.get("denied_users", [])),
        dns_servers=parse_networks("firewall_dns_servers", raw.get("dns_servers", [])),
        ntp_servers=parse_networks("firewall_ntp_servers", raw.get("ntp_servers", [])),
        dhcp_client=bool(raw.get("dhcp_client", True)),
        forward_policy=forward_policy,
        log_per_minute=log_per_minute,
    )


# --- from a policy to a script --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chain:
    name: str
    rules: Tuple[str, ...]
    hook: Optional[str] = None

    def render(self) -> str:
        head = [f"type filter hook {self.hook} priority filter; policy drop;"] if self.hook else []
        return "\n".join([f"\tchain {self.name} {{", *(f"\t\t{line}" for line in (*head, *self.rules)), "\t}"])


def address_matches(direction: str, networks: Networks) -> List[str]:
    """One match per address family that occurs, since a rule can look at one of them only."""
    matches: List[str] = []
    families = (("ip", "ipv4", ipaddress.IPv4Network), ("ip6", "ipv6", ipaddress.IPv6Network))
    for keyword, protocol, kind in families:
        chosen = [network for network in networks if isinstance(network, kind)]
        if any(network.prefixlen == 0 for network in chosen):
            # nft drops a match on a prefix of length 0, and with it the restriction to this family.
            matches.append(f"meta nfproto {protocol}")
        elif chosen:
            matches.append(f"{keyword} {direction} {{ {', '.join(str(network) for network in chosen)} }}")
    return matches


def _opening_rules(direction: str, openings: Iterable[Opening]) -> List[str]:
    return [
        f'{match} {opening.protocol} dport {opening.ports} counter accept comment "{opening.name}"'
        for opening in openings
        for match in address_matches(direction, opening.networks)
    ]


def _refuse_chain(name: str, counter: str, log_per_minute: int, last: Sequence[str]) -> Chain:
    log = (
        [f'limit rate {log_per_minute}/minute burst 10 packets log prefix "bedplate {name}: " level info']
        if log_per_minute
        else []
    )
    return Chain(name, (f"counter name {counter}", *log, *last))


def _input(policy: Policy) -> Chain:
    ssh = Opening("ssh", policy.ssh_port, policy.ssh_port, "tcp", policy.operator_networks)
    dhcp = [
        'udp sport 67 udp dport 68 counter accept comment "dhcp"',
        'ip6 saddr fe80::/10 udp dport 546 counter accept comment "dhcp6"',
    ]
    return Chain(
        "input",
        (
            'iifname "lo" accept',
            "ct state established,related accept",
            "ct state invalid goto refuse_in",
            "icmp type { destination-unreachable, time-exceeded, parameter-problem } accept",
            "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept",
            # Neighbour discovery counts only from the link itself (RFC 4861: a hop limit of 255 proves it).
            "ip6 hoplimit 255 icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept",
            "ip6 saddr fe80::/10 icmpv6 type mld-listener-query accept",
            "icmp type echo-request limit rate 20/second accept",
            "icmpv6 type echo-request limit rate 20/second accept",
            *(dhcp if policy.dhcp_client else []),
            *_opening_rules("saddr", (ssh, *policy.services)),
            "goto refuse_in",
        ),
        hook="input",
    )


def _output(policy: Policy) -> Chain:
    users = [f"meta skuid {{ {', '.join(policy.denied_users)} }} goto refuse_out"] if policy.denied_users else []
    dhcp = [
        'udp sport 68 udp dport 67 counter accept comment "dhcp"',
        'ip6 saddr fe80::/10 udp sport 546 udp dport 547 counter accept comment "dhcp6"',
    ]
    # Sessions that are older than the table are unknown to connection tracking when the server speaks first, and would
    # hang for good, the one that brings these rules among them. They may go on wherever they lead; to open one takes a
    # SYN or the answer to one, and those pass by the other rules alone.
    ssh = f'tcp sport {policy.ssh_port} tcp flags & (syn | rst) == 0x0 accept comment "ssh-already-open"'
    declared = (
        Opening("dns", 53, 53, "udp", policy.dns_servers),
        Opening("dns-tcp", 53, 53, "tcp", policy.dns_servers),
        Opening("ntp", 123, 123, "udp", policy.ntp_servers),
        *policy.egress,
    )
    return Chain(
        "output",
        (
            'oifname "lo" accept',
            *users,
            "ct state established,related accept",
            "icmp type { destination-unreachable, time-exceeded, parameter-problem } accept",
            "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept",
            "ip6 hoplimit 255 icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept",
            "icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } accept",
            *(dhcp if policy.dhcp_client else []),
            ssh,
            *_opening_rules("daddr", declared),
            "goto refuse_out",
        ),
        hook="output",
    )


def render(policy: Policy) -> str:
    """The script: nft applies a file as one transaction, so the host is at no time without the table."""
    # A local program should hear at once that it may not connect, not after minutes; a stranger should hear nothing.
    # Only who opens a connection is answered: a reset would end sessions that a roll-back is about to save.
    refuse_out = ("tcp flags & (fin | syn | rst | ack) == syn reject with tcp reset", "drop")
    chains = [
        _refuse_chain("refuse_in", "dropped_in", policy.log_per_minute, ("drop",)),
        _refuse_chain("refuse_out", "refused_out", policy.log_per_minute, refuse_out),
        _input(policy),
        _output(policy),
    ]
    if policy.forward_policy == "drop":
        chains.append(Chain("forward", (), hook="forward"))
    return "\n".join(
        [
            "# Written by the role bedplate.llm.firewall; changes made here are overwritten.",
            "# The empty declaration makes the deletion legal when there is no table yet.",
            f"table {FAMILY} {TABLE}",
            f"delete table {FAMILY} {TABLE}",
            f"table {FAMILY} {TABLE} {{",
            "\tcounter dropped_in { }",
            "\tcounter refused_out { }",
            *(chain.render() for chain in chains),
            "}",
            "",
        ]
    )
