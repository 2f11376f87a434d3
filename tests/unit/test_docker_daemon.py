"""Docker's configuration is somebody else's: it is merged, or left alone with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import docker_daemon as docker
from ansible_collections.bedplate.llm.plugins.module_utils.docker_daemon import DaemonError, Running

WANT = {"features": {"cdi": True}}


@pytest.mark.parametrize(
    ("have", "merged"),
    [
        ({}, {"features": {"cdi": True}}),
        ({"features": {"buildkit": False}}, {"features": {"buildkit": False, "cdi": True}}),
        ({"features": {"cdi": False}}, {"features": {"cdi": True}}),
        (
            {"log-driver": "journald", "runtimes": {"nvidia": {"path": "x"}}},
            {"log-driver": "journald", "runtimes": {"nvidia": {"path": "x"}}, "features": {"cdi": True}},
        ),
    ],
)
def test_only_the_wanted_key_changes(have: dict[str, Any], merged: dict[str, Any]) -> None:
    before = json.dumps(have)
    assert docker.merge(have, WANT) == merged
    assert json.dumps(have) == before
    assert docker.merge(merged, WANT) == merged


def test_the_order_of_somebody_elses_file_is_kept() -> None:
    text = '{"zeta": 1, "features": {"x": true}, "alpha": [1, 2]}'
    assert list(json.loads(docker.render(docker.merge(docker.parse(text), WANT)))) == ["zeta", "features", "alpha"]


@pytest.mark.parametrize("text", [None, "", " \n", "{}"])
def test_no_configuration_is_an_empty_one(text: str | None) -> None:
    assert docker.parse(text) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"features": {', "is not valid JSON"),
        ("{'features': {}}", "is not valid JSON"),
        ('{"a": 1, "a": 2}', "the key 'a' stands there twice"),
        ("[]", "it is [] where an object is expected"),
        ('{"features": true}', "its key features is true where an object is expected"),
    ],
)
def test_a_file_that_cannot_be_merged_is_refused(text: str, said: str) -> None:
    with pytest.raises(DaemonError) as refused:
        docker.merge(docker.parse(text), WANT)
    assert said in str(refused.value)
    assert str(refused.value).startswith("/etc/docker/daemon.json")


# As `systemctl show -p ExecStart` prints it.
SHOWN = "ExecStart={ path=/usr/bin/dockerd ; argv[]=/usr/bin/dockerd -H fd:// %s ; ignore_errors=no ; pid=0 }"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--containerd=/run/containerd/containerd.sock", ""),
        ("--feature cdi=false", "with --feature, and dockerd does not start"),
        ("--features=cdi=false", "with --features, and dockerd does not start"),
        ("--config-file /etc/docker/other.json", "--config-file=/etc/docker/other.json, so it does not read"),
        ("--config-file=/etc/docker/daemon.json", ""),
    ],
)
def test_an_option_of_the_unit_that_says_the_same_is_refused(more: str, said: str) -> None:
    found = " ".join(docker.conflicts(docker.flags(SHOWN % more), WANT))
    assert said in found
    assert bool(found) == bool(said)


def test_a_host_without_the_unit_has_no_options() -> None:
    assert docker.flags("ExecStart=") == {}


@pytest.mark.parametrize(
    ("changed", "now", "restart", "said"),
    [
        (True, Running(True, False, 0, False), True, ""),
        (False, Running(True, False, 0, False), True, ""),
        (False, Running(True, True, 0, False), False, ""),
        (True, Running(False, False, 0, False), False, ""),
        (True, Running(True, False, 2, False), False, "2 containers run in Docker"),
        (True, Running(True, False, 1, False), False, "1 container runs in Docker"),
        (True, Running(True, False, 0, True), False, "the engine serves"),
        (False, Running(True, False, 0, True), False, "the engine serves"),
    ],
)
def test_docker_is_restarted_only_when_nobody_is_hurt(changed: bool, now: Running, restart: bool, said: str) -> None:
    decision, reason = docker.restart_decision(changed, now)
    assert decision is restart
    assert said in reason
    assert bool(reason) == bool(said)


@pytest.mark.parametrize(
    ("version", "folders", "said"),
    [
        ("28.3.2", ["/etc/cdi", "/var/run/cdi"], ""),
        ("25.0.0", ["/etc/cdi"], ""),
        ("25.0.0", [], "runs without reading descriptions"),
        ("20.10.24+dfsg1", None, "install 25.0 or newer"),
        ("", None, "Docker does not answer: no daemon"),
    ],
)
def test_a_docker_that_cannot_give_gpus_says_why(version: str, folders: list[str] | None, said: str) -> None:
    problem = docker.server_problem(version, folders, "no daemon")
    assert said in problem
    assert bool(problem) == bool(said)
