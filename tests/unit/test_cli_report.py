"""What a run comes to: exit codes, and the sentences that explain them."""

from __future__ import annotations

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check

from bedplate.events import HostSummary, Summary, TaskEnded, Text
from bedplate.report import Report

HOLDS = Check("a.holds", True, "it does.")
BROKEN = Check("a.broken", False, "it is.", "mend it.")
LOOKED = TaskEnded("gpu1", "a", "Look", "ok", checks=(HOLDS,))
LOOKED_BROKEN = TaskEnded("gpu1", "a", "Look", "ok", checks=(HOLDS, BROKEN))
VERDICT = TaskEnded("gpu1", "", "Require", "failed", message="1 of 2", action="bedplate.llm.assert_checks")
FAILED = TaskEnded("gpu1", "a", "Install", "failed", message="no room")
UNREACHABLE = TaskEnded("gpu1", "", "Gather", "unreachable", message="timed\n out")
ONE_HOST = Summary({"gpu1": HostSummary(ok=1)})


def report_of(*events, rc: int = 0, interrupted: bool = False) -> Report:
    report = Report(rc=rc, interrupted=interrupted)
    for event in events:
        report.add(event)
    return report


@pytest.mark.parametrize(
    ("report", "rollout", "verify"),
    [
        pytest.param(report_of(LOOKED, ONE_HOST), 0, 0, id="all holds"),
        pytest.param(report_of(LOOKED_BROKEN, VERDICT, ONE_HOST, rc=2), 1, 1, id="a check does not hold"),
        pytest.param(report_of(LOOKED_BROKEN, ONE_HOST), 0, 1, id="a check that nobody asserted"),
        pytest.param(report_of(LOOKED, FAILED, ONE_HOST, rc=2), 1, 2, id="a task failed"),
        pytest.param(report_of(LOOKED, FAILED, ONE_HOST), 0, 2, id="a rescued failure"),
        pytest.param(report_of(LOOKED_BROKEN, FAILED, VERDICT, ONE_HOST, rc=2), 1, 2, id="broken, and one role blind"),
        pytest.param(report_of(UNREACHABLE, ONE_HOST, rc=4), 2, 2, id="unreachable"),
        pytest.param(report_of(Text("no such playbook", "error"), rc=1), 2, 2, id="Ansible cannot start"),
        pytest.param(report_of(ONE_HOST), 0, 2, id="no check was made"),
        pytest.param(report_of(LOOKED, Summary({"gpu1": HostSummary(), "gpu2": HostSummary()})), 0, 2, id="one unseen"),
        pytest.param(report_of(Summary({})), 2, 2, id="no host"),
        pytest.param(report_of(LOOKED, ONE_HOST, rc=-1, interrupted=True), 130, 130, id="interrupted"),
        pytest.param(report_of(LOOKED, ONE_HOST, rc=-1), 2, 2, id="killed by somebody else"),
    ],
)
def test_exit_codes(report, rollout, verify):
    assert (report.rollout_exit_code(), report.verify_exit_code()) == (rollout, verify)


@pytest.mark.parametrize(
    ("report", "lines"),
    [
        (report_of(FAILED, ONE_HOST, rc=2), ["gpu1 · a · Install: no room"]),
        (report_of(UNREACHABLE, rc=4), ["gpu1: not reachable over ssh: timed out"]),
        (
            report_of(Text("bad key", "error"), Text("Origin: /x/site.yml:3:1"), rc=4),
            ["bad key (Origin: /x/site.yml:3:1)"],
        ),
        (report_of(LOOKED, VERDICT, ONE_HOST, rc=2), ["gpu1 · Require: 1 of 2"]),
    ],
)
def test_an_explanation_names_host_role_task_and_message(report, lines):
    assert report.explanation() == lines


def test_verify_leaves_the_verdict_to_its_table():
    assert report_of(LOOKED_BROKEN, VERDICT, ONE_HOST, rc=2).explanation(verdicts=False) == []


def test_a_check_that_is_seen_twice_counts_once():
    report = report_of(LOOKED_BROKEN, LOOKED_BROKEN)
    assert report.failing_checks == [("gpu1", BROKEN)]
    assert [found["id"] for found in report.as_dict()["checks"]] == ["a.holds", "a.broken"]
