"""What is done so that the unit runs as configured, and what is said when it does not start."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.processes import parse_show
from ansible_collections.bedplate.llm.plugins.module_utils.vllm_service import (
    State,
    decide,
    explain_failure,
    restart_pending,
)

SERVING = State(True, True, "loaded", "active", "enabled", False, "new")


@pytest.mark.parametrize(
    ("state", "steps"),
    [
        (SERVING, []),
        (
            State(False, False, "not-found", "inactive", "", False),
            ["sysusers", "tmpfiles", "daemon-reload", "enable", "start"],
        ),
        # A run that was cut off after it had written the files: nothing "changes" any more, all is still to do.
        (State(True, True, "loaded", "inactive", "disabled", True), ["daemon-reload", "enable", "start"]),
        (replace(SERVING, running_release="old"), ["restart"]),
        (replace(SERVING, running_release="old", needs_reload=True), ["daemon-reload", "restart"]),
        # Only a comment of the unit changed: systemd wants to read it again, the engine goes on.
        (replace(SERVING, needs_reload=True), ["daemon-reload"]),
        (replace(SERVING, active_state="failed", running_release=""), ["start"]),
        # On its way up with the settings on the disk: joined. With older ones: begun anew.
        (replace(SERVING, active_state="activating"), ["start"]),
        (replace(SERVING, active_state="activating", needs_reload=True), ["daemon-reload", "restart"]),
        (replace(SERVING, unit_file_state="disabled"), ["enable"]),
        (replace(SERVING, directories_right=False), ["tmpfiles"]),
    ],
)
def test_steps_follow_from_what_is_found(state: State, steps: list[str]) -> None:
    assert decide(state, "new", restart_when_changed=True) == steps


def test_without_leave_a_serving_engine_is_not_restarted_and_that_is_said() -> None:
    state = replace(SERVING, running_release="old", needs_reload=True)
    steps = decide(state, "new", restart_when_changed=False)
    assert steps == ["daemon-reload"]
    assert restart_pending(state, "new", steps)


def test_nothing_is_pending_after_a_restart_or_when_nothing_serves() -> None:
    old = replace(SERVING, running_release="old")
    assert not restart_pending(old, "new", decide(old, "new", True))
    stopped = replace(SERVING, active_state="inactive", running_release="")
    assert not restart_pending(stopped, "new", decide(stopped, "new", False))


def test_properties_are_parsed_with_empty_values_and_equals_signs() -> None:
    assert parse_show("A=1\nB=\nC=x=y\n") == {"A": "1", "B": "", "C": "x=y"}


TRACEBACK = """\
(EngineCore pid=71) ERROR 11-24 02:11:01 [core.py:1043] EngineCore failed to start.
(EngineCore pid=71) ERROR 11-24 02:11:01 [core.py:1043] Traceback (most recent call last):
(EngineCore pid=71) ERROR 11-24 02:11:01 [core.py:1043]   File "x.py", line 1, in y
(EngineCore pid=71) ERROR 11-24 02:11:01 [core.py:1043] ValueError: No available memory for the cache blocks.
Traceback (most recent call last):
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
vllm-endpoint: not ready: the engine ended while waiting for the engine's socket to answer; its own lines above say why.
bedplate-vllm.service: Control process exited, code=exited, status=1/FAILURE
bedplate-vllm.service: Failed with result 'exit-code'.
"""


@pytest.mark.parametrize(
    ("journal", "reason"),
    [
        (TRACEBACK, "ValueError: No available memory for the cache blocks."),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried\n", "OutOfMemoryError: CUDA out of memory. Tried"),
        ("usage: vllm serve\nvllm serve: error: unrecognized arguments: --x\n", "unrecognized arguments: --x"),
        (
            "bedplate-vllm.service: Failed to set up mount namespacing: /var/lib/x: No such file or directory\n",
            "Failed to set up mount namespacing: /var/lib/x: No such file or directory",
        ),
        (
            "bedplate-vllm.service: A process of this unit has been killed by the OOM killer.\nvllm-endpoint: gone\n",
            "A process of this unit has been killed by the OOM killer.",
        ),
        (
            "vllm-endpoint: waiting for x, 9 s left.\nvllm-endpoint: not ready: the engine lists a and not b.\n"
            "bedplate-vllm.service: Main process exited, code=killed, status=15/TERM\n",
            "the engine lists a and not b.",
        ),
        (
            "vllm-endpoint: not ready: the engine ended while waiting.\n"
            "bedplate-vllm.service: Main process exited, code=killed, status=4/ILL\n",
            "Main process exited, code=killed, status=4/ILL",
        ),
        (
            "Error: setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=all\n"
            "bedplate-vllm.service: Main process exited, code=exited, status=125/n/a\n",
            "setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=all",
        ),
        ("one\ntwo\n\n", "two"),
        ("", "it wrote nothing to the journal"),
    ],
)
def test_the_engines_own_reason_is_found_in_its_journal(journal: str, reason: str) -> None:
    assert explain_failure(journal.splitlines()) == reason
