"""The two units of the engine, rendered as Ansible renders them: whole lines only, and one life in both."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
import pytest
from ansible_collections.bedplate.llm.plugins.filter import vllm

TEMPLATES = Path(__file__).parents[2] / "roles/vllm/templates"
UNITS = ["bedplate-vllm.service.j2", "bedplate-vllm-container.service.j2"]
LINE = re.compile(r"(|#.*|\[(Unit|Service|Install)\]|[A-Z][A-Za-z]+=.*|    .*)")
KNOWN = {
    "vllm_served_model_name": "r1",
    "vllm_start_timeout": 300,
    "vllm_shutdown_timeout": 60,
    "vllm_warmup_requests": 2,
    "vllm_private_network": True,
    "__vllm_device": "cuda",
    "__vllm_user": "bedplate-vllm",
    "__vllm_helper": "/usr/bin/python3 /usr/local/libexec/bedplate/vllm-endpoint",
    "__vllm_argv": ["vllm", "serve", "/models/r1", "--uds", "/run/bedplate-vllm/api.sock"],
    "__vllm_all_environment": {"HOME": "/cache", "VLLM_PLUGINS": ""},
    "__vllm_container": {
        "name": "bedplate-vllm",
        "image": "ab" * 32,
        "user_id": 997,
        "group_id": 997,
        "shm_size": "16g",
        "stop_timeout": 75,
        "read_only": ["/models/r1"],
        "writable": ["/cache", "/run/bedplate-vllm"],
        "device": "cuda",
        "private_network": True,
    },
}


def rendered(name: str) -> list[str]:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), trim_blocks=True, keep_trailing_newline=True
    )
    for short, function in vllm.FilterModule().filters().items():
        environment.filters[f"bedplate.llm.{short}"] = function
    return environment.get_template(name).render(KNOWN).splitlines()


@pytest.mark.parametrize("name", UNITS)
def test_every_line_is_one_of_a_unit(name: str) -> None:
    assert [line for line in rendered(name) if not LINE.fullmatch(line)] == []


def test_a_container_lives_and_ends_as_the_engine_of_a_virtual_environment() -> None:
    """But for what podman has to do on top, and the command itself."""
    kinds = ("ExecStartPost", "ExecStop", "ExecStopPost", "Timeout", "Kill", "Restart", "Limit")
    venv, container = ([line for line in rendered(name) if line.startswith(kinds)] for name in UNITS)
    assert [line for line in container if "podman" not in line] == venv


def test_the_unit_of_a_container_has_no_device_rules_that_a_reload_could_apply_again() -> None:
    lines = rendered(UNITS[1])
    assert "Delegate=yes" in lines
    assert [line for line in lines if line.startswith(("Device", "PrivateDevices"))] == []
