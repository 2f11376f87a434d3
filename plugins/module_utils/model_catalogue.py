# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The catalogue: models that can be planned without having their files.

One JSON file a model, in the folder catalogue beside this file and in a folder of the user's own, whose names win:
    schema: 1; name; aliases; model: where it is published; config: the fields of its config.json that count;
    source: where the figures come from; config_sha256: of that config.json, or empty;
    engine_minimum: the first vLLM that serves it, reasoning_parser, tool_parser, templates, sampling: see Entry;
    recipes: [{precision, model, flags, note}], quantised variants
The files are read on the operator's machine: by the command and by plugins of the controller.  A module that Ansible
copies to a host is copied without them.
"""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import model_architecture
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import Architecture, ModelError
from ansible_collections.bedplate.llm.plugins.module_utils.plan_terms import PRECISIONS

SCHEMA = 1
# Of the model's own files; made by the engine, which has an encoder for the architecture.
TEMPLATES = ("files", "engine")
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "catalogue")
FIELDS: Dict[str, type] = {
    "name": str, "aliases": list, "model": str, "config": dict, "source": str, "config_sha256": str,
    "engine_minimum": str, "reasoning_parser": str, "tool_parser": str, "templates": dict, "sampling": dict,
    "recipes": list,
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """A quantised variant.  precision: of plan_terms.PRECISIONS; model: where it is published, or empty when the
    engine quantises while it loads; flags: of the engine, without dashes."""

    precision: str
    model: str
    flags: Mapping[str, Any]
    note: str


@dataclass(frozen=True)
class Entry:
    """One model.  sampling: what its makers recommend, by the names of vLLM's interface, empty where they say nothing;
    engine_minimum: the first vLLM release that serves it, with the parsers named here.
    templates: where the prompt's form comes from, for chat and for tools: of TEMPLATES, or a file of vLLM's repository
    for --chat-template; empty without a tool_parser."""

    name: str
    aliases: Tuple[str, ...]
    model: str
    architecture: Architecture
    config: Mapping[str, Any]
    source: str
    config_sha256: str
    engine_minimum: str
    reasoning_parser: str
    tool_parser: str
    templates: Mapping[str, str]
    sampling: Mapping[str, Any]
    recipes: Tuple[Recipe, ...]


def _recipe(value: Any, where: str) -> Recipe:
    if not isinstance(value, dict) or set(value) != {"precision", "model", "flags", "note"}:
        raise ModelError(f"{where}: a recipe is {value!r}; expected precision, model, flags and note.")
    if value["precision"] not in PRECISIONS:
        found = value["precision"]
        raise ModelError(f"{where}: a recipe's precision is {found!r}; expected one of {', '.join(PRECISIONS)}.")
    return Recipe(value["precision"], value["model"], value["flags"], value["note"])


def _templates(value: Mapping[str, Any], where: str) -> Mapping[str, str]:
    for name, known in (("chat", TEMPLATES), ("tools", ("", *TEMPLATES))):
        found = value.get(name)
        if found not in known and not (isinstance(found, str) and found.endswith(".jinja")):
            raise ModelError(
                f"{where}: the template for {name} is {found!r}; expected files, engine or the name of a .jinja file."
            )
    if set(value) != {"chat", "tools"}:
        raise ModelError(f"{where}: templates has {', '.join(map(str, value))}; expected chat and tools.")
    return value


def parse(text: str, where: str) -> Entry:
    """The entry in a file's text; ModelError in one sentence, with the file's name."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: it is not JSON ({error}).") from error
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        found = value.get("schema") if isinstance(value, dict) else value
        raise ModelError(f"{where}: schema is {found!r}; expected {SCHEMA}.")
    for name in value:
        if name not in FIELDS and name != "schema":
            raise ModelError(f"{where}: {name} is no field of an entry; known are {', '.join(FIELDS)}.")
    for name, kind in FIELDS.items():
        if not isinstance(value.get(name), kind):
            raise ModelError(f"{where}: {name} is {value.get(name)!r}; expected a {kind.__name__}.")
    return Entry(
        name=value["name"],
        aliases=tuple(str(alias) for alias in value["aliases"]),
        model=value["model"],
        architecture=model_architecture.parse(value["config"], where),
        config=value["config"],
        source=value["source"],
        config_sha256=value["config_sha256"],
        engine_minimum=value["engine_minimum"],
        reasoning_parser=value["reasoning_parser"],
        tool_parser=value["tool_parser"],
        templates=_templates(value["templates"], where),
        sampling=value["sampling"],
        recipes=tuple(_recipe(recipe, where) for recipe in value["recipes"]),
    )


def _read(folder: str) -> List[Entry]:
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    except OSError as error:
        raise ModelError(
            f"the catalogue {folder} cannot be read ({error.strerror}); name a folder of files."
        ) from error
    entries = []
    for name in names:
        path = os.path.join(folder, name)
        try:
            with open(path, encoding="utf-8") as handle:
                entries.append(parse(handle.read(), path))
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{path} cannot be read ({error}).") from error
    seen: Dict[str, str] = {}
    for entry in entries:
        for name in (entry.name, *entry.aliases):
            if seen.setdefault(name.lower(), entry.name) != entry.name:
                raise ModelError(f"{folder}: {name} names both {seen[name.lower()]} and {entry.name}; rename one.")
    return entries


def load(own: Optional[str] = None) -> List[Entry]:
    """All entries, sorted by name; own: a folder of further files, whose names and aliases win."""
    mine = _read(own) if own else []
    taken = {name.lower() for entry in mine for name in (entry.name, *entry.aliases)}
    ours = [
        replace(entry, aliases=tuple(alias for alias in entry.aliases if alias.lower() not in taken))
        for entry in _read(FOLDER)
        if entry.name.lower() not in taken
    ]
    return sorted(mine + ours, key=lambda entry: entry.name)


def find(name: str, entries: Sequence[Entry]) -> Entry:
    """The entry of this name, alias or published place, whatever its case; ModelError names the nearest."""
    known: Dict[str, Entry] = {}
    for entry in entries:
        known.setdefault(entry.name.lower(), entry)
    for entry in entries:
        for other in (*entry.aliases, entry.model):
            known.setdefault(other.lower(), entry)
    if name.lower() in known:
        return known[name.lower()]
    near = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(entry.name for entry in entries)}."
    raise ModelError(f"the catalogue has no model {name!r}; {hint}")
