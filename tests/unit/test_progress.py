"""What is shown while a playbook runs, with a clock that the test turns."""

from __future__ import annotations

import io
import json

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check

from bedplate.activity import Activity, duration
from bedplate.events import PlayStarted, Summary, TaskEnded, TaskStarted, Text, message_of, parse
from bedplate.progress import HEARTBEAT, JsonProgress, PlainProgress, TerminalProgress, event_lines


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def raw(event: str, stdout: str = "", **data) -> dict:
    return {"event": event, "stdout": stdout, "event_data": data}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (raw("playbook_on_play_start", name="Raise the lab"), PlayStarted("Raise the lab")),
        (
            raw("playbook_on_task_start", task="Install", role="vllm", resolved_role="bedplate.llm.vllm"),
            TaskStarted("vllm", "Install"),
        ),
        (raw("runner_on_start", task="Install", host="gpu1"), TaskStarted("", "Install", "gpu1")),
        (raw("verbose", "sent 3 MiB\r\n"), Text("sent 3 MiB")),
        ({**raw("verbose", "Using /etc/x"), "verbosity": 3}, Text("Using /etc/x", "chatter")),
        (raw("verbose", "\x1b[0;31m[ERROR]: no such playbook\x1b[0m"), Text("no such playbook", "error")),
        (raw("warning", "[WARNING]: careful"), Text("[WARNING]: careful", "warning")),
        (raw("runner_on_file_diff", "--- a\r\n+++ b"), Text("--- a\n+++ b", "diff")),
        (raw("playbook_on_task_start", "", task="bedplate.llm.vllm : Install", role="vllm",
             resolved_role="bedplate.llm.vllm"), TaskStarted("vllm", "Install")),
        (raw("runner_item_on_ok", "ok: [gpu1] => (item=1)"), None),
        (raw("playbook_on_include", "included: x"), None),
    ],
)  # fmt: skip
def test_an_event_of_ansible_runner_becomes_one_of_ours(given, expected):
    assert parse(given) == expected


@pytest.mark.parametrize(
    ("event", "result", "status"),
    [
        ("runner_on_ok", {"changed": False}, "ok"),
        ("runner_on_ok", {"changed": True}, "changed"),
        ("runner_on_skipped", {}, "skipped"),
        ("runner_on_failed", {"msg": "no"}, "failed"),
        ("runner_on_unreachable", {"msg": "no route"}, "unreachable"),
    ],
)
def test_the_end_of_a_task_has_one_status(event, result, status):
    assert parse(raw(event, host="gpu1", task="T", res=result)).status == status


def test_checks_are_found_in_results_and_in_the_items_of_a_loop():
    check = {"id": "a.b", "ok": True, "reason": "yes.", "remedy": ""}
    single = parse(raw("runner_on_ok", host="h", res={"checks": [check]}))
    looped = parse(raw("runner_on_ok", host="h", res={"results": [{"checks": [check]}, {"skipped": True}]}))
    assert single.checks == looped.checks == (Check("a.b", True, "yes."),)


def test_a_malformed_check_is_a_failing_one():
    [check] = parse(raw("runner_on_ok", host="h", res={"checks": [{"id": "a.b"}]})).checks
    assert not check.ok and "missing" in check.reason


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"msg": "disk is full"}, "disk is full"),
        ({"msg": ["one", "two"]}, "one\ntwo"),
        ({"msg": "non-zero return code", "rc": 2, "stderr": "ls: no\n"}, "non-zero return code: ls: no"),
        ({"msg": "crashed", "module_stderr": "1\n2\n3\n4\n5"}, "crashed: 3\n4\n5"),
        (
            {"msg": "All items failed", "results": [{"failed": True, "msg": "no", "item": "a"}, {"msg": "fine"}]},
            "a: no",
        ),
        ({"msg": "Validation of arguments failed", "argument_errors": ["x is required"]}, "x is required"),
        ({"msg": "Task failed: The filter plugin 'bedplate.llm.nft_ruleset' failed: x: bad"}, "x: bad"),
        ({"msg": "Task failed: Action failed: 1 of 2 checks do not hold"}, "1 of 2 checks do not hold"),
        ({}, "failed without a message"),
    ],
)
def test_a_failed_result_is_told_as_a_message_not_as_json(result, message):
    assert message_of(result) == message


def test_a_censored_result_says_that_it_is():
    assert "handles secrets" in message_of({"censored": "the output has been hidden"})


