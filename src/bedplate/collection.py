"""Where the collection and Ansible's programs are: beside this Python, never whatever PATH happens to hold."""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from pathlib import Path

from bedplate.errors import UserError

NAMESPACE = "bedplate.llm"


def collection_folder() -> Path:
    """The installed collection (in a checkout: the checkout itself, through the development link)."""
    spec = importlib.util.find_spec("ansible_collections")
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / "bedplate" / "llm"
        if folder.is_dir():
            return folder.resolve()
    raise UserError(f"The collection {NAMESPACE} is not in the Python at {sys.prefix}; install bedplate again.")


def program(name: str) -> Path:
    """An Ansible program (`ansible-playbook`, `ansible-inventory`) of the same environment as this Python."""
    for folder in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{name} is not beside {sys.executable}; install bedplate again: ansible-core comes with it.")
