"""Wheels by their hashes: downloaded once with the operator's own pip configuration, kept in a cache."""

from __future__ import annotations

import email
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ansible_collections.bedplate.llm.plugins.module_utils.bundle import file_digest

from bedplate.bundles.download import Target, download
from bedplate.bundles.progress import Progress
from bedplate.errors import UserError

INDEX = "wheels.json"


@dataclass(frozen=True)
class Wheel:
    """A wheel in the cache, what its metadata says of it, and its stamp: what it was when it was hashed."""

    path: Path
    name: str
    version: str
    licence: str
    sha256: str
    size: int
    mtime_ns: int

    @property
    def source(self) -> str:
        return f"pypi:{self.name}=={self.version}"

    @property
    def unchanged(self) -> bool:
        try:
            status = self.path.stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)


def cache_folder() -> Path:
    if os.geteuid() == 0:
        return Path("/var/cache/bedplate/wheels")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "bedplate" / "wheels"


def locked(lock: Path) -> dict[str, set[str]]:
    """The sha256 digests that a lock file allows, by requirement, such as `torch==2.13.0+cpu`."""
    found: dict[str, set[str]] = {}
    requirement = ""
    for line in lock.read_text(encoding="utf-8").splitlines():
        pin = re.match(r"[A-Za-z0-9._-]+==[^\s;\\]+", line)
        if pin:
            requirement = pin.group()
            found[requirement] = set()
        if requirement:
            found[requirement].update(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
    without = [pin for pin, digests in found.items() if not digests]
    if without or not found:
        raise UserError(
            f"{lock} is no lock file with hashes ({', '.join(without) or 'it names nothing'}); "
            "make one with `uv pip compile --generate-hashes`."
        )
    return found


def describe(path: Path) -> Wheel:
    with zipfile.ZipFile(path) as archive:
        entry = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        metadata = email.message_from_bytes(archive.read(entry))
    classifiers = metadata.get_all("Classifier", [])
    classified = [value.rpartition(" :: ")[2] for value in classifiers if value.startswith("License ::")]
    # The free field comes last: some projects put the whole text of their licence there.
    free = (metadata.get("License") or "").partition("\n")[0]
    licence = metadata.get("License-Expression") or ", ".join(classified) or free
    status = path.stat()
    return Wheel(
        path=path,
        name=metadata["Name"],
        version=metadata["Version"],
        licence=licence.strip() or "not stated",
        sha256=file_digest(str(path)),
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
    )


def fetch(lock: Path, target: Target, progress: Progress) -> list[Wheel]:
    """Every wheel of a lock file, from the cache or through pip; UserError when they cannot be had."""
    wanted = locked(lock)
    key = hashlib.sha256(lock.read_bytes() + repr(target).encode()).hexdigest()
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{lock.stem}-{key[:12]}"
    with _exclusive(cache, progress):
        wheels = _read(folder)
        if wheels is None:
            wheels = _fill(folder, lock, wanted, target, progress)
    return wheels


@contextmanager
def _exclusive(cache: Path, progress: Progress) -> Iterator[None]:
    """One build at a time fills the cache; another waits and then finds it filled."""
    with (cache / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another build that fills {cache}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _read(folder: Path) -> list[Wheel] | None:
    """What the cache holds, or None when it has to be filled.

    Bundles share these files (they are links where that is possible), so a file that somebody damaged in a bundle is
    damaged here: the cache is only used while nothing in it has changed since it was hashed.
    """
    try:
        entries = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        wheels = [Wheel(**{**entry, "path": folder / entry["path"]}) for entry in entries]
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None
    return wheels if all(wheel.unchanged for wheel in wheels) else None


def _fill(folder: Path, lock: Path, wanted: dict[str, set[str]], target: Target, progress: Progress) -> list[Wheel]:
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as scratch:
        filling = Path(scratch) / "wheels"
        filling.mkdir()
        download(lock, target, filling, len(wanted), progress)
        wheels = [describe(path) for path in sorted(filling.glob("*.whl"))]
        # pip has compared the hashes; that every pin brought one file, and no other file came, is for us to say.
        allowed = set().union(*wanted.values())
        strangers = [wheel.path.name for wheel in wheels if wheel.sha256 not in allowed]
        if strangers or len(wheels) != len(wanted):
            raise UserError(
                f"pip brought {len(wheels)} wheels for the {len(wanted)} pins of {lock.name}"
                + (f", and {', '.join(strangers)} is not in it" if strangers else "")
                + "; remove what your pip configuration adds and build again."
            )
        for wheel in wheels:
            wheel.path.chmod(0o444)
        entries = [{**asdict(wheel), "path": wheel.path.name} for wheel in wheels]
        (filling / INDEX).write_text(json.dumps(entries, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        filling.rename(folder)
    return _read(folder) or []
