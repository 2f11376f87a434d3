"""Rules that cut the operator off are taken back by the machine itself: nobody else could."""

from __future__ import annotations

import threading

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.lab_machines import answers
from ansible_collections.bedplate.llm.plugins.module_utils.nft_state import FILE, ROLLBACK_UNIT
from conftest import SCENARIO, play

# Every packet of sshd is root's: with this one entry no connection works any more, old or new. The role's guard lets it
# pass, since it looks at networks and ports, and those are right.
MISTAKE = {"mistaken_firewall_denied_users": ["root"], "firewall_confirm_timeout": 10}


def rules(machine) -> str:
    return machine.check_output("sudo nft --stateless list table inet bedplate")


class Watch:
    """Whether the machine's ssh server greets the operator, second by second."""

    def __init__(self, address: str) -> None:
        self.seen: list[bool] = []
        self._address, self._over = address, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(1):
            self.seen.append(answers(self._address))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture(scope="module")
def mistake(machine, access):
    before = (rules(machine), machine.check_output(f"sudo sha256sum {FILE}"))
    with Watch(access.address) as watch:
        done = play(str(SCENARIO / "converge.yml"), MISTAKE, "--tags", "firewall")
    return before, watch, done


def test_the_operator_was_cut_off_and_let_in_again(mistake):
    _before, watch, _done = mistake
    assert watch.seen[0]
    assert watch.seen.count(False) >= 2, watch.seen
    assert watch.seen[-1]


def test_the_run_fails_and_says_what_happened(mistake):
    _before, _watch, done = mistake
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0, said
    assert "so the host went back to the former rules" in said, said


def test_the_former_rules_are_in_force_and_those_of_the_next_boot_untouched(mistake, machine):
    before, _watch, _done = mistake
    assert "policy drop" in before[0]
    assert (rules(machine), machine.check_output(f"sudo sha256sum {FILE}")) == before


def test_it_was_the_machines_own_timer(mistake, machine):
    journal = machine.check_output(f"sudo journalctl --boot --unit {ROLLBACK_UNIT}.service --output cat")
    assert "Finished" in journal
    assert machine.check_output(f"systemctl is-active {ROLLBACK_UNIT}.timer || true") == "inactive"
