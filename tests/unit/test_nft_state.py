"""What a host's firewall is found to be, and what is said about it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.nft_state import (
    FILE,
    Peer,
    State,
    boot_unit,
    checks,
    normalise,
    open_hooks,
    parse_peer,
    port_forwarders,
    rollback_script,
    tables_of,
    would_cut,
)

RULESET = "table inet bedplate { }\n"
NFT = "/usr/sbin/nft"


def table(**changes: Any) -> dict[str, Any]:
    return {"table": {"family": "inet", "name": "bedplate", "handle": 1, **changes}}


def base_chain(hook: str, policy: str = "drop") -> dict[str, Any]:
    return {"chain": {"table": "bedplate", "name": hook, "handle": 2, "hook": hook, "policy": policy}}


def rule(chain: str, handle: int, *expr: Any) -> dict[str, Any]:
    return {"rule": {"table": "bedplate", "chain": chain, "handle": handle, "expr": list(expr)}}


def listing(*items: dict[str, Any]) -> str:
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *items]})


BOTH = (table(), base_chain("input"), base_chain("output"))
LIVE = tuple(normalise(listing(*BOTH)))
GOOD = State(NFT, (), LIVE, LIVE, RULESET, boot_unit(NFT), enabled=True, active=True)


def test_handles_and_counters_say_nothing_about_the_rules() -> None:
    one = listing(table(handle=1), rule("input", 5, {"counter": {"packets": 0, "bytes": 0}}, {"accept": None}))
    other = listing(table(handle=9), rule("input", 8, {"counter": {"packets": 7, "bytes": 99}}, {"accept": None}))
    assert normalise(one) == normalise(other)


def test_the_order_inside_a_set_says_nothing() -> None:
    def accept(values: list[Any]) -> str:
        return listing(rule("input", 1, {"match": {"right": {"set": values}}}))

    assert normalise(accept(["a", {"range": [1, 2]}])) == normalise(accept([{"range": [1, 2]}, "a"]))
    assert normalise(accept(["a"])) != normalise(accept(["b"]))


def test_the_order_of_rules_in_a_chain_matters() -> None:
    first, second = rule("input", 1, {"accept": None}), rule("input", 2, {"drop": None})
    assert normalise(listing(first, second)) != normalise(listing(second, first))


@pytest.mark.parametrize(
    "changed",
    [
        (table(), base_chain("input", "accept"), base_chain("output")),
        (*BOTH, rule("input", 3, {"accept": None})),
        (table(), base_chain("input")),
        (table(flags=["dormant"]), base_chain("input"), base_chain("output")),
    ],
)
def test_a_change_of_the_rules_is_seen(changed: tuple[dict[str, Any], ...]) -> None:
    assert tuple(normalise(listing(*changed))) != LIVE


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (BOTH, []),
        ((table(), base_chain("input")), ["output"]),
        ((table(), base_chain("input", "accept"), base_chain("output")), ["input"]),
        ((table(flags=["dormant"]), base_chain("input"), base_chain("output")), ["input", "output"]),
        ((), ["input", "output"]),
    ],
)
def test_hooks_that_do_not_drop_are_named(items: tuple[dict[str, Any], ...], expected: list[str]) -> None:
    assert open_hooks(normalise(listing(*items))) == expected


def test_tables_are_listed_with_their_family() -> None:
    assert tables_of(listing(table(), {"table": {"family": "ip", "name": "nat"}})) == [
        ("inet", "bedplate"),
        ("ip", "nat"),
    ]


DOCKER = """\
table ip nat {
\tchain DOCKER {
\t\tiifname != "docker0" tcp dport 8080 counter dnat to 172.17.0.2:80
\t}
}
"""


@pytest.mark.parametrize(
    ("ruleset", "expected"),
    [
        ("", []),
        ("table inet filter {\n\tchain input { accept }\n}\n", []),
        (DOCKER, ["ip nat"]),
        (DOCKER.replace("dnat to 172.17.0.2:80", 'xt target "DNAT"'), ["ip nat"]),
        (DOCKER.replace("dnat to 172.17.0.2:80", "redirect to :3128"), ["ip nat"]),
        (DOCKER.replace("table ip nat", "table inet bedplate"), []),
    ],
)
def test_tables_that_publish_ports_are_named(ruleset: str, expected: list[str]) -> None:
    assert port_forwarders(ruleset) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.9 51234 192.0.2.1 22", Peer("192.0.2.9", 51234, 22)),
        ("fe80::1%eth0 51234 fe80::2%eth0 2222", Peer("fe80::1", 51234, 2222)),
        ("", None),
        ("192.0.2.9 51234 22", None),
        ("192.0.2.9 x 192.0.2.1 22", None),
    ],
)
def test_the_peer_is_read_from_what_sshd_says(text: str, expected: Peer | None) -> None:
    assert parse_peer(text) == expected


@pytest.mark.parametrize(
    ("peer", "networks", "ssh_port", "words"),
    [
        (Peer("192.0.2.9", 1, 22), ["192.0.2.0/24"], 22, ""),
        (Peer("::ffff:192.0.2.9", 1, 22), ["192.0.2.0/24"], 22, ""),
        (Peer("2001:db8::9", 1, 22), ["192.0.2.0/24", "2001:db8::/64"], 22, ""),
        (Peer("198.51.100.9", 1, 22), ["192.0.2.0/24"], 22, "you are connected from 198.51.100.9"),
        (Peer("2001:db8::9", 1, 22), ["0.0.0.0/0"], 22, "you are connected from 2001:db8::9"),
        (Peer("192.0.2.9", 1, 2222), ["192.0.2.0/24"], 22, "set firewall_ssh_port to 2222"),
        (None, ["192.0.2.0/24"], 22, ""),
        (Peer("198.51.100.9", 1, 22), [], 22, ""),
    ],
)
def test_rules_that_would_cut_the_own_connection_are_recognised(
    peer: Peer | None, networks: list[str], ssh_port: int, words: str
) -> None:
    reason = would_cut(peer, networks, ssh_port)
    assert words in reason
    assert bool(reason) == bool(words)


def test_the_way_back_restores_the_former_table_or_its_absence() -> None:
    removal = "table inet bedplate\ndelete table inet bedplate\n"
    assert rollback_script(None) == removal
    assert rollback_script("table inet bedplate { }\n") == removal + "table inet bedplate { }\n"


def test_the_boot_unit_comes_before_the_network_and_after_who_flushes() -> None:
    lines = boot_unit(NFT).splitlines()
    for line in ("Before=network-pre.target shutdown.target", "Wants=network-pre.target", "PartOf=nftables.service"):
        assert line in lines
    assert any(line.startswith("After=nftables.service") for line in lines)
    assert f"ExecStart={NFT} -f {FILE}" in lines


def test_a_settled_host_passes_every_check() -> None:
    assert GOOD.settled(RULESET)
    report = checks(GOOD, RULESET, "", False)
    assert [check.id for check in report if not check.ok] == []
    assert len({check.id for check in report}) == len(report) == 7


OPEN = tuple(normalise(listing(table(), base_chain("input", "accept"), base_chain("output"))))


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"nft": None}, ["firewall.nft-installed"]),
        ({"live": None}, ["firewall.rules-in-force", "firewall.default-deny"]),
        ({"live": OPEN}, ["firewall.rules-in-force", "firewall.default-deny"]),
        ({"wanted": None, "missing_users": ("bedplate-vllm",)}, ["firewall.rules-in-force"]),
        ({"stored": None}, ["firewall.survives-reboot"]),
        ({"stored": "table inet other { }\n"}, ["firewall.survives-reboot"]),
        ({"stored_unit": "[Unit]\n"}, ["firewall.survives-reboot"]),
        ({"enabled": False}, ["firewall.survives-reboot"]),
        ({"active": False}, ["firewall.survives-reboot"]),
        ({"pending": True}, ["firewall.no-change-pending"]),
        ({"forwarders": ("ip nat",)}, ["firewall.no-published-ports"]),
        ({"others": ("ufw.service",)}, []),
    ],
)
def test_what_is_wrong_fails_its_check_and_no_other(changes: dict[str, Any], failing: list[str]) -> None:
    state = dataclasses.replace(GOOD, **changes)
    broken = [check for check in checks(state, RULESET, "", False) if not check.ok]
    assert [check.id for check in broken] == failing
    assert all(check.reason.endswith(".") and check.remedy for check in broken)
    assert state.settled(RULESET) == (not failing or failing == ["firewall.no-published-ports"])


def test_forwarded_ports_may_be_allowed() -> None:
    state = dataclasses.replace(GOOD, forwarders=("ip nat",))
    (check,) = [check for check in checks(state, RULESET, "", True) if check.id == "firewall.no-published-ports"]
    assert check.ok
    assert "ip nat" in check.reason


def test_a_lockout_is_a_failing_check_of_its_own() -> None:
    (check,) = [check for check in checks(GOOD, RULESET, "you are elsewhere", False) if not check.ok]
    assert check.id == "firewall.operator-admitted"
    assert "you are elsewhere" in check.reason


@pytest.mark.parametrize(
    ("state", "gone"),
    [
        (State(NFT), True),
        (State(None), True),
        (State(NFT, live=LIVE), False),
        (State(NFT, stored=RULESET), False),
        (State(NFT, stored_unit="x"), False),
        (State(NFT, enabled=True), False),
        (State(NFT, pending=True), False),
    ],
)
def test_removal_is_done_when_nothing_of_ours_is_left(state: State, gone: bool) -> None:
    assert state.gone is gone
