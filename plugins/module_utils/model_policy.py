# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What may be in a model's folder: data that is only read, nothing that is ever executed.

Pickles run code when they are loaded, `auto_map` makes the engine import Python from the folder, and a link can lead
to a file that nobody checked.  Refusing them here holds whatever the engine's own flags say.
"""

from __future__ import annotations

import json
import os
from typing import Any, Iterable, List, Optional

from ansible_collections.bedplate.llm.plugins.module_utils.safetensors import SafetensorsError, check

ALLOWED_ENDINGS = (".safetensors", ".json", ".txt", ".model", ".jinja", ".tiktoken")
ALLOWED_NAMES = ("LICENSE", "LICENSE.md", "NOTICE", "README.md")


def name_problem(path: str) -> Optional[str]:
    """Why a file of this name is refused, or None."""
    name = os.path.basename(path)
    if name.endswith(ALLOWED_ENDINGS) or name in ALLOWED_NAMES:
        return None
    return f"{path} is refused: a model has {', '.join(ALLOWED_ENDINGS)} files only, since other kinds can carry code."


def name_problems(paths: Iterable[str]) -> List[str]:
    return [problem for problem in map(name_problem, paths) if problem]


def _has_auto_map(value: Any) -> bool:
    if isinstance(value, dict):
        return "auto_map" in value or any(_has_auto_map(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_auto_map(item) for item in value)
    return False


def _file_problem(path: str, relative: str) -> Optional[str]:
    if os.path.islink(path):
        return f"{relative} is refused: it is a link to {os.readlink(path)}, and a model holds files only."
    if not os.path.isfile(path):
        return f"{relative} is refused: it is neither a file nor a folder."
    refused = name_problem(relative)
    if refused:
        return refused
    if relative.endswith(".safetensors"):
        try:
            with open(path, "rb") as handle:
                check(handle, os.path.getsize(path))
        except SafetensorsError as error:
            return f"{relative} is refused: {error}"
    if relative.endswith("config.json"):
        try:
            with open(path, encoding="utf-8") as handle:
                content = json.load(handle)
        except (ValueError, RecursionError) as error:
            return f"{relative} is refused: it is not JSON ({error})."
        if _has_auto_map(content):
            return f"{relative} is refused: auto_map makes the engine run Python code of the model."
    return None


def problems(directory: str) -> List[str]:
    """One sentence for each file that is refused, sorted; an empty list for a model that may be served."""
    found: List[str] = []
    weights = False
    for folder, folders, files in os.walk(directory):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in files + links:
            path = os.path.join(folder, name)
            weights = weights or name.endswith(".safetensors")
            problem = _file_problem(path, os.path.relpath(path, directory))
            if problem:
                found.append(problem)
    if not os.path.isfile(os.path.join(directory, "config.json")):
        found.append("config.json is missing: the engine reads the model's architecture there.")
    if not weights:
        found.append("there is no .safetensors file: the engine finds no weights.")
    return sorted(found)
