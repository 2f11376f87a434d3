"""Options that several commands share, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SiteName = Annotated[str, typer.Option("--site", "-s", help="Name of the site: a folder of the inventories.")]
Inventories = Annotated[
    Path, typer.Option("--inventories", envvar="BEDPLATE_INVENTORIES", help="Folder that holds the sites.")
]
Limit = Annotated[str, typer.Option("--limit", "-l", help="Only these hosts or groups, as Ansible writes them.")]
ExtraVars = Annotated[
    list[str] | None,
    typer.Option("--extra-vars", "-e", help="NAME=VALUE, a JSON object or @FILE; never a secret. May be repeated."),
]
Check = Annotated[bool, typer.Option("--check", help="Change nothing; say what would change.")]
Diff = Annotated[bool, typer.Option("--diff", help="Show the changes inside files.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines: one JSON object to a line on stdout.")]

DEFAULT_INVENTORIES = Path("inventories")
