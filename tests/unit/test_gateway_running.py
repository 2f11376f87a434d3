"""What has to be done so that the wanted gateway runs, and what is said when it does not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.gateway_running import (
    Unit,
    actions,
    behind,
    listener_errors,
    log_errors,
    unit_from,
    versions_from,
)
from ansible_collections.bedplate.llm.plugins.module_utils.processes import parse_show

RUNNING = Unit(loaded=True, enabled=True, active=True, needs_reload=False, pid=7, release="r1")


@pytest.mark.parametrize(
    ("unit", "release", "wanted"),
    [
        (RUNNING, "r1", []),
        (RUNNING, "r2", ["restart"]),
        (replace(RUNNING, needs_reload=True), "r1", ["daemon-reload"]),
        (replace(RUNNING, needs_reload=True), "r2", ["daemon-reload", "restart"]),
        (replace(RUNNING, enabled=False), "r1", ["enable"]),
        (replace(RUNNING, active=False, release=""), "r1", ["restart"]),
        (replace(RUNNING, release=""), "r1", ["restart"]),
        (Unit(False, False, False, False), "r1", ["daemon-reload", "enable", "restart"]),
    ],
)
def test_actions(unit: Unit, release: str, wanted: list[str]) -> None:
    assert actions(unit, release) == wanted


def test_unit_is_read_from_systemctl_and_from_its_process() -> None:
    shown = "LoadState=loaded\nUnitFileState=enabled\nActiveState=active\nNeedDaemonReload=no\nMainPID=7\n"
    assert unit_from(parse_show(shown), "PATH=/bin\0BEDPLATE_RELEASE=r1\0") == RUNNING


def test_unit_that_does_not_exist_is_nothing() -> None:
    shown = "LoadState=not-found\nUnitFileState=\nActiveState=inactive\nNeedDaemonReload=no\nMainPID=0\n"
    assert unit_from(parse_show(shown)) == Unit(False, False, False, False)


def test_versions_that_do_not_run_yet_are_named() -> None:
    text = 'listener_manager.lds.version_text: "abc"\nhttp.api.rds.api.version_text: "old"\nserver.state: 0\n'
    found = versions_from(text)
    assert found == {"listener_manager.lds": "abc", "http.api.rds.api": "old"}
    wanted = {"listener_manager.lds": "abc", "http.api.rds.api": "new", "sds.server": "x"}
    assert behind(wanted, found) == ["http.api.rds.api", "sds.server"]


def test_listener_errors_are_envoys_own_words_once() -> None:
    entry = {"error_state": {"details": "cannot bind"}}
    assert listener_errors(json.dumps({"configs": [entry, entry, {"name": "fine"}]})) == ["cannot bind"]
    assert listener_errors("") == []


@pytest.mark.parametrize(
    ("journal", "said"),
    [
        ('{"path": "/[error]", "status": 200}\n', []),
        ("[info] hello\n[critical] no such file\n[critical] no such file\n", ["[critical] no such file"]),
        ("[warning] lds\ngateway-control: cannot bind\n[warning] caught ENVOY_SIGTERM\n", ["cannot bind"]),
        ("", []),
    ],
)
def test_reason_is_found_in_the_journal(journal: str, said: list[str]) -> None:
    assert log_errors(journal) == said
