"""Whose playbook is changing the lab: found among the ancestors, and never a stranger's process."""

import os
import signal
import subprocess
import sys

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import lab_host as host
from ansible_collections.bedplate.llm.plugins.module_utils import lab_session as session

MODULE = (90, "/usr/bin/python3 /root/.ansible/tmp/AnsiballZ_lab_session.py")
WORKER = (80, "/venv/bin/python3 /venv/bin/ansible-playbook bedplate.llm.lab_up -i inventories/lab")
PLAYBOOK = (70, WORKER[1])


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ([MODULE, (85, "/bin/sh -c python3"), WORKER, PLAYBOOK, (60, "-bash")], 70),
        ([MODULE, WORKER, PLAYBOOK, (60, "python3 /venv/bin/bedplate lab up"), (50, "-bash")], 70),
        ([MODULE, PLAYBOOK, (60, "sh run ansible-playbook"), (50, "/venv/bin/ansible-playbook outer.yml")], 70),
        ([MODULE, (60, "-bash")], None),
    ],
)
def test_the_outermost_of_the_nearest_ansible_processes_is_the_playbook(chain, expected):
    assert session.playbook_process(chain) == expected


@pytest.mark.parametrize(
    ("record", "alive", "own", "expected"),
    [
        (None, False, [90, 70], None),
        ({"process": 70}, False, [95], None),
        ({"process": 70}, True, [90, 70], None),
        ({"process": 70}, True, [95, 75], 70),
    ],
)
def test_only_a_living_session_of_somebody_else_counts(record, alive, own, expected):
    assert session.other_session(record, alive, own) == expected


def test_a_record_names_one_process_and_not_the_next_with_its_number():
    record = host.name_process(os.getpid())
    assert host.is_alive(record)
    assert not host.is_alive({**record, "start": "1"})
    assert not host.is_alive({**record, "boot": "another"})
    assert not host.is_alive(None)


def test_a_process_that_has_ended_is_not_alive_while_its_parent_has_not_noticed():
    child = subprocess.Popen(["sleep", "30"])
    record = host.name_process(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert not host.is_alive(record)
    finally:
        child.wait()


STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)  # not until the child ends: which of the two is killed first is nobody's promise
"""


def test_ending_a_tree_ends_what_runs_below_even_in_a_session_of_its_own():
    parent = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    host.end_tree(parent.pid, patience=0.3)
    assert parent.wait() == -signal.SIGKILL
    assert host.process_start(child) is None
