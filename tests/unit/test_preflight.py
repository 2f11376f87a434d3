"""What a host must have before anything is changed on it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.preflight import (
    DemandError,
    Demands,
    Facts,
    Listener,
    Space,
    at_least,
    checks,
    parse_disk_minimums,
    parse_memory,
    parse_os_release,
    parse_ports,
    parse_sockets,
    system_supported,
)

SUPPORTED = ("debian 12", "ubuntu 24.04", "rhel 9")
DATA = "/var/lib/bedplate"

FACTS = Facts(
    os_release={"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian 12"},
    architecture="x86_64",
    kernel="6.1.0-18-amd64",
    python="3.11.2",
    systemd_version="252",
    systemd_running=True,
    root=True,
    memory_bytes=4 * 1024**3,
    container="",
    clock_error=0.5,
    clock_offset=0.2,
    spaces=(Space(DATA, "/", 10**10, False),),
)
DEMANDS = Demands(
    supported_systems=SUPPORTED,
    architectures=("x86_64",),
    kernel_minimum="5.14",
    python_minimum="3.9",
    systemd_minimum="249",
    memory_minimum_mb=2048,
    disk_minimums=((DATA, 8.0, 1.0),),
    ports=(("gateway", "tcp", 8443, 8443), ("many", "udp", 100, 200)),
    names=("idp.example",),
    clock_skew_seconds=30,
    clock_synchronised=True,
)


def failing(facts: Facts, demands: Demands = DEMANDS) -> list[str]:
    return [check.id for check in checks(facts, demands) if not check.ok]


def test_a_good_host_passes_every_check() -> None:
    report = checks(FACTS, DEMANDS)
    assert failing(FACTS) == []
    assert len({check.id for check in report}) == len(report)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"os_release": {}}, "preflight.system"),
        ({"architecture": "aarch64"}, "preflight.architecture"),
        ({"kernel": "5.10.0"}, "preflight.kernel"),
        ({"kernel": ""}, "preflight.kernel"),
        ({"systemd_running": False}, "preflight.init"),
        ({"systemd_version": "247"}, "preflight.init"),
        ({"systemd_version": ""}, "preflight.init"),
        ({"python": "3.8.10"}, "preflight.python"),
        ({"root": False}, "preflight.root"),
        ({"memory_bytes": 2047 * 1024**2}, "preflight.memory"),
        ({"spaces": (Space(DATA, "/", 7 * 10**9, False),)}, "preflight.disk-var-lib-bedplate"),
        ({"spaces": (Space(DATA, "/", 10**8, True),)}, "preflight.disk-var-lib-bedplate"),
        ({"clock_offset": 31.0}, "preflight.clock"),
        ({"clock_offset": -31.0}, "preflight.clock"),
        ({"clock_error": 16.0}, "preflight.clock-synchronised"),
        ({"clock_error": None}, "preflight.clock-synchronised"),
        ({"unresolved": {"idp.example": "Name or service not known"}}, "preflight.name-idp.example"),
        ({"listeners": (Listener("tcp", 8443, "nginx", "nginx.service"),)}, "preflight.port-gateway"),
        ({"listeners": (Listener("udp", 150),)}, "preflight.port-many"),
    ],
)
def test_what_is_missing_fails_its_check_and_no_other(changes: dict[str, Any], expected: str) -> None:
    facts = dataclasses.replace(FACTS, **changes)
    assert failing(facts) == [expected]
    (broken,) = [check for check in checks(facts, DEMANDS) if not check.ok]
    assert broken.reason.endswith(".")
    assert broken.remedy.endswith(".")


def test_all_failures_are_told_at_once() -> None:
    facts = dataclasses.replace(FACTS, architecture="riscv64", kernel="4.4", memory_bytes=0)
    assert failing(facts) == ["preflight.architecture", "preflight.kernel", "preflight.memory"]


@pytest.mark.parametrize(
    "changes",
    [
        # A container has its machine's clock and cannot follow a time source by itself.
        {"container": "systemd-nspawn", "clock_error": 16.0},
        # What was demanded for the installation has been used by it.
        {"spaces": (Space(DATA, "/", 2 * 10**9, True),)},
        # Our own services may go on holding their ports.
        {"listeners": (Listener("tcp", 8443, "envoy", "bedplate-gateway.service"),)},
        # Other ports, and the same number in the other protocol, are nobody's business.
        {"listeners": (Listener("udp", 8443, "x"), Listener("tcp", 150, "x"), Listener("tcp", 80, "nginx"))},
        {"kernel": "5.14"},
        {"clock_offset": -30.0},
    ],
)
def test_what_is_good_enough_passes(changes: dict[str, Any]) -> None:
    assert failing(dataclasses.replace(FACTS, **changes)) == []


def test_synchronisation_is_not_asked_where_the_site_does_not_want_it() -> None:
    demands = dataclasses.replace(DEMANDS, clock_synchronised=False)
    assert failing(dataclasses.replace(FACTS, clock_error=None), demands) == []


def test_the_holder_of_a_port_is_named() -> None:
    facts = dataclasses.replace(FACTS, listeners=(Listener("tcp", 8443, "nginx", "nginx.service"),))
    (check,) = [check for check in checks(facts, DEMANDS) if not check.ok]
    assert "8443 by nginx of nginx.service" in check.reason


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ({"ID": "debian", "VERSION_ID": "12"}, True),
        ({"ID": "debian", "VERSION_ID": "11"}, False),
        ({"ID": "debian"}, False),
        ({"ID": "ubuntu", "VERSION_ID": "24.04", "ID_LIKE": "debian"}, True),
        ({"ID": "ubuntu", "VERSION_ID": "23.10", "ID_LIKE": "debian"}, False),
        ({"ID": "rhel", "VERSION_ID": "9.4", "ID_LIKE": "fedora"}, True),
        ({"ID": "rocky", "VERSION_ID": "9.4", "ID_LIKE": "rhel centos fedora"}, True),
        ({"ID": "rocky", "VERSION_ID": "8.9", "ID_LIKE": "rhel centos fedora"}, False),
        ({"ID": "mint", "VERSION_ID": "12", "ID_LIKE": "debian"}, False),
        ({"ID": "fedora", "VERSION_ID": "9"}, False),
    ],
)
def test_systems_are_matched_by_name_and_version(release: dict[str, str], expected: bool) -> None:
    assert system_supported(release, SUPPORTED) is expected


@pytest.mark.parametrize(
    ("found", "minimum", "expected"),
    [
        ("6.1.0-18-amd64", "5.14", True),
        ("5.14", "5.14.0", True),
        ("5.4.0", "5.14", False),
        ("10", "9", True),
        ("249.11-0ubuntu3", "249", True),
        ("unknown", "1", False),
        ("", "1", False),
    ],
)
def test_versions_are_compared_as_numbers(found: str, minimum: str, expected: bool) -> None:
    assert at_least(found, minimum) is expected


def test_os_release_is_read_with_and_without_quotes() -> None:
    text = "# comment\nID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='Debian 12'\n\n"
    assert parse_os_release(text) == {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian 12"}


TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:20FB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1
   1: 0B00570A:0016 0100570A:C234 01 00000000:00000000 00:00000000 00000000     0        0 12346 1
"""
UDP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when ...
   0: 00000000000000000000000000000000:0222 00000000000000000000000000000000:0000 07 0:0 00:0 0 0 0 777 2
