"""Running playbooks: real runs on this machine, with what they leave behind and what they keep to themselves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from cli_harness import Sampler, local_site, play

from bedplate import processes
from bedplate.errors import UserError
from bedplate.events import Event, TaskEnded, Text
from bedplate.runner import environment, extra_vars

SECRET = "correct-horse-battery-marker"
TOKEN = "eyJ-token-of-the-environment-marker"

PLAYBOOK = """
- name: Handle a secret
  hosts: gpu_hosts
  gather_facts: false
  vars_files: ["{{ inventory_dir }}/.secrets/secret.yml"]
  tasks:
    - name: Use the secret
      ansible.builtin.command: {argv: [sh, -c, "cat; sleep 0.3"], stdin: "{{ secret }}"}
      register: used
      changed_when: true
      no_log: true
    - name: Show what came of it
      ansible.builtin.debug: {msg: "{{ used.stdout | length }} characters"}
    - name: Fail with the secret
      ansible.builtin.command: {argv: [sh, -c, "cat >&2; exit 3"], stdin: "{{ secret }}"}
      no_log: true
"""


def text_of(paths: Iterable[Path]) -> str:
    """What stands in the files that are still there when they are read."""
    texts = []
    for path in paths:
        with contextlib.suppress(OSError):
            texts.append(path.read_text(encoding="utf-8", errors="replace"))
    return "\n".join(texts)


class Watch:
    """Looks into ansible-runner's folder and the process list, again and again while a playbook runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.process_list = ""
        self.artefacts = ""
        self.modes: set[int] = set()

    def processes(self) -> None:
        lines = text_of(Path("/proc").glob("[0-9]*/cmdline"))
        if "ansible-playbook" in lines:
            self.process_list += lines

    def folder(self, _event: Event) -> None:
        self.artefacts += text_of(self._folder.rglob("*"))
        self.modes |= {path.stat().st_mode & 0o777 for path in self._folder.iterdir()}


