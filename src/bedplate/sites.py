"""Sites: inventory folders below one directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bedplate.errors import UserError

# What makes a folder an inventory: a file that declares hosts.
_HOST_FILES = ("hosts.yml", "hosts.yaml", "hosts.ini", "hosts", "inventory.yml", "inventory.ini")


@dataclass(frozen=True)
class Site:
    name: str
    path: Path


def is_site(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _HOST_FILES)


def all_sites(inventories: Path) -> list[Site]:
    if not inventories.is_dir():
        return []
    return [Site(folder.name, folder.resolve()) for folder in sorted(inventories.iterdir()) if is_site(folder)]


def find_site(name: str, inventories: Path) -> Site:
    """The site of that name; otherwise a sentence that lists those that are there."""
    sites = {site.name: site for site in all_sites(inventories)}
    if name in sites:
        return sites[name]
    if (inventories / name).is_dir():
        raise UserError(
            f"Site {name!r}: {inventories / name} holds no hosts.yml, so it declares no host; "
            "write one, or choose another folder with --inventories."
        )
    if not sites:
        found = f"{inventories} holds no site"
        remedy = "`bedplate lab up` makes the site lab, and `bedplate init NAME` a site of your own"
    else:
        found = f"{inventories} holds {', '.join(sites)}"
        remedy = "choose one of these, or another folder with --inventories"
    raise UserError(f"No site {name!r}: {found}; {remedy}.")
