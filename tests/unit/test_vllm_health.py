"""The engine's checks: each one must be able to fail, with the reason that a person needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_health import (
    Expected,
    Listener,
    Observed,
    evaluate,
    parse_exposure,
    parse_interfaces,
    parse_listeners,
)

WANTED = Expected(
    release="abc",
    arguments=("/e/bin/vllm", "serve", "/m", "--seed", "1"),
    environment={"HF_HUB_OFFLINE": "1", "VLLM_PLUGINS": ""},
    served_model_name="r1",
    device="cpu",
    user="bedplate-vllm",
    group="bedplate-vllm",
    private_network=True,
    recorded_flags={"--seed": {"takes": "one"}},
)
SEEN = Observed(
    active_state="active",
    unit_file_state="enabled",
    main_pid=7,
    running_release="abc",
    arguments=("/e/bin/python", "/e/bin/vllm", "serve", "/m", "--seed", "1"),
    environment={"HF_HUB_OFFLINE": "1", "VLLM_PLUGINS": "", "PATH": "/bin"},
    socket_mode=0o660,
    socket_owner="bedplate-vllm:bedplate-vllm",
    directory_mode=0o750,
    interfaces=("lo",),
    listeners=(Listener("127.0.0.1", 29500),),
    models=("r1",),
    generated_tokens=1,
    version="0.32.0+cpu",
    exposure=1.1,
    endpoint_published=True,
    installed_flags={"--seed": {"takes": "one"}},
)


def failing(seen: Observed, wanted: Expected = WANTED) -> dict[str, str]:
    return {check.id: check.reason for check in evaluate(seen, wanted) if not check.ok}


def test_an_engine_that_serves_as_configured_passes_every_check() -> None:
    assert failing(SEEN) == {}


@pytest.mark.parametrize(
    ("change", "check", "reason"),
    [
        ({"active_state": "activating"}, "vllm.service-active", "is activating and enabled"),
        ({"unit_file_state": "disabled"}, "vllm.service-active", "is active and disabled"),
        ({"running_release": "old"}, "vllm.release-current", "serves release old, configured is abc"),
        ({"needs_reload": True}, "vllm.release-current", "serves release abc"),
        ({"arguments": ("vllm", "serve", "/m", "--seed", "2")}, "vllm.arguments", "missing ['1'], not expected ['2']"),
        ({"arguments": ("vllm", "serve", "/m", "1", "--seed")}, "vllm.arguments", "in another order"),
        ({"arguments": ()}, "vllm.arguments", "missing ['serve'"),
        ({"environment": {"VLLM_PLUGINS": ""}}, "vllm.environment", "not as configured ['HF_HUB_OFFLINE']"),
        (
            {"environment": {**SEEN.environment, "PYTHONOPTIMIZE": "1"}},
            "vllm.environment",
            "refused but set ['PYTHONOPTIMIZE']",
        ),
        ({"environment": {}, "errors": {"process": "gone"}}, "vllm.environment", "cannot be read: gone"),
        ({"socket_mode": 0o777}, "vllm.socket-permissions", "0777 in a directory 0750"),
        ({"socket_owner": "root:root"}, "vllm.socket-permissions", "is root:root 0660"),
        ({"directory_mode": 0o755}, "vllm.socket-permissions", "in a directory 0755"),
        ({"socket_mode": None, "errors": {"socket": "no file"}}, "vllm.socket-permissions", "not there: no file"),
        ({"interfaces": ("eth0", "lo")}, "vllm.no-network", "sees the network interfaces eth0, lo"),
        ({"models": ("other",)}, "vllm.model-listed", "lists other."),
        ({"models": (), "errors": {"api": "refused"}}, "vllm.model-listed", "lists no model (refused)."),
        ({"generated_tokens": 0}, "vllm.generates", "generated 0"),
        ({"endpoint_published": False}, "vllm.in-gateway", "not announced to the gateway"),
        ({"version": "0.31.0"}, "vllm.version-floor", "older than 0.32.0"),
        ({"version": ""}, "vllm.version-floor", "does not tell its version"),
        ({"exposure": 3.1}, "vllm.hardening", "exposure 3.1; the limit is 3.0"),
        ({"exposure": None, "errors": {"exposure": "no tool"}}, "vllm.hardening", "unknown (no tool)"),
        ({"installed_flags": {}}, "vllm.flags-recorded", "differs from the recorded one in --seed."),
        ({"installed_flags": None}, "vllm.flags-recorded", "flags.json is missing"),
    ],
)
def test_a_difference_fails_its_own_check_and_no_other(change: dict[str, Any], check: str, reason: str) -> None:
    found = failing(replace(SEEN, **change))
    assert list(found) == [check]
    assert reason in found[check]


def test_every_check_fails_when_nothing_is_there() -> None:
    assert len(failing(Observed())) == len(evaluate(Observed(), WANTED))


def test_every_failing_check_says_what_to_do() -> None:
    assert [check.id for check in evaluate(Observed(), WANTED) if not check.remedy] == []


@pytest.mark.parametrize(
    ("address", "private", "reachable"),
    [
        ("0.0.0.0", False, True),
        ("10.0.0.1", False, True),
        ("::", False, True),
        ("127.0.0.1", False, False),
        ("::1", False, False),
        # Alone in its network namespace, nothing can reach it whatever it is bound to.
        ("0.0.0.0", True, False),
    ],
)
def test_a_listener_counts_when_it_can_be_reached(address: str, private: bool, reachable: bool) -> None:
    seen = replace(SEEN, listeners=(Listener(address, 80),), interfaces=("lo",) if private else ("eth0", "lo"))
    found = failing(seen, replace(WANTED, private_network=False))
    assert ("vllm.no-listener" in found) is reachable


def test_flags_are_not_compared_where_none_are_recorded() -> None:
    checks = evaluate(replace(SEEN, installed_flags={}), replace(WANTED, recorded_flags=None))
    assert "vllm.flags-recorded" not in {check.id for check in checks}


TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:7351 00000000:0000 0A 00000000:00000000 00:00000000 00000000   998        0 1 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0B00570A:D2A0 0100570A:0016 01 00000000:00000000 00:00000000 00000000   998        0 3 1 0 100 0 0 10 0
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue ...
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0   998 0 1
   1: D0B387FD000000000000000011000000:1F90 00000000000000000000000000000000:0000 0A 00:00 00:0 0   998 0 1
"""


def test_listeners_are_those_of_the_user_only() -> None:
    assert parse_listeners(TCP, 998) == [Listener("127.0.0.1", 29521)]
    assert parse_listeners(TCP, 0) == [Listener("0.0.0.0", 22)]


def test_ipv6_listeners_are_decoded() -> None:
    assert [listener.address for listener in parse_listeners(TCP6, 998)] == ["::1", "fd87:b3d0::11"]


def test_interfaces_and_exposure_are_parsed() -> None:
    table = "Inter-|   Receive\n face |bytes\n    lo: 1 2\n  eth0: 3 4\n"
    assert parse_interfaces(table) == ["eth0", "lo"]
    assert parse_exposure("x\n→ Overall exposure level for bedplate-vllm.service: 1.3 OK 🙂\n") == 1.3
    assert parse_exposure("nothing") is None
