# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The bundle: a folder of artefacts with one manifest, bundle.json, of their sha256 digests.

Schema 1 of the manifest:
    schema: 1; name: of the bundle; inputs: digest of what it was built from; target: {python, architecture}
    parts: by id, {kind: engine|image|gateway|model, name, version, digest, path, for an engine and an image the device,
           and for an image its id, which container stores know it by}
    artefacts: [{part, path (relative to the part's path), name, kind, version, sha256, size (bytes), licence, source}]
A part's digest is the sha256 of the lines "<sha256>  <path>\n" of its artefacts, sorted by path.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Dict, Iterable, List, Mapping, Optional, Set, Type

MANIFEST = "bundle.json"
SCHEMA = 1
KINDS = ("engine", "image", "gateway", "model")
# Names become folders, here and on hosts.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")
BUILD = "build it with `bedplate bundle build`"


class BundleError(ValueError):
    """The folder is no bundle that can be used; the message is one sentence for the user."""


@dataclass(frozen=True)
class Artefact:
    """One file; size in bytes, sha256 in hexadecimal, licence as the artefact itself states it."""

    part: str
    path: str
    name: str
    kind: str
    version: str
    sha256: str
    size: int
    licence: str
    source: str


@dataclass(frozen=True)
class Part:
    """What a role takes from the bundle as a whole.

    device: cpu, cuda, or empty where there is no such choice.  image: id of a container image, empty for all else.
    """

    id: str
    kind: str
    name: str
    version: str
    digest: str
    path: str
    device: str = ""
    image: str = ""


@dataclass(frozen=True)
class Bundle:
    name: str
    inputs: str
    target: Dict[str, str]
    parts: Dict[str, Part]
    artefacts: List[Artefact]

    def of(self, part: str) -> List[Artefact]:
        return [artefact for artefact in self.artefacts if artefact.part == part]


@dataclass(frozen=True)
class Problem:
    """path: relative to the bundle's folder."""

    path: str
    sentence: str


def part_digest(artefacts: Iterable[Artefact]) -> str:
    digest = hashlib.sha256()
    for artefact in sorted(artefacts, key=lambda item: item.path):
        digest.update(f"{artefact.sha256}  {artefact.path}\n".encode())
    return digest.hexdigest()


def file_digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1024 * 1024), b""):
            digest.update(block)
    return digest.hexdigest()


def to_json(bundle: Bundle) -> str:
    parts = {}
    for part in bundle.parts.values():
        described = asdict(part)
        del described["id"]
        for optional in ("device", "image"):
            if not described[optional]:
                del described[optional]
        parts[part.id] = described
    content = {
        "schema": SCHEMA,
        "name": bundle.name,
        "inputs": bundle.inputs,
        "target": bundle.target,
        "parts": parts,
        "artefacts": [asdict(artefact) for artefact in bundle.artefacts],
    }
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _inside(path: str) -> bool:
    return not posixpath.isabs(path) and posixpath.normpath(path) == path and path.split("/")[0] not in ("..", ".")


def _typed(cls: Type[Any], described: Mapping[str, Any]) -> Dict[str, Any]:
    """The values for a dataclass whose fields are text, but for `size`; TypeError for a value of another kind."""
    for field in fields(cls):
        wanted = int if field.name == "size" else str
        if field.name not in described:
            continue
        value = described[field.name]
        # To Python, true is an int.
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise TypeError(f"{field.name} is {value!r}")
    return dict(described)


def _fault(bundle: Bundle) -> str:
    """The first reason not to use this bundle, or nothing."""
    for part in bundle.parts.values():
        if part.kind not in KINDS:
            return f"part {part.id} is of the kind {part.kind!r}, known are {', '.join(KINDS)}; {BUILD} again"
        if not NAME.fullmatch(part.name) or not VERSION.fullmatch(part.version):
            return f"part {part.id} is called {part.name!r} {part.version!r}, which cannot name a folder; do not use it"
        if (part.kind == "image") != bool(SHA256.fullmatch(part.image)):
            return f"part {part.id} is of the kind {part.kind!r} with the image id {part.image!r}; {BUILD} again"
    for path in [part.path for part in bundle.parts.values()] + [artefact.path for artefact in bundle.artefacts]:
        if not _inside(path):
            return f"it names {path!r}, which leads out of the bundle; do not use this bundle"
    seen: Set[str] = set()
    for artefact in bundle.artefacts:
        if artefact.part not in bundle.parts:
            return f"artefact {artefact.path} belongs to part {artefact.part!r}, which is not there; {BUILD} again"
        place = posixpath.join(bundle.parts[artefact.part].path, artefact.path)
        if place in seen:
            return f"it names {place} twice; {BUILD} again"
        seen.add(place)
        if artefact.size < 0 or not SHA256.fullmatch(artefact.sha256):
            return f"artefact {place} has size {artefact.size} and sha256 {artefact.sha256!r}; {BUILD} again"
    for part in bundle.parts.values():
        if part_digest(bundle.of(part.id)) != part.digest:
            return f"the digest of part {part.id} is not that of its artefacts; {BUILD} again"
    return ""


def from_json(text: str, where: str) -> Bundle:
    """where: the manifest's path, for messages."""
    try:
        content = json.loads(text)
        if content["schema"] != SCHEMA:
            raise BundleError(f"{where} has schema {content['schema']!r}, this version reads {SCHEMA}; {BUILD} again.")
        bundle = Bundle(
            name=str(content["name"]),
            inputs=str(content.get("inputs", "")),
            target={"python": str(content["target"]["python"]), "architecture": str(content["target"]["architecture"])},
            parts={name: Part(id=name, **_typed(Part, described)) for name, described in content["parts"].items()},
            artefacts=[Artefact(**_typed(Artefact, described)) for described in content["artefacts"]],
        )
    except BundleError:
        raise
    except KeyError as error:
        raise BundleError(f"{where} is no manifest of a bundle ({error} is missing); {BUILD} again.") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise BundleError(f"{where} is no manifest of a bundle ({error}); {BUILD} again.") from error
    fault = _fault(bundle)
    if fault:
        raise BundleError(f"{where}: {fault}.")
    return bundle


def load(directory: str) -> Bundle:
    path = os.path.join(directory, MANIFEST)
    try:
        with open(path, encoding="utf-8") as handle:
            return from_json(handle.read(), path)
    except FileNotFoundError:
        raise BundleError(f"there is no bundle at {directory} ({MANIFEST} is missing); {BUILD}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}.") from error


def find_part(
    bundle: Bundle, part: Optional[str] = None, kind: Optional[str] = None, name: Optional[str] = None
) -> Part:
    """By id, or by kind and name."""
    for candidate in bundle.parts.values():
        asked = ((part, candidate.id), (kind, candidate.kind), (name, candidate.name))
        if all(wanted is None or wanted == found for wanted, found in asked):
            return candidate
    missing = part or f"{kind or 'part'} {name or ''}".strip()
    there = ", ".join(sorted(bundle.parts)) or "nothing"
    raise BundleError(f"the bundle {bundle.name!r} has no {missing!r}, it has {there}; {BUILD} with it.")


def verify(directory: str) -> List[Problem]:
    """Every difference between the folder and its manifest; BundleError when there is no manifest to compare with."""
    bundle = load(directory)
    problems: List[Problem] = []
    expected: Set[str] = {MANIFEST}
    for artefact in bundle.artefacts:
        relative = posixpath.join(bundle.parts[artefact.part].path, artefact.path)
        expected.add(relative)
        path = os.path.join(directory, relative)
        if os.path.islink(path):
            problems.append(Problem(relative, "is a link; a bundle holds files only."))
        elif not os.path.isfile(path):
            problems.append(Problem(relative, "is missing."))
        elif os.path.getsize(path) != artefact.size:
            problems.append(Problem(relative, f"has {os.path.getsize(path)} bytes, the manifest says {artefact.size}."))
        else:
            found = file_digest(path)
            if found != artefact.sha256:
                problems.append(Problem(relative, f"has sha256 {found}, the manifest says {artefact.sha256}."))
    for folder, folders, files in os.walk(directory):
        for entry in files + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            relative = os.path.relpath(os.path.join(folder, entry), directory)
            if relative not in expected:
                problems.append(Problem(relative, "is not in the manifest."))
    return sorted(problems, key=lambda problem: problem.path)
