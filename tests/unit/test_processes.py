"""What a process is called, and whose it is."""

from __future__ import annotations

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.processes import parse_command, parse_unit


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("0::/system.slice/bedplate-gateway.service\n", "bedplate-gateway.service"),
        ("0::/system.slice/ssh.service/session.scope\n", "ssh.service"),
        ("0::/system.slice/bedplate-vllm.service/libpod-payload-4e5f\n", "bedplate-vllm.service"),
        ("1:name=systemd:/user.slice/user-0.slice\n0::/system.slice/x.service\n", "x.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/train.service\n", "train.service"),
        ("0::/user.slice/user-1000.slice/session-1.scope\n", "session-1.scope"),
        ("0::/system.slice/docker-77ab.scope\n", "docker-77ab.scope"),
        ("0::/\n", ""),
        ("", ""),
    ],
)
def test_the_unit_of_a_process_is_its_innermost_service_else_its_scope(cgroup: str, expected: str) -> None:
    assert parse_unit(cgroup) == expected


@pytest.mark.parametrize(
    ("cmdline", "comm", "expected"),
    [
        ("python3\0train.py\0--lr\0001e-4\0", "python3\n", "python3 train.py --lr 1e-4"),
        ("python3\0-c\0import torch\nprint(1)\0", "python3\n", "python3 -c import torch print(1)"),
        ("", "nv_queue\n", "[nv_queue]"),
        ("x" * 500, "x\n", "x" * 160 + "…"),
    ],
)
def test_a_command_is_one_short_line(cmdline: str, comm: str, expected: str) -> None:
    assert parse_command(cmdline, comm) == expected