def test_the_activity_names_hosts_role_task_and_elapsed_time():
    activity = Activity()
    activity.follow(TaskStarted("vllm", "Build the environment"), 100)
    activity.follow(TaskStarted("vllm", "Build the environment", "gpu1"), 101)
    activity.follow(TaskStarted("vllm", "Build the environment", "gpu2"), 102)
    assert activity.line(121) == "gpu1, gpu2 · vllm · Build the environment, 20 s"
    activity.follow(TaskEnded("gpu1", "vllm", "Build the environment", "ok"), 122)
    assert activity.line(132) == "gpu2 · vllm · Build the environment, 30 s"
    activity.beside["bundle"] = "3 of 9 wheels"
    assert activity.line(132).endswith(" | bundle: 3 of 9 wheels")
    activity.follow(Summary({}), 140)
    assert activity.line(141) == "finishing, 1 s | bundle: 3 of 9 wheels"


def test_many_hosts_do_not_fill_the_line():
    activity = Activity()
    activity.follow(TaskStarted("r", "T"), 0)
    for number in range(9):
        activity.follow(TaskStarted("r", "T", f"h{number}"), 0)
    assert activity.line(1) == "h0, h1, h2, h3 and 5 more · r · T, 1 s"


def test_plain_progress_says_what_changed_and_keeps_quiet_about_the_rest():
    clock, stream = Clock(), io.StringIO()
    progress = PlainProgress(stream, clock)
    clock.now = 61
    progress.event(TaskEnded("gpu1", "vllm", "Look", "ok"))
    progress.event(TaskEnded("gpu1", "vllm", "Install", "changed", 3.2))
    progress.event(TaskEnded("gpu1", "vllm", "Start", "failed", 2, "no memory\nat all"))
    progress.event(Text("a thing", "chatter"))
    assert stream.getvalue().splitlines() == [
        "01:01  changed  gpu1 · vllm · Install (3 s)",
        "01:01  failed   gpu1 · vllm · Start (2 s)",
        "01:01      no memory",
        "01:01      at all",
    ]


def test_a_silent_run_says_where_it_is_at_least_every_fifteen_seconds():
    clock, stream = Clock(), io.StringIO()
    progress = PlainProgress(stream, clock)
    progress.event(TaskStarted("vllm", "Build"))
    progress.event(TaskStarted("vllm", "Build", "gpu1"))
    for second in range(1, 61):
        clock.now = second
        progress.heartbeat()
    assert [line.split("  ", 1)[1] for line in stream.getvalue().splitlines()] == [
        f"… gpu1 · vllm · Build, {duration(second)}" for second in (15, 30, 45, 60)
    ]
    assert HEARTBEAT <= 15


def test_a_line_puts_the_heartbeat_off():
    clock, stream = Clock(), io.StringIO()
    progress = PlainProgress(stream, clock)
    clock.now = 14
    progress.text("10 MB", "bundle")
    clock.now = 20
    progress.heartbeat()
    assert stream.getvalue() == "00:14  bundle: 10 MB\n"


def test_json_progress_is_one_object_to_a_line():
    clock, stream = Clock(), io.StringIO()
    progress = JsonProgress(stream, clock)
    progress.start({"command": "rollout", "site": "lab", "log": "x"})
    progress.event(PlayStarted("P"))
    progress.event(TaskEnded("gpu1", "vllm", "Look", "ok", 0.5))
    progress.event(Text("3 MiB"))
    progress.text("4 MiB", "bundle")
    clock.now = 16
    progress.heartbeat()
    progress.result({"outcome": "ok", "exit_code": 0})
    objects = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [found["event"] for found in objects] == ["start", "play", "task", "line", "line", "running", "result"]
    assert objects[2] == {
        "event": "task", "elapsed": 0.0, "status": "ok", "host": "gpu1", "role": "vllm", "task": "Look",
        "seconds": 0.5, "message": "",
    }  # fmt: skip
    assert objects[4]["source"] == "bundle" and objects[5]["elapsed"] == 16


def test_the_terminal_shows_the_running_task_and_markup_of_others_as_it_is():
    clock, stream = Clock(), io.StringIO()
    progress = TerminalProgress(stream, clock)
    progress.event(TaskStarted("gateway", "Write [bold]files[/bold]", "gpu1"))
    progress.event(TaskStarted("gateway", "Write"))
    clock.now = 75
    progress.text("[red]not ours[/red]")
    assert "[red]not ours[/red]" in stream.getvalue()
    assert "1 min 15 s  gateway · Write, 1 min 15 s" in progress._status().text.plain


def test_a_verdict_is_one_line_since_the_end_tells_the_checks():
    verdict = TaskEnded("h", "", "Require", "failed", 1, "2 of 3 checks\n  - a", action="bedplate.llm.assert_checks")
    assert event_lines(verdict) == ["failed   h · Require (1 s)"]
