"""Wheels by their hashes: downloaded once with the operator's own pip configuration, kept in a cache."""

from __future__ import annotations

import email
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bedplate.errors import UserError

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Wheel:
    """A wheel in the cache, and what its metadata says of it."""

    path: Path
    name: str
    version: str
    licence: str

    @property
    def source(self) -> str:
        return f"pypi:{self.name}=={self.version}"


def cache_folder() -> Path:
    if os.geteuid() == 0:
        return Path("/var/cache/bedplate/wheels")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "bedplate" / "wheels"


def describe(path: Path) -> Wheel:
    with zipfile.ZipFile(path) as archive:
        name = next(entry for entry in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", entry))
        metadata = email.message_from_bytes(archive.read(name))
    classified = [
        value.rpartition(" :: ")[2] for value in metadata.get_all("Classifier", []) if value.startswith("License ::")
    ]
    stated = (
        metadata.get("License-Expression") or ", ".join(classified) or (metadata.get("License") or "").split("\n")[0]
    )
    return Wheel(path, metadata["Name"], metadata["Version"], stated.strip() or "not stated")


def fetch(lock: Path, python: str, progress: Progress) -> list[Wheel]:
    """The wheels of a lock file for a Python such as "3.11", from the cache or through pip; UserError when pip has no luck."""
    key = hashlib.sha256(lock.read_bytes() + python.encode()).hexdigest()
    folder = cache_folder() / f"{lock.stem}-{key[:12]}"
    listing = folder / "wheels.json"
    if not listing.is_file():
        _download(lock, python, folder, progress)
        listing.write_text(json.dumps(sorted(path.name for path in folder.glob("*.whl"))))
    return [describe(folder / name) for name in json.loads(listing.read_text())]


def _download(lock: Path, python: str, folder: Path, progress: Progress) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--dest", str(folder), "--requirement", str(lock)]
    if python != f"{sys.version_info.major}.{sys.version_info.minor}":
        command += ["--python-version", python, "--implementation", "cp", "--abi", f"cp{python.replace('.', '')}"]
        command += ["--abi", "abi3", "--abi", "none"]
        for platform in ("manylinux_2_28", "manylinux_2_17", "manylinux2014", "linux"):
            command += ["--platform", f"{platform}_{os.uname().machine}"]
    total = len(re.findall(r"^\S+==", lock.read_text(), re.MULTILINE))
    said: list[str] = []
    done = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            said.append(line.strip())
            if line.startswith(("Collecting ", "Processing ")):
                done += 1
                megabytes = sum(path.stat().st_size for path in folder.glob("*.whl")) / 1e6
                progress(f"{lock.stem}: wheel {done} of {total}, {megabytes:.0f} MB so far: {line.split()[1]}")
    if process.returncode:
        errors = [line for line in said if line.startswith("ERROR")] or said[-1:]
        raise UserError(
            f"pip could not fetch the wheels of {lock.name} for Python {python}: {' '.join(errors)} "
            "If the wheel is the CPU build of torch, tell pip where such builds are with PIP_FIND_LINKS or "
            "PIP_EXTRA_INDEX_URL and build again."
        )
