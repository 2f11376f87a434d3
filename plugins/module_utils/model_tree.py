# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A model on a host: an immutable folder named by its digest, with a record of what was verified when it was installed.

    <root>/<name>/<digest12>/         the files, read-only
    <root>/<name>/<digest12>.json     the record, written last: {digest, files: {path: {sha256, size, mtime_ns}}}
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence


@dataclass(frozen=True)
class Model:
    """One model as the bundle declares it; files: sha256 and size (bytes) by path."""

    name: str
    digest: str
    path: str
    files: Dict[str, Dict[str, Any]]

    @property
    def record(self) -> str:
        return self.path + ".json"


def declare(root: str, name: str, digest: str, artefacts: Sequence[Mapping[str, Any]]) -> Model:
    files = {str(item["path"]): {"sha256": str(item["sha256"]), "size": int(item["size"])} for item in artefacts}
    return Model(name, digest, os.path.join(root, name, digest[:12]), files)


def file_digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1024 * 1024), b""):
            digest.update(block)
    return digest.hexdigest()


def listing(directory: str) -> List[str]:
    found = []
    for folder, folders, files in os.walk(directory):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found += [os.path.relpath(os.path.join(folder, name), directory) for name in files + links]
    return sorted(found)


def differences(model: Model, directory: str, deep: bool, record: Optional[Mapping[str, Any]] = None) -> List[str]:
    """How the folder differs from the bundle's manifest, one sentence each.

    deep: hash every file.  Otherwise its size and time of change must be those of the record, made when it was hashed.
    """
    found: List[str] = []
    there = listing(directory)
    for path in there:
        if path not in model.files:
            found.append(f"{path} is not in the bundle's manifest.")
    for path, expected in sorted(model.files.items()):
        full = os.path.join(directory, path)
        if path not in there:
            found.append(f"{path} is missing.")
            continue
        status = os.lstat(full)
        if status.st_size != expected["size"]:
            found.append(f"{path} has {status.st_size} bytes, the manifest says {expected['size']}.")
        elif deep:
            digest = file_digest(full)
            if digest != expected["sha256"]:
                found.append(f"{path} has sha256 {digest}, the manifest says {expected['sha256']}.")
        elif record is None or record.get(path, {}).get("mtime_ns") != status.st_mtime_ns:
            found.append(f"{path} was changed after it was verified.")
    return found


def read_record(model: Model) -> Optional[Dict[str, Any]]:
    """The files of the record, or None when there is none for this digest."""
    try:
        with open(model.record, encoding="utf-8") as handle:
            content = json.load(handle)
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("digest") != model.digest:
        return None
    files: Dict[str, Any] = content.get("files", {})
    return files


def make_record(model: Model) -> str:
    files = {
        path: {**expected, "mtime_ns": os.lstat(os.path.join(model.path, path)).st_mtime_ns}
        for path, expected in model.files.items()
    }
    return json.dumps({"digest": model.digest, "files": files}, indent=1, sort_keys=True) + "\n"


def writable(directory: str) -> List[str]:
    """Paths that somebody other than root could change, or that any user may write."""
    found = []
    for folder, dummy, files in os.walk(directory):
        for path in [folder] + [os.path.join(folder, name) for name in files]:
            status = os.lstat(path)
            if status.st_uid != 0 or status.st_mode & 0o222:
                found.append(os.path.relpath(path, directory))
    return sorted(found)
