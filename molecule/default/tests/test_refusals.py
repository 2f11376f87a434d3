"""Bad input: one clear sentence, and nothing on the machine is different afterwards."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from conftest import SCENARIO, run
from scenario import PROJECT

LOOK = (
    # .incoming holds what arrived and was not accepted yet: the next transfer goes on from there.
    "sudo sh -c 'find /etc/bedplate /etc/systemd/system /var/lib/bedplate/models /run/bedplate-endpoints -type f "
    '-not -path "*/.incoming/*" -printf "%p %s %T@\\n" 2>/dev/null | sort;'
    ' nft list table inet bedplate 2>/dev/null | sed "s/packets.*//";'
    " systemctl show --property MainPID bedplate-vllm bedplate-gateway'"
)


def refused(machine, playbook: str, *arguments: str) -> str:
    """The output of a run that failed and changed nothing."""
    before = machine.check_output(LOOK)
    done = run(playbook, *arguments)
    assert done.returncode != 0, done.stdout
    assert machine.check_output(LOOK) == before
    return " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"vllm_max_model_len": "many"}, ["vllm_max_model_len", "many"]),
        ({"gateway_port": 70000}, ["gateway_port", "70000"]),
        ({"firewall_operator_networks": ["10.0.0.0/99"]}, ["firewall_operator_networks", "10.0.0.0/99"]),
        ({"vllm_model": "no-such-model"}, ["no-such-model", "bundle"]),
        ({"preflight_gpu_count": 2}, ["gpu.count", "2"]),
        (
            {"vllm_plan": {"schema": 1, "model": "r1", "gpus": "8xH200", "fits": True, "flags": {}}},
            ["gpu.planned", "vllm_plan is made for r1 on 8xH200"],
        ),
    ],
)
def test_a_wrong_variable_is_named_with_its_value_before_anything_changes(server, variables, words):
    said = refused(server, "bedplate.llm.site", "-e", json.dumps(variables))
    for word in words:
        assert word in said, said[-3000:]


def test_a_port_that_is_taken_is_found_with_its_owner_before_anything_changes(server):
    server.check_output("sudo systemd-run --unit squatter --collect python3 -m http.server 9443 --bind 0.0.0.0")
    try:
        said = refused(server, "bedplate.llm.site", "-e", json.dumps({"gateway_port": 9443}))
    finally:
        server.run("sudo systemctl stop squatter")
    assert "9443" in said
    assert "python3" in said


@pytest.fixture
def tampered_bundle(tmp_path: Path) -> Path:
    """The bundle with one byte of the model's weights turned; everything else are links to the original."""
    copy = tmp_path / "bundle"
    shutil.copytree(PROJECT / "bundles" / "lab", copy, copy_function=os.symlink)
    weights = next(copy.glob("model/*/model.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()
    weights.write_bytes(content)
    manifest = copy / "bundle.json"
    text = manifest.read_text()
    manifest.unlink()
    manifest.write_text(text)
    return copy


@pytest.fixture
def machine_without_models(client):
    """The machine that serves nothing, as if no model had come to it yet."""
    client.check_output("sudo mv /var/lib/bedplate/models /var/lib/bedplate/models-aside")
    yield client
    client.check_output("sudo rm -rf /var/lib/bedplate/models")
    client.check_output("sudo mv /var/lib/bedplate/models-aside /var/lib/bedplate/models")


def test_a_tampered_model_never_gets_its_final_name(machine_without_models, site, tampered_bundle):
    said = refused(
        machine_without_models,
        str(SCENARIO / "playbooks" / "tampered.yml"),
        "-e",
        json.dumps({"bedplate_bundle_dir": str(tampered_bundle)}),
    )
    assert "model.safetensors" in said
    assert "sha256" in said or "digest" in said
    assert not machine_without_models.file(f"/var/lib/bedplate/models/{site.model}").exists
