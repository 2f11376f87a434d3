"""What forbids a reboot: who is named, and who does not count."""

from __future__ import annotations

import json

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_holders import Found, Holder
from ansible_collections.bedplate.llm.plugins.module_utils.reboot_policy import (
    Inhibitor,
    Session,
    holder_check,
    inhibitor_check,
    others,
    own_scope,
    parse_inhibitors,
    parse_sessions,
    session_check,
)

OURS = Session("session-7.scope", "ops", "pts/0", "10.0.0.5", "Wed 08:00")
SAME_PERSON = Session("session-8.scope", "ops", "pts/1", "10.0.0.5", "Wed 08:10")
COLLEAGUE = Session("session-9.scope", "ops", "pts/2", "10.0.0.6", "Wed 09:00")
CONSOLE = Session("session-1.scope", "root", "tty1", "", "Tue 07:00")


def block(**changed: str) -> str:
    shown = {
        "Id": "9",
        "Name": "ops",
        "TTY": "pts/2",
        "Class": "user",
        "State": "active",
        "RemoteHost": "10.0.0.6",
        "Scope": "session-9.scope",
        "Timestamp": "Wed 09:00",
    }
    return "\n".join(f"{name}={value}" for name, value in {**shown, **changed}.items())


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ({}, True),
        ({"Class": "user-early"}, True),
        ({"State": "online"}, True),
        ({"TTY": ""}, False),  # a transfer, a run of Ansible
        ({"State": "closing"}, False),
        ({"Class": "greeter"}, False),
        ({"Class": "manager", "TTY": "x"}, False),
    ],
)
def test_people_at_work_are_sessions_with_a_terminal(changed, counts):
    assert parse_sessions(block(**changed)) == ((COLLEAGUE,) if counts else ())


def test_several_sessions_are_told_apart():
    text = "\n\n".join([block(), block(Name="root", TTY="tty1", RemoteHost="", Scope="session-1.scope")])
    assert [session.user for session in parse_sessions(text)] == ["ops", "root"]
    assert parse_sessions("") == ()


@pytest.mark.parametrize(
    ("sessions", "own", "left"),
    [
        ((OURS, SAME_PERSON, COLLEAGUE, CONSOLE), "session-7.scope", (COLLEAGUE, CONSOLE)),
        ((OURS,), "session-7.scope", ()),
        # Our own connection has no terminal, so it is not in the list; everybody who is has one.
        ((COLLEAGUE,), "session-3.scope", (COLLEAGUE,)),
        ((COLLEAGUE,), "", (COLLEAGUE,)),
        ((Session("", "ops", "pts/2", "10.0.0.6", "x"),), "", (Session("", "ops", "pts/2", "10.0.0.6", "x"),)),
    ],
)
def test_the_operators_own_sessions_do_not_count(sessions, own, left):
    assert others(sessions, own) == left


@pytest.mark.parametrize(
    ("cgroup", "scope"),
    [
        ("0::/user.slice/user-1000.slice/session-7.scope\n", "session-7.scope"),
        ("1:name=systemd:/user.slice/user-0.slice/session-c2.scope\n0::/\n", "session-c2.scope"),
        ("0::/system.slice/ssh.service\n", ""),
        ("", ""),
    ],
)
def test_our_own_session_is_the_scope_that_we_run_in(cgroup, scope):
    assert own_scope(cgroup) == scope


@pytest.mark.parametrize(
    ("found", "problem", "allowed", "ok", "words"),
    [
        ((), "", False, True, "Nobody else"),
        ((COLLEAGUE,), "", False, False, "ops on pts/2 from 10.0.0.6 since Wed 09:00"),
        ((CONSOLE,), "", False, False, "root on tty1 since Tue 07:00"),
        ((COLLEAGUE,), "", True, True, "reboot_sessions_allowed permits it"),
        ((), "logind is gone", False, False, "not known who is at work: logind is gone"),
        ((), "logind is gone", True, True, "permits it"),
    ],
)
def test_who_is_at_work_is_named_unless_that_is_permitted(found, problem, allowed, ok, words):
    check = session_check(found, problem, allowed)
    assert check.ok is ok
    assert words in check.reason
    assert bool(check.remedy) is not ok


def reply(*locks: tuple[str, str, str, str, int, int]) -> str:
    return json.dumps({"type": "a(ssssuu)", "data": [list(map(list, locks))]})


@pytest.mark.parametrize(
    ("lock", "forbids"),
    [
        (("shutdown:sleep", "apt", "Installing", "block", 0, 91), True),
        (("shutdown", "dnf", "", "block-weak", 0, 91), True),
        (("shutdown", "unattended-upgrades", "Stop ongoing", "delay", 0, 91), False),
        (("sleep", "NetworkManager", "", "block", 0, 91), False),
        (("handle-power-key", "GNOME", "", "block", 0, 91), False),
    ],
)
def test_only_a_lock_that_blocks_a_shutdown_forbids_one(lock, forbids):
    found = parse_inhibitors(reply(lock))
    assert found == ((Inhibitor(lock[1], lock[2], 91),) if forbids else ())
    assert inhibitor_check(found, "").ok is not forbids


def test_a_lock_is_named_with_who_holds_it_and_no_answer_is_not_a_no():
    said = inhibitor_check(parse_inhibitors(reply(("shutdown", "apt", "Installing", "block", 0, 91))), "").reason
    assert said == "A lock forbids to shut the host down: apt (process 91): Installing."
    assert not inhibitor_check((), "busctl says no").ok
    assert parse_inhibitors(reply()) == ()


ENGINE = Holder(10, "vllm serve", "bedplate-vllm.service", ("/dev/nvidia0",))
TRAINING = Holder(20, "python3 train.py", "session-9.scope", ("/dev/nvidia1",))
NAMELESS = Holder(30, "a", "", ("/dev/nvidia1",))


@pytest.mark.parametrize(
    ("found", "ok", "words"),
    [
        (Found(()), True, "No other process"),
        (Found((ENGINE,)), True, "No other process"),
        (Found((ENGINE, TRAINING)), False, "process 20 (python3 train.py) of session-9.scope with /dev/nvidia1"),
        (Found((NAMELESS,)), False, "process 30"),
        (Found((ENGINE,), (5, 6)), False, "processes 5, 6 cannot be looked at"),
    ],
)
def test_every_holder_that_is_not_excused_is_named(found, ok, words):
    check = holder_check(found, ["bedplate-vllm.service"])
    assert check.ok is ok
    assert words in check.reason


def test_a_drained_service_that_still_holds_a_gpu_is_not_excused():
    assert not holder_check(Found((ENGINE,)), ["nvidia-persistenced.service"]).ok
