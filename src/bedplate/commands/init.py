"""`bedplate init`: the inventory of a new site, commented, with marks where the site has to decide."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from bedplate import options
from bedplate.errors import UserError

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# (file of the scaffold, where it goes, its mode)
_FILES = (
    ("hosts.yml", "hosts.yml", 0o644),
    ("site.yml", "group_vars/all.yml", 0o644),
    ("README.md", "README.md", 0o644),
    # The dot: Ansible reads every other file below the inventory's folder as an inventory.
    ("secrets.gitignore", ".secrets/.gitignore", 0o644),
)


def init(
    site: Annotated[str, typer.Argument(help="Name of the new site: lower-case letters, digits, - and _.")],
    inventories: options.Inventories = options.DEFAULT_INVENTORIES,
) -> None:
    """Write a commented inventory for a new site; nothing that is already there is touched."""
    if not _NAME.fullmatch(site):
        raise UserError(
            f"init: {site!r} cannot be the name of a site; use lower-case letters, digits, - and _, "
            "and begin with a letter or a digit."
        )
    folder = inventories / site
    if folder.exists() or folder.is_symlink():
        raise UserError(f"init: {folder} is already there and is left as it is; choose another name or remove it.")
    _write(folder, site)
    typer.echo(f"{folder} is written. Next:")
    typer.echo(f"  1. edit {folder}/hosts.yml and {folder}/group_vars/all.yml: every CHANGE-ME is yours to decide")
    typer.echo(f"  2. bedplate ssh-trust --site {site}")
    typer.echo(f"  3. bedplate rollout --site {site} --check")


def _write(folder: Path, site: str) -> None:
    scaffold = resources.files("bedplate") / "scaffold"
    for source, target, mode in _FILES:
        path = folder / target
        secret = path.parent.name == ".secrets"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if secret else 0o755)
        path.write_text((scaffold / source).read_text(encoding="utf-8").replace("@SITE@", site), encoding="utf-8")
        path.chmod(mode)