"""


def test_only_sockets_that_hold_a_port_are_seen() -> None:
    assert parse_sockets("tcp", TCP) == [(8443, "12345")]
    assert parse_sockets("udp", UDP6) == [(546, "777")]
    assert parse_sockets("tcp", "") == []


@pytest.mark.parametrize(("limit", "expected"), [("max\n", 2048000), ("", 2048000), ("1000000\n", 1000000)])
def test_a_container_has_no_more_memory_than_its_limit(limit: str, expected: int) -> None:
    assert parse_memory("MemTotal:        2000 kB\nMemFree: 1 kB\n", limit) == expected


def test_ports_come_from_what_the_roles_declare() -> None:
    declared = {"a_firewall_services": [{"name": "a", "port": "1-9", "protocol": "udp"}], "b_firewall_services": []}
    assert parse_ports(declared) == (("a", "udp", 1, 9),)


@pytest.mark.parametrize("entry", [{"name": "a"}, {"port": "x", "protocol": "tcp"}, {"port": 1, "protocol": "sctp"}])
def test_a_declaration_that_cannot_be_read_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(DemandError, match="a_firewall_services: every entry needs a port"):
        parse_ports({"a_firewall_services": [entry]})


@pytest.mark.parametrize(
    "value",
    [
        {"path": "var", "free_gb": 1, "reserve_gb": 0},
        {"path": "/var", "free_gb": 1, "reserve_gb": 2},
        {"path": "/var", "free_gb": 1, "reserve_gb": -1},
    ],
)
def test_a_demand_for_room_must_make_sense(value: dict[str, Any]) -> None:
    with pytest.raises(DemandError, match="preflight_disk_minimums"):
        parse_disk_minimums([value])
