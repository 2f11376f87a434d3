"""`bedplate init`: what it writes is an inventory, and nothing that was there is touched."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from bedplate.cli import app
from bedplate.collection import program


def init(folder: Path, name: str = "acme"):
    return CliRunner().invoke(app, ["init", name, "--inventories", str(folder)])


@pytest.fixture
def site(tmp_path) -> Path:
    assert init(tmp_path).exit_code == 0
    return tmp_path / "acme"


def test_the_scaffold_parses_as_an_inventory_without_a_warning(site):
    (site / "known_hosts.txt").write_text("10.0.0.1 ssh-ed25519 AAAA\n", encoding="utf-8")
    (site / ".secrets/token.key").write_text("-----BEGIN PRIVATE KEY-----\n", encoding="utf-8")
    done = subprocess.run(
        [program("ansible-inventory"), "-i", site, "--list"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    inventory = json.loads(done.stdout)
    assert inventory["gpu_hosts"]["hosts"] == ["gpu1"]
    variables = inventory["_meta"]["hostvars"]["gpu1"]
    undecided = {name for name, value in variables.items() if "CHANGE-ME" in str(value)}
    assert undecided == {
        "ansible_host",
        "ansible_user",
        "bedplate_bundle_dir",
        "firewall_operator_networks",
        "gateway_client_networks",
        "vllm_model",
    }
    assert variables["bedplate_secrets_dir"] == "{{ inventory_dir }}/.secrets"


def test_secrets_are_the_users_alone_and_not_for_version_control(site):
    assert (site / ".secrets").stat().st_mode & 0o777 == 0o700
    assert "*" in (site / ".secrets/.gitignore").read_text(encoding="utf-8").splitlines()


def test_every_variable_of_the_scaffold_is_explained(site):
    lines = (site / "group_vars/all.yml").read_text(encoding="utf-8").splitlines()
    names = list(yaml.safe_load("\n".join(lines)))
    explained = set()
    comment = False
    for line in lines:
        if line.startswith("# ") and not line.startswith("# ---"):
            comment = True
        elif not line.strip():
            comment = False
        elif comment and line[0].isalpha():
            explained.add(line.partition(":")[0])
    assert set(names) - explained == set()


def test_the_name_of_the_site_is_filled_in_everywhere(site):
    texts = {path: path.read_text(encoding="utf-8") for path in site.rglob("*") if path.is_file()}
    assert [str(path) for path, text in texts.items() if "@SITE@" in text] == []
    assert "--site acme" in texts[site / "README.md"]


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "dangling link"])
def test_what_is_there_is_never_overwritten(tmp_path, kind):
    target = tmp_path / "acme"
    if kind == "file":
        target.write_text("mine", encoding="utf-8")
    elif kind == "dangling link":
        target.symlink_to(tmp_path / "elsewhere")
    else:
        target.mkdir()
    if kind == "folder":
        (target / "hosts.yml").write_text("mine", encoding="utf-8")
    result = init(tmp_path)
    assert result.exit_code == 2
    assert f"init: {target} is already there and is left as it is" in result.output
    assert not (tmp_path / "elsewhere").exists()
    if kind == "folder":
        assert [path.name for path in target.iterdir()] == ["hosts.yml"]
        assert (target / "hosts.yml").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("name", ["../up", "A", "a b", "-a", ".", "a/b", "x" * 64])
def test_a_name_that_would_make_a_bad_folder_is_refused(tmp_path, name):
    result = CliRunner().invoke(app, ["init", "--inventories", str(tmp_path), "--", name])
    assert result.exit_code == 2
    assert "cannot be the name of a site" in result.output
    assert list(tmp_path.iterdir()) == []
