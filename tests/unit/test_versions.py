"""One version of the product, wherever it is written."""

import tomllib
from pathlib import Path

import bedplate
import yaml

PROJECT = Path(__file__).resolve().parents[2]


def test_package_collection_and_project_have_the_same_version():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    collection = yaml.safe_load((PROJECT / "galaxy.yml").read_text())["version"]
    assert project == collection == bedplate.__version__
