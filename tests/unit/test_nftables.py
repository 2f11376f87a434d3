"""The firewall's rules: what is refused before a host is touched, and what is rendered."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.bedplate.llm.plugins.filter.nftables import nft_ruleset
from ansible_collections.bedplate.llm.plugins.module_utils.nftables import (
    RulesetError,
    address_matches,
    parse_networks,
    parse_policy,
    parse_ports,
    render,
)

OPERATOR = {"operator_networks": ["192.0.2.0/24"]}


def entry(**changes: Any) -> dict[str, Any]:
    return {"name": "gateway", "port": 8443, "protocol": "tcp", "networks": ["198.51.100.0/24"], **changes}


def rendered(**policy: Any) -> list[str]:
    return [line.strip() for line in render(parse_policy({**OPERATOR, **policy})).splitlines()]


def chain(lines: list[str], name: str) -> list[str]:
    start = lines.index(f"chain {name} {{")
    return lines[start + 1 : lines.index("}", start)]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"operator_networks": []}, ["firewall_operator_networks", "is empty"]),
        ({"operator_networks": "192.0.2.0/24"}, ["firewall_operator_networks", "must be a list"]),
        ({"operator_networks": ["192.0.2.300/24"]}, ["'192.0.2.300/24'", "is not an IPv4 or IPv6 network"]),
        ({"operator_networks": ["192.0.2.7/24"]}, ["'192.0.2.0/24'", "'192.0.2.7'", "bits set beyond its prefix"]),
        ({"operator_networks": [42]}, ["a network is a string", "42"]),
        ({"ssh_port": "22-23"}, ["firewall_ssh_port", "one port"]),
        ({"forward_policy": "accept"}, ["firewall_forward_policy", "'accept'"]),
        ({"log_per_minute": -1}, ["firewall_log_per_minute", "-1"]),
        ({"log_per_minute": True}, ["firewall_log_per_minute", "True"]),
        ({"dns_servers": ["resolver"]}, ["firewall_dns_servers", "'resolver'"]),
        ({"denied_users": ["no such user"]}, ["'no such user'"]),
        ({"surprise": 1}, ["surprise"]),
        ({"services": {"a_firewall_services": {"port": 1}}}, ["a_firewall_services", "must be a list"]),
        ({"services": {"a_firewall_services": ["8443"]}}, ["a_firewall_services[0]", "dictionary"]),
        (
            {"services": {"a_firewall_services": [{"name": "x"}]}},
            ["a_firewall_services[0]", "port, protocol, networks"],
        ),
        ({"services": {"a_firewall_services": [entry(user="x")]}}, ["a_firewall_services[0]", "user not known"]),
        ({"services": {"a_firewall_services": [entry(name='x" accept')]}}, ["a_firewall_services[0].name"]),
        (
            {"services": {"a_firewall_services": [entry(protocol="sctp")]}},
            ["a_firewall_services[0].protocol", "'sctp'"],
        ),
        ({"services": {"a_firewall_services": [entry(networks=["x"])]}}, ["a_firewall_services[0].networks", "'x'"]),
        (
            {"services": {"a_firewall_services": [entry()], "b_firewall_services": [entry(port=1)]}},
            ["b_firewall_services[0].name", "'gateway'", "already used by a_firewall_services[0]"],
        ),
        ({"services": {"a_firewall_services": [entry(port="20-30")]}}, ["'gateway'", "20-30", "ssh port 22"]),
        ({"egress": {"a_firewall_egress": [entry(port=0)]}}, ["a_firewall_egress[0].port", "found 0"]),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_what_was_found(policy: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(RulesetError) as caught:
        parse_policy({**OPERATOR, **policy})
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("value", "expected"), [(22, (22, 22)), ("22", (22, 22)), ("8000-8010", (8000, 8010)), (65535, (65535, 65535))]
)
def test_a_port_is_a_number_or_a_range(value: Any, expected: tuple[int, int]) -> None:
    assert parse_ports("here", value) == expected


@pytest.mark.parametrize("value", [0, 65536, "8010-8000", "-1", "http", "", None, True, 1.5])
def test_anything_else_is_no_port(value: Any) -> None:
    with pytest.raises(RulesetError, match="here: port must be"):
        parse_ports("here", value)


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        ([], []),
        (["192.0.2.1"], ["ip saddr { 192.0.2.1/32 }"]),
        (["2001:db8::/32", "192.0.2.0/24"], ["ip saddr { 192.0.2.0/24 }", "ip6 saddr { 2001:db8::/32 }"]),
        (["10.0.0.0/8", "10.1.0.0/16"], ["ip saddr { 10.0.0.0/8 }"]),
        (["10.0.0.0/9", "10.128.0.0/9"], ["ip saddr { 10.0.0.0/8 }"]),
        (["0.0.0.0/0"], ["meta nfproto ipv4"]),
        (["::/0", "2001:db8::/32"], ["meta nfproto ipv6"]),
    ],
)
def test_networks_become_one_match_for_each_family(networks: list[str], expected: list[str]) -> None:
    assert address_matches("saddr", parse_networks("here", networks)) == expected


def test_only_the_own_table_is_replaced_and_nothing_is_flushed() -> None:
    lines = rendered()
    assert [line for line in lines if line.startswith(("table", "delete", "flush", "add"))] == [
        "table inet bedplate",
        "delete table inet bedplate",
        "table inet bedplate {",
    ]


@pytest.mark.parametrize("hook", ["input", "output"])
def test_both_directions_drop_by_default(hook: str) -> None:
    assert chain(rendered(), hook)[0] == f"type filter hook {hook} priority filter; policy drop;"


def test_ssh_is_open_for_the_operators_alone() -> None:
    rules = chain(rendered(operator_networks=["192.0.2.0/24", "2001:db8::/64"], ssh_port=2222), "input")
    assert [rule for rule in rules if "2222" in rule] == [
        'ip saddr { 192.0.2.0/24 } tcp dport 2222 counter accept comment "ssh"',
        'ip6 saddr { 2001:db8::/64 } tcp dport 2222 counter accept comment "ssh"',
    ]
    assert not [rule for rule in rules if "dport 22 " in rule]


def test_a_declared_service_is_open_for_its_networks_in_both_families() -> None:
    services = {"gateway_firewall_services": [entry(networks=["198.51.100.0/24", "2001:db8::/64"])]}
    rules = [rule for rule in chain(rendered(services=services), "input") if '"gateway"' in rule]
    assert rules == [
        'ip saddr { 198.51.100.0/24 } tcp dport 8443 counter accept comment "gateway"',
        'ip6 saddr { 2001:db8::/64 } tcp dport 8443 counter accept comment "gateway"',
    ]


def test_a_service_without_networks_opens_nothing() -> None:
    services = {"gateway_firewall_services": [entry(networks=[])]}
    assert rendered(services=services) == rendered()


def test_declared_egress_is_let_out_and_not_in() -> None:
    lines = rendered(egress={"mirror_firewall_egress": [entry(name="mirror", port=443)]})
    rule = 'ip daddr { 198.51.100.0/24 } tcp dport 443 counter accept comment "mirror"'
    assert rule in chain(lines, "output")
    assert not [line for line in chain(lines, "input") if "443" in line]


def test_no_server_is_asked_for_names_or_the_time_unless_declared() -> None:
    assert not [line for line in rendered() if "dport 53" in line or "dport 123" in line]
    output = chain(rendered(dns_servers=["192.0.2.53"], ntp_servers=["2001:db8::7b"]), "output")
    assert [line for line in output if '"dns' in line or '"ntp"' in line] == [
        'ip daddr { 192.0.2.53/32 } udp dport 53 counter accept comment "dns"',
        'ip daddr { 192.0.2.53/32 } tcp dport 53 counter accept comment "dns-tcp"',
        'ip6 daddr { 2001:db8::7b/128 } udp dport 123 counter accept comment "ntp"',
    ]


def test_a_denied_user_is_refused_before_any_rule_but_loopback_could_let_it_out() -> None:
    output = chain(rendered(denied_users=["bedplate-vllm"]), "output")
    assert output[1:3] == ['oifname "lo" accept', "meta skuid { bedplate-vllm } goto refuse_out"]


@pytest.mark.parametrize("name", ["input", "output"])
@pytest.mark.parametrize("message", ["nd-neighbor-solicit", "nd-neighbor-advert", "packet-too-big"])
def test_ipv6_keeps_working(name: str, message: str) -> None:
    accepting = [rule for rule in chain(rendered(), name) if message in rule and rule.endswith(" accept")]
    assert accepting
    assert all("hoplimit 255" in rule for rule in accepting if "nd-" in message)


def test_dhcp_passes_unless_the_host_has_a_fixed_address() -> None:
    assert [line for line in rendered() if "dhcp" in line]
    assert not [line for line in rendered(dhcp_client=False) if "dhcp" in line]


def test_nothing_is_said_about_forwarding_unless_asked() -> None:
    assert "chain forward {" not in rendered()
    forward = chain(rendered(forward_policy="drop"), "forward")
    assert forward == ["type filter hook forward priority filter; policy drop;"]


def test_drops_are_logged_at_a_limited_rate_or_not_at_all() -> None:
    assert (
        len([line for line in rendered(log_per_minute=12) if "limit rate 12/minute" in line and " log " in line]) == 2
    )
    assert not [line for line in rendered(log_per_minute=0) if " log " in line]


def test_a_roll_back_finds_open_sessions_alive() -> None:
    """Resetting anything but an attempt to connect would end the very session that waits for the roll-back."""
    resets = [line for line in rendered() if "tcp reset" in line]
    assert resets == ["tcp flags & (fin | syn | rst | ack) == syn reject with tcp reset"]


def test_the_same_declarations_give_the_same_script_in_any_order() -> None:
    one = {"operator_networks": ["192.0.2.0/24", "2001:db8::/64"], "denied_users": ["a", "b"]}
    other = {"denied_users": ["b", "a", "b"], "operator_networks": ["2001:db8::/64", "192.0.2.0/24"]}
    assert render(parse_policy(one)) == render(parse_policy(other))


def test_the_filter_hands_the_sentence_to_the_user() -> None:
    assert nft_ruleset(OPERATOR) == render(parse_policy(OPERATOR))
    with pytest.raises(AnsibleFilterError, match="firewall_operator_networks is empty"):
        nft_ruleset({"operator_networks": []})
