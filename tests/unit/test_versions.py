"""One version of the product, wherever it is written; the command reads the collection's."""

import tomllib
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parents[2]


def test_the_wheel_and_the_collection_have_the_same_version():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((PROJECT / "galaxy.yml").read_text())["version"] == project
