# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stands on a host, what that means, and which checks hold: the decision half of `nft_table`."""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.nftables import FAMILY, TABLE

UNIT = "bedplate-firewall.service"
FILE = "/etc/bedplate/firewall/bedplate.nft"
ROLLBACK_UNIT = "bedplate-firewall-rollback"

# Others that manage packet filters; they may stay, since a packet must pass every table.
OTHER_FIREWALLS = ("firewalld.service", "ufw.service", "nftables.service")

_TABLE_HEAD = re.compile(r"table (\S+) (\S+) \{")
_FORWARDS_PORTS = re.compile(r"\b(dnat|redirect)\b|xt target \"?(DNAT|REDIRECT)", re.IGNORECASE)
# Numbers of the kernel and of the moment, which say nothing about the rules.
_VOLATILE = ("handle", "packets", "bytes", "index")


def boot_unit(nft: str) -> str:
    """The unit that loads the table before any network is up.

    nftables.service of the distributions flushes every table when it stops or reloads: ours is ordered after it, and is
    started, stopped, restarted and reloaded together with it, so that the table comes back at once.
    """
    return f"""\
# Written by the role bedplate.llm.firewall; changes made here are overwritten.
[Unit]
Description=Firewall of bedplate (table {FAMILY} {TABLE})
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target shutdown.target
After=nftables.service systemd-modules-load.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service
Conflicts=shutdown.target
RequiresMountsFor={FILE}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={nft} -f {FILE}
ExecReload={nft} -f {FILE}

[Install]
WantedBy=sysinit.target nftables.service
"""


def rollback_script(previous: Optional[str]) -> str:
    """Puts the former table back, or takes ours away when there was none, in one transaction."""
    return f"table {FAMILY} {TABLE}\ndelete table {FAMILY} {TABLE}\n{previous or ''}"


# --- comparison -----------------------------------------------------------------------------------------------------


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: sorted((_stable(item) for item in inner), key=lambda item: json.dumps(item, sort_keys=True))
            if key in ("set", "elem") and isinstance(inner, list)
            else _stable(inner)
            for key, inner in value.items()
            if key not in _VOLATILE
        }
    return [_stable(item) for item in value] if isinstance(value, list) else value


def normalise(listing: str) -> List[Any]:
    """The output of `nft -j list table` without what differs between two loads of the same script."""
    items = [_stable(item) for item in json.loads(listing)["nftables"] if "metainfo" not in item]
    # nft lists rules in order within a chain; the order of chains and objects among themselves is its own business.
    rules = [item for item in items if "rule" in item]
    others = [item for item in items if "rule" not in item]
    return [
        *sorted(others, key=lambda item: json.dumps(item, sort_keys=True)),
        *sorted(rules, key=lambda item: str(item["rule"].get("chain"))),
    ]


def tables_of(listing: str) -> List[Tuple[str, str]]:
    """Family and name of every table in the output of `nft -j list tables`."""
    tables = [item["table"] for item in json.loads(listing)["nftables"] if "table" in item]
    return [(table["family"], table["name"]) for table in tables]


def open_hooks(listing: Sequence[Any]) -> List[str]:
    """Those of input and output where the normalised table has no base chain that drops by default."""
    # A dormant table is listed in full but filters nothing.
    asleep = any("flags" in item["table"] for item in listing if "table" in item)
    chains = [item["chain"] for item in listing if "chain" in item and not asleep]
    closed = {chain.get("hook") for chain in chains if chain.get("policy") == "drop"}
    return [hook for hook in ("input", "output") if hook not in closed]


def port_forwarders(ruleset: str) -> List[str]:
    """Other tables that rewrite destinations: what they publish goes past the input hook."""
    found: List[str] = []
    table = ""
    for line in ruleset.splitlines():
        head = _TABLE_HEAD.match(line)
        if head:
            table = f"{head[1]} {head[2]}"
        if table != f"{FAMILY} {TABLE}" and _FORWARDS_PORTS.search(line) and table not in found:
            found.append(table)
    return found


# --- the operator's own connection ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peer:
    """The two ends of an ssh connection as the host sees them."""

    address: str
    port: int
    server_port: int


def parse_peer(ssh_connection: str) -> Optional[Peer]:
    """The value of SSH_CONNECTION: client address, client port, server address, server port."""
    fields = ssh_connection.split()
    if len(fields) != 4 or not (fields[1].isdigit() and fields[3].isdigit()):
        return None
    return Peer(fields[0].split("%")[0], int(fields[1]), int(fields[3]))


def would_cut(peer: Optional[Peer], networks: Sequence[str], ssh_port: Optional[int]) -> str:
    """Why the wanted rules would cut the connection that asks for them, or nothing.  No networks: not to be judged."""
    if peer is None or not networks:
        return ""
    if ssh_port is not None and peer.server_port != ssh_port:
        return (
            f"you are connected to port {peer.server_port} of this host, but the firewall would open ssh on port"
            f" {ssh_port}; set firewall_ssh_port to {peer.server_port}"
        )
    address: Any = ipaddress.ip_address(peer.address)
    address = getattr(address, "ipv4_mapped", None) or address
    if any(address in ipaddress.ip_network(network) for network in networks):
        return ""
    return (
        f"you are connected from {address}, which is in none of firewall_operator_networks ({', '.join(networks)});"
        " add the network that you connect from"
    )


