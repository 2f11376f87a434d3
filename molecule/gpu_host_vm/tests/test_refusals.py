"""What cannot work is refused on the operator's machine, before a host is asked anything."""

from __future__ import annotations

import json

import pytest
from conftest import SCENARIO, play


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"container_toolkit_version": "1.17.4-1"}, "CVE-2025-23266"),
        ({"container_toolkit_version": "1.17.4-1"}, "CVE-2026-24260"),
        ({"container_toolkit_version": "latest"}, "is not a version of the toolkit"),
        ({"container_toolkit_repository": {"url": "file:///srv/toolkit/"}}, "the source mirror needs key there"),
        ({"container_toolkit_source": "vendor", "container_toolkit_repository": {}}, "/libnvidia-container/gpgkey"),
    ],
)
def test_the_toolkit_is_refused(variables, said):
    refused(variables, said)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"vllm_shm_size": "lots"}, "vllm_shm_size is lots; give a size such as 16G"),
        ({"vllm_runtime": "venv"}, "has no 'engine', it has gateway, image, model/tiny-r1-qwen2"),
        ({"vllm_device": "cpu"}, "the bundle's engine is built for cuda"),
    ],
)
def test_the_engines_container_is_refused(variables, said):
    refused({"container_toolkit_source": "preinstalled", **variables}, said, "validate.yml")


def refused(variables, said, playbook="converge.yml"):
    done = play(str(SCENARIO / playbook), "-e", json.dumps(variables), "-e", "ansible_host=192.0.2.1")
    output = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0, output
    assert said in output, output
    # The address is nobody's: a task that went to the host would have said so.
    assert "UNREACHABLE" not in output
