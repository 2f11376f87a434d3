"""One machine after the other: who is touched, who goes on serving, and where a run goes on that was cut off.

The tests follow each other: each one finds the machines as the one before it left them.
"""

from __future__ import annotations

import os
import signal
import subprocess
from itertools import combinations

from conftest import LAB, provision_argv
from scenario import PROJECT, argv, said, wait_until

from bedplate import processes

REFUSE = "/etc/stand-in/refuse"


def test_after_the_first_run_all_serve_with_what_was_asked_for(machines):
    for machine in machines:
        seen = machine.look()
        assert (seen.version, seen.loaded, seen.serves) == ("1", "1", True)


def test_a_wrong_variable_is_named_before_anything_is_touched(machines):
    before = [machine.look() for machine in machines]
    done = LAB.run(provision_argv(stand_in_version="2", reboot_timeout=5))
    assert done.returncode != 0
    assert "reboot_timeout: give the next boot 60 seconds or more, found 5." in said(done)
    assert [machine.look() for machine in machines] == before


def test_the_first_machine_that_fails_ends_the_run_and_serves_again(machines):
    first, second, third = machines
    second.do(f"sudo touch {REFUSE}")
    before = [machine.look() for machine in machines]
    done = LAB.run(provision_argv(stand_in_version="2"))
    second.do(f"sudo rm {REFUSE}")
    assert done.returncode != 0
    assert "Fail where a test wants that" in said(done)
    assert (first.look().loaded, first.look().serves) == ("2", True)
    seen = second.look()
    assert (seen.version, seen.serves) == ("1", True)
    assert seen.engine != before[1].engine, "it was drained, and came back"
    assert third.look() == before[2], "it comes after the one that failed, so nothing may have happened to it"


def test_a_run_that_was_killed_is_completed_by_the_next_one(machines):
    first, second, third = machines
    before = [machine.look() for machine in machines]
    killed = subprocess.Popen(
        provision_argv(stand_in_version="2", stand_in_pause=30),
        cwd=PROJECT,
        env=LAB.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: not second.look().serves, 60, pause=0.3)
    # As if the operator's computer had lost its power: nobody tidies up.
    processes.send(processes.children(os.getpid()) + processes.descendants(killed.pid), signal.SIGKILL)
    killed.wait()
    assert not second.look().serves
    assert third.look() == before[2]
    done = LAB.run(provision_argv(stand_in_version="2"))
    assert done.returncode == 0, said(done)
    assert first.look() == before[0], "it was done before the kill, so neither run may have touched it"
    for machine in (second, third):
        assert (machine.look().loaded, machine.look().serves) == ("2", True)


def test_never_were_two_machines_out_at_once(machines):
    outages = [(place, *outage) for place, machine in enumerate(machines) for outage in machine.outages()]
    assert {place for place, *_ in outages} == {0, 1, 2}
    for (one, begun, ended), (other, began, end) in combinations(outages, 2):
        assert one == other or ended <= began or end <= begun, outages


def test_a_service_that_somebody_stopped_stays_stopped(machines):
    first = machines[0]
    first.do("sudo systemctl stop bedplate-vllm")
    done = LAB.run([*provision_argv(stand_in_version="3"), "--limit", "llm1"])
    assert done.returncode == 0, said(done)
    seen = first.look()
    assert (seen.loaded, seen.serves) == ("3", False)
    first.do("sudo systemctl start bedplate-vllm")


def test_a_change_that_takes_a_restart_is_not_begun_without_leave(machines):
    before = [machine.look() for machine in machines]
    done = LAB.run(provision_argv(stand_in_version="4", stand_in_needs_reboot=True, stand_in_foresees_reboot=True))
    assert done.returncode != 0
    assert "llm1 was not changed, since that takes a restart: version 3 is at work." in said(done)
    assert [machine.look() for machine in machines] == before


WAITS = "The host waits for a reboot: stand_in: version 4 is installed and not loaded."


def test_without_leave_the_run_ends_with_what_waits_and_the_machine_serves(machines):
    first, second, _third = machines
    before = second.look()
    done = LAB.run(provision_argv(stand_in_version="4", stand_in_needs_reboot=True))
    assert done.returncode != 0
    assert WAITS in said(done)
    assert "`bedplate provision --reboot`, or bedplate_reboot_allowed: true" in said(done)
    seen = first.look()
    assert (seen.version, seen.loaded, seen.serves) == ("4", "3", True)
    assert second.look() == before


def test_the_next_run_without_leave_says_the_same_and_drains_nobody(machines):
    before = [machine.look() for machine in machines]
    done = LAB.run(provision_argv(stand_in_version="4", stand_in_needs_reboot=True))
    assert done.returncode != 0
    assert WAITS in said(done)
    assert [machine.look() for machine in machines] == before


def test_with_leave_the_command_restarts_the_machine_and_has_it_back(machines):
    before = [machine.look() for machine in machines[:1]]
    variables = ["-e", '{"stand_in_version": "4", "stand_in_needs_reboot": true}']
    site = ["--inventories", str(LAB.inventory.parent), "--site", LAB.inventory.name, "--limit", "llm1"]
    done = LAB.run(argv("bedplate", "provision", *site, "--reboot", *variables))
    assert done.returncode == 0, said(done)
    assert "provision of inventory is done" in done.stderr
    assert done.stderr.count("Restart the host and wait for its next boot (") == 1
    for machine, was in zip(machines, before, strict=False):
        seen = machine.look()
        assert (seen.loaded, seen.serves) == ("4", True)
        assert seen.boot != was.boot