def test_a_secret_stays_out_of_artefacts_log_output_and_process_list(tmp_path, monkeypatch, capfd):
    site = local_site(tmp_path / "inventories/here")
    (site / ".secrets").mkdir()
    (site / ".secrets/secret.yml").write_text(f"secret: {SECRET}\n", encoding="utf-8")
    playbook = tmp_path / "secret.yml"
    playbook.write_text(PLAYBOOK, encoding="utf-8")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setenv("BEDPLATE_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    watch = Watch(scratch)

    with Sampler(watch.processes):
        report, events, log = play(playbook, site, tmp_path / "log", [watch.folder])

    assert f"{len(SECRET)} characters" in log, "the secret was really used"
    assert "ansible-playbook" in watch.process_list, "the run was watched"
    assert watch.modes == {0o700}, "ansible-runner's folder is the user's alone"
    assert list(scratch.iterdir()) == [], "ansible-runner's folder is removed"
    [failure] = report.failures
    assert "the task handles secrets" in failure.message
    places = {
        "process list": watch.process_list,
        "artefacts": watch.artefacts,
        "log": log,
        "events": str(events),
        "report": str(report),
        "output": "".join(capfd.readouterr()),
    }
    for place, text in places.items():
        assert SECRET not in text, f"the secret is in the {place}"
        assert TOKEN not in text, f"the token is in the {place}"


MIXED = """
- name: A bit of everything
  hosts: gpu_hosts
  gather_facts: false
  tasks:
    - name: Write a file
      ansible.builtin.copy: {content: "new\\n", dest: "{{ target }}", mode: "0644"}
    - name: Talk while working
      talk:
    - name: Go wrong
      ansible.builtin.command: {argv: [sh, -c, "echo no such thing >&2; exit 3"]}
      changed_when: false
"""

TALK = """
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        self._display.display("sent 1 of 2 MiB")
        check = {"id": "here.holds", "ok": True, "reason": "it does."}
        return {"changed": False, "checks": [check, {**check, "id": "here.broken", "ok": False, "remedy": "mend it."}]}
"""


def test_a_run_reports_changes_lines_of_action_plugins_checks_and_the_failure(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    site = local_site(tmp_path / "here")
    (tmp_path / "action_plugins").mkdir()
    (tmp_path / "action_plugins/talk.py").write_text(TALK, encoding="utf-8")
    playbook = tmp_path / "mixed.yml"
    playbook.write_text(MIXED, encoding="utf-8")

    report, events, log = play(playbook, site, tmp_path / "log", extra_vars=[f"target={tmp_path}/out"])

    ended = {event.task: event for event in events if isinstance(event, TaskEnded)}
    assert ended["Write a file"].status == "changed"
    assert Text("sent 1 of 2 MiB") in events
    assert [(check.id, check.ok) for check in report.checks["here"].values()] == [
        ("here.holds", True),
        ("here.broken", False),
    ]
    [failure] = report.failures
    assert (failure.host, failure.task, failure.message) == ("here", "Go wrong", "non-zero return code: no such thing")
    assert report.hosts["here"].changed == 1 and report.hosts["here"].failed == 1
    assert (report.rollout_exit_code(), report.verify_exit_code()) == (1, 2)
    assert "sent 1 of 2 MiB" in log and "ansible-playbook ended with 2" in log
    assert next((tmp_path / "log").iterdir()).stat().st_mode & 0o777 == 0o600


def test_an_interrupt_ends_ansible_and_what_its_tasks_started(tmp_path):
    site = local_site(tmp_path / "inventories/lab")
    playbook = tmp_path / "slow.yml"
    playbook.write_text(
        textwrap.dedent("""
            - name: Take long
              hosts: gpu_hosts
              gather_facts: false
              tasks:
                - name: Sleep in a program
                  ansible.builtin.command: {argv: [sleep, "3987"]}
                  changed_when: true
            """),
        encoding="utf-8",
    )
    script = textwrap.dedent(f"""
        from bedplate.session import Ending, leave, run_session
        from bedplate.runner import Run
        from pathlib import Path
        def body(session):
            report = session.play(Run({str(playbook)!r}, Path({str(site)!r})))
            return Ending(report, report.rollout_exit_code())
        print(run_session("rollout", "lab", False, body).exit_code)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        sleeper = []
        deadline = time.monotonic() + 30
        while not sleeper and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
            sleeper = [below for below in processes.descendants(process.pid) if runs(below.pid, "3987")]
        assert sleeper, "the task never started its program"
        tree = processes.descendants(process.pid)
        os.kill(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert out.strip() == "130"
    assert "rollout of lab was interrupted" in err and "Log: " in err
    assert [left for left in tree if left.is_alive()] == []


def runs(pid: int, word: str) -> bool:
    try:
        return word in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")
    except OSError:
        return False


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a=1"], {"a": "1"}),
        (["a=b=c"], {"a": "b=c"}),
        (['{"a": [1, 2]}', "b="], {"a": [1, 2], "b": ""}),
    ],
)
def test_extra_variables_are_read_as_ansible_reads_them(given, expected):
    assert extra_vars(given) == (expected, [])


@pytest.mark.parametrize("given", ["novalue", "=1", "a b=1", "{broken", "@/no/such/file"])
def test_extra_variables_that_mean_nothing_are_refused_by_name(given):
    with pytest.raises(UserError, match=r"^-e "):
        extra_vars([given])


def test_a_file_of_extra_variables_is_handed_on_by_name_only(tmp_path):
    (tmp_path / "vars.yml").write_text("password: hidden\n", encoding="utf-8")
    assert extra_vars([f"@{tmp_path}/vars.yml"]) == ({}, [f"@{tmp_path}/vars.yml"])


def test_host_keys_are_checked_unless_the_user_says_otherwise():
    assert environment({})["ANSIBLE_HOST_KEY_CHECKING"] == "True"
    assert environment({"ANSIBLE_HOST_KEY_CHECKING": "False"})["ANSIBLE_HOST_KEY_CHECKING"] == "False"
    assert environment({"ANSIBLE_STDOUT_CALLBACK": "minimal"})["ANSIBLE_STDOUT_CALLBACK"] == "default"
