"""The contract of a role that a machine can hold (docs/architecture.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.parent.name for path in PROJECT.glob("roles/*/tasks"))
OPTIONAL = {"lab_host"}  # makes the machines that the others run on; nothing to validate together with a site


def load(role: str, path: str) -> Any:
    return yaml.safe_load((PROJECT / "roles" / role / path).read_text()) or {}


def test_there_are_roles():
    assert {"preflight", "firewall", "model_store", "vllm", "gateway", "lab_host"} <= set(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_what_the_argument_specs_say(role):
    defaults = load(role, "defaults/main.yml")
    for entry, spec in load(role, "meta/argument_specs.yml")["argument_specs"].items():
        stated = {name: option["default"] for name, option in spec.get("options", {}).items() if "default" in option}
        given = {name: value for name, value in defaults.items() if name in spec.get("options", {})}
        assert stated == given, f"{role}, entry point {entry}"


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_described(role):
    described: set[str] = set()
    for spec in load(role, "meta/argument_specs.yml")["argument_specs"].values():
        described |= set(spec.get("options", {}))
    assert set(load(role, "defaults/main.yml")) <= described


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_carries_the_roles_name(role):
    assert [name for name in load(role, "defaults/main.yml") if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", [role for role in ROLES if role not in OPTIONAL])
def test_every_role_validates_and_verifies_on_its_own(role):
    entries = load(role, "meta/argument_specs.yml")["argument_specs"]
    for entry in ("main", "validate", "verify"):
        assert entry in entries
        assert (PROJECT / "roles" / role / "tasks" / f"{entry}.yml").is_file()


@pytest.mark.parametrize("role", ROLES)
def test_every_role_says_what_it_is_for(role):
    assert len((PROJECT / "roles" / role / "README.md").read_text()) > 200
