# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with a site's encrypted volumes, and what the escrow says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

from ansible_collections.bedplate.llm.plugins.module_utils import volume_declared, volume_methods


def luks_volume_problems(settings: Mapping[str, Any]) -> list[str]:
    declared = settings["volumes"]
    volumes, problems = volume_declared.parse(declared, settings["arrays"])
    methods = [method for volume in volumes for method in volume.unlock]
    problems += [f"{said}." for said in volume_methods.settings_problems(volume_methods.settings(settings), methods)]
    if declared:
        problems += _escrow_problems(str(settings["escrow_dir"]), str(settings["escrow_password_file"]))
    return problems


def _escrow_problems(folder: str, password: str) -> list[str]:
    if not Path(folder).is_absolute():
        # Another working directory would be another escrow.
        return [f"luks_volume_escrow_dir: give an absolute path, found {folder!r}."]
    if not password:
        return [
            "luks_volume_escrow_password_file: name the file with the escrow's password, or a program that prints"
            " it; without"
            " it a volume would be lost with its host."
        ]
    file = Path(password)
    if not file.is_file():
        return [
            f"luks_volume_escrow_password_file: there is no file {password}; make it with `openssl rand -base64 32`."
        ]
    if Path(folder).resolve() in file.resolve().parents:
        return [
            f"luks_volume_escrow_password_file: {password} lies in the escrow that it opens ({folder}); keep the two"
            " apart."
        ]
    return []


def volume_escrow_keys(declared: Sequence[Mapping[str, Any]], host: str) -> list[str]:
    """Of every volume, the name of its device's folder in the escrow."""
    arrays = [str(entry.get("array")) for entry in declared if entry.get("array")]
    return [volume_declared.escrow_key(volume, host) for volume in volume_declared.parse(declared, arrays)[0]]


def volume_escrow(path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return found


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "luks_volume_problems": luks_volume_problems,
            "volume_escrow_keys": volume_escrow_keys,
            "volume_escrow": volume_escrow,
        }