# --- state and checks -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """What stands on the host.  Unknown things are None: nothing can be compared before nft is installed."""

    nft: Optional[str]
    missing_users: Tuple[str, ...] = ()
    live: Optional[Tuple[Any, ...]] = None
    wanted: Optional[Tuple[Any, ...]] = None
    stored: Optional[str] = None
    stored_unit: Optional[str] = None
    enabled: bool = False
    active: bool = False
    pending: bool = False
    others: Tuple[str, ...] = ()
    forwarders: Tuple[str, ...] = ()

    @property
    def in_force(self) -> bool:
        return self.live is not None and self.live == self.wanted

    def persistent(self, ruleset: str) -> bool:
        return (
            self.nft is not None
            and self.stored == ruleset
            and self.stored_unit == boot_unit(self.nft)
            and self.enabled
            and self.active
        )

    def settled(self, ruleset: str) -> bool:
        """Nothing is left to do."""
        return self.in_force and self.persistent(ruleset) and not self.pending

    @property
    def gone(self) -> bool:
        """Nothing of ours is left."""
        return not (
            self.live is not None
            or self.stored is not None
            or self.stored_unit is not None
            or self.enabled
            or self.pending
        )


_ADMIT = "Put that right in the inventory; nothing was changed."
_APPLY = "Run the firewall role again; it puts the declared rules back."


def checks(state: State, ruleset: str, lockout: str, forwarding_allowed: bool) -> List[Check]:
    """The report of the firewall role."""
    if state.nft is None:
        return [
            Check(
                "firewall.nft-installed",
                False,
                "The program nft is not on this host.",
                "Install the package nftables, or run the firewall role on a host that reaches a package source.",
            )
        ]
    found = [Check("firewall.nft-installed", True, f"nft is at {state.nft}.")]
    if state.live is None:
        why = f"There is no table {FAMILY} {TABLE} in the kernel."
    elif state.missing_users:
        why = f"The rules name users that this host does not have: {', '.join(state.missing_users)}."
    else:
        why = f"The table {FAMILY} {TABLE} in the kernel is not the one that the inventory declares."
    found.append(
        Check("firewall.rules-in-force", True, "The kernel holds exactly the declared rules.")
        if state.in_force
        else Check("firewall.rules-in-force", False, why, _APPLY)
    )
    found.append(
        Check("firewall.operator-admitted", False, f"The declared rules would lock you out: {lockout}.", _ADMIT)
        if lockout
        else Check("firewall.operator-admitted", True, "The declared rules admit the connection that asks.")
    )
    opened = open_hooks(state.live or ())
    found.append(
        Check("firewall.default-deny", False, f"Nothing drops by default in: {', '.join(opened)}.", _APPLY)
        if opened
        else Check("firewall.default-deny", True, "Input and output drop what no rule accepts.")
    )
    found.append(
        Check("firewall.survives-reboot", True, f"{UNIT} is enabled and loads the declared rules.")
        if state.persistent(ruleset)
        else Check("firewall.survives-reboot", False, _not_persistent(state, ruleset), _APPLY)
    )
    found.append(
        Check(
            "firewall.no-change-pending",
            False,
            "A change of the rules waits for its confirmation and is rolled back otherwise.",
            "Wait a minute, then run the firewall role again.",
        )
        if state.pending
        else Check("firewall.no-change-pending", True, "No change waits for confirmation.")
    )
    found.append(_bypass(state, forwarding_allowed))
    return found


def _not_persistent(state: State, ruleset: str) -> str:
    if state.stored is None:
        return f"{FILE} does not exist, so the rules are gone after a reboot."
    if state.stored != ruleset:
        return f"{FILE} does not hold the declared rules."
    if state.stored_unit != boot_unit(state.nft or ""):
        return f"The unit {UNIT} is missing or was changed by somebody."
    return f"The unit {UNIT} is {'not active' if state.enabled else 'not enabled'}."


def _bypass(state: State, forwarding_allowed: bool) -> Check:
    beside = f" Also active: {', '.join(state.others)}; a packet must pass both." if state.others else ""
    if state.forwarders and not forwarding_allowed:
        return Check(
            "firewall.no-published-ports",
            False,
            f"Other tables forward ports past the input rules: {', '.join(state.forwarders)}.",
            "Stop publishing container ports on this host, or set firewall_port_forwarding_allowed: true.",
        )
    found = f"Other tables forward ports, as allowed: {', '.join(state.forwarders)}." if state.forwarders else ""
    return Check(
        "firewall.no-published-ports", True, (found or "No other table forwards ports past the input rules.") + beside
    )
