# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A model on a host: an immutable folder named by its digest, with a record of what was verified when it was installed.

`<root>/<name>/<digest12>/`: the files, read-only.
`<root>/<name>/<digest12>.json`: the record, written last: {digest, files: {path: {sha256, size, mtime_ns}}}.
`<root>/.incoming/<name>-<digest12>/`: what a transfer brought and nobody has verified yet; on the file system of the
store, so that a model gets its name by a rename and is never half there.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import shutil
import stat
import tempfile
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from ansible_collections.bedplate.llm.plugins.module_utils.model_policy import problems

FILE_MODE = 0o444
FOLDER_MODE = 0o555
PASSABLE = 0o755
# The notes that the transfer (bedplate.llm.bundle_push) keeps beside the files.
TRANSFER_INDEX = ".verified.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
DIGEST = re.compile(r"[0-9a-f]{64}")


class ModelError(ValueError):
    """The model cannot be declared or installed; the message is one sentence for the user, or a few."""


@dataclass(frozen=True)
class Model:
    """One model as the bundle declares it; files: sha256 and size (bytes) by path."""

    name: str
    digest: str
    path: str
    incoming: str
    files: Dict[str, Dict[str, Any]]

    @property
    def record(self) -> str:
        return self.path + ".json"


def declare(root: str, name: str, digest: str, artefacts: Sequence[Mapping[str, Any]]) -> Model:
    """The model with its places below root; ModelError when one of them would be outside."""
    if not NAME.fullmatch(name):
        raise ModelError(f"the model's name {name!r} cannot name a folder; use letters, digits, dot, dash, underscore.")
    if not DIGEST.fullmatch(digest):
        raise ModelError(f"the digest {digest!r} of the model {name} is no sha256 of 64 hexadecimal digits.")
    for item in artefacts:
        path = item["path"]
        if posixpath.isabs(path) or posixpath.normpath(path) != path or path.startswith(".."):
            raise ModelError(f"the file {path!r} of the model {name} leads out of its folder; do not use this bundle.")
    files = {str(item["path"]): {"sha256": str(item["sha256"]), "size": int(item["size"])} for item in artefacts}
    short = digest[:12]
    incoming = os.path.join(root, ".incoming", f"{name}-{short}")
    return Model(name, digest, os.path.join(root, name, short), incoming, files)


def file_digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1024 * 1024), b""):
            digest.update(block)
    return digest.hexdigest()


def listing(directory: str) -> List[str]:
    """Files and links below the directory, relative to it."""
    found = []
    for folder, folders, files in os.walk(directory):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found += [os.path.relpath(os.path.join(folder, name), directory) for name in files + links]
    return sorted(found)


def differences(model: Model, directory: str, deep: bool, record: Optional[Mapping[str, Any]] = None) -> List[str]:
    """How the folder differs from the bundle's manifest, one sentence each.

    deep: hash every file.  Otherwise its size and time of change must be those of the record, made when it was hashed.
    """
    there = listing(directory)
    found = [f"{path} is not in the bundle's manifest." for path in there if path not in model.files]
    for path, expected in sorted(model.files.items()):
        full = os.path.join(directory, path)
        if path not in there:
            found.append(f"{path} is missing.")
            continue
        if os.path.islink(full):
            found.append(f"{path} is a link.")
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
    files = content.get("files")
    return files if isinstance(files, dict) else None


def installed(model: Model) -> bool:
    return read_record(model) is not None and os.path.isdir(model.path)


def _entries(directory: str) -> Iterator[str]:
    """The folder and everything below it."""
    yield directory
    for folder, folders, files in os.walk(directory):
        for name in folders + files:
            yield os.path.join(folder, name)


def writable(directory: str, owner: int = 0) -> List[str]:
    """Paths that somebody other than the owner could change, or that have a bit for writing."""
    loose = []
    for path in _entries(directory):
        status = os.lstat(path)
        if status.st_uid != owner or status.st_mode & 0o222:
            loose.append(os.path.relpath(path, directory))
    return sorted(loose)


def _flush(path: str) -> None:
    """The record must not survive a power failure that the files did not."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _seal(directory: str, owner: int) -> None:
    for path in _entries(directory):
        os.chown(path, owner, -1)
        os.chmod(path, FOLDER_MODE if os.path.isdir(path) else FILE_MODE)
        _flush(path)


def _open_parents(model: Model) -> None:
    """The engine's user passes through both, whatever the umask was when the transfer made them."""
    parent = os.path.dirname(model.path)
    os.makedirs(parent, exist_ok=True)
    for folder in (os.path.dirname(parent), parent):
        os.chmod(folder, stat.S_IMODE(os.stat(folder).st_mode) | PASSABLE)


def _write_record(model: Model) -> None:
    files = {
        path: {**expected, "mtime_ns": os.lstat(os.path.join(model.path, path)).st_mtime_ns}
        for path, expected in model.files.items()
    }
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(model.path))
    with os.fdopen(handle, "w", encoding="utf-8") as record:
        json.dump({"digest": model.digest, "files": files}, record, indent=1, sort_keys=True)
        record.write("\n")
        record.flush()
        os.fsync(record.fileno())
    os.chmod(temporary, FILE_MODE)
    os.replace(temporary, model.record)
    _flush(os.path.dirname(model.path))


def install(model: Model, owner: int = 0) -> None:
    """From the incoming folder to the final name, with nothing unverified in between.

    A folder that is already there without a record is what an interrupted installation left: it is kept when every
    file is right, and an error otherwise.
    """
    if os.path.lexists(model.path):
        wrong = ["it is a link."] if os.path.islink(model.path) else differences(model, model.path, deep=True)
        wrong = wrong or problems(model.path)
        if wrong:
            raise ModelError(
                f"{model.path} exists with other content and is not replaced: {' '.join(wrong)} "
                "Move it away and roll out again."
            )
        _seal(model.path, owner)
    else:
        if not os.path.isdir(model.incoming):
            raise ModelError(f"the files of the model {model.name} are not at {model.incoming}; push them first.")
        index = os.path.join(model.incoming, TRANSFER_INDEX)
        if os.path.lexists(index):
            os.unlink(index)
        wrong = differences(model, model.incoming, deep=True) + problems(model.incoming)
        if wrong:
            raise ModelError(f"the model {model.name} is refused: {' '.join(wrong)}")
        # Sealed under the final name, since a sealed folder can be renamed by root only. The record makes it count.
        _open_parents(model)
        os.replace(model.incoming, model.path)
        _seal(model.path, owner)
    _write_record(model)
    shutil.rmtree(model.incoming, ignore_errors=True)
