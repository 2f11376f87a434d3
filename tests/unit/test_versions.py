"""One version of the product, and of each package it is tested with, wherever it is written."""

import re
import tomllib
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[2]


def test_the_wheel_and_the_collection_have_the_same_version():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((PROJECT / "galaxy.yml").read_text())["version"] == project


def locked(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    """The packages of a lock: version and digests by name."""
    entries = re.split(r"\n(?=\S)", (PROJECT / "requirements" / name).read_text())
    pinned = [
        (*entry.split()[0].split("=="), frozenset(re.findall(r"sha256:[0-9a-f]{64}", entry))) for entry in entries
    ]
    return {package: (version, digests) for package, version, digests in pinned}


def test_users_get_the_packages_that_the_tests_ran_with():
    runtime, dev = locked("runtime.txt"), locked("dev.txt")
    assert {name: dev.get(name) for name in runtime} == runtime


def test_users_get_every_package_that_the_command_asks_for():
    asked = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[<>=\[;]", line)[0] for line in asked} <= set(locked("runtime.txt"))


def test_modules_say_the_same_oldest_python_everywhere():
    oldest = yaml.safe_load((PROJECT / "roles/preflight/defaults/main.yml").read_text())["preflight_python_minimum"]
    config = yaml.safe_load((PROJECT / "tests/config.yml").read_text())
    assert config["modules"]["python_requires"] == f">={oldest}"
    ruff = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["ruff"]["per-file-target-version"]
    assert set(ruff.values()) == {f"py{oldest.replace('.', '')}"}
