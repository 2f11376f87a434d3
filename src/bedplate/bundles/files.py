"""Putting files into a bundle: without copying where the disk allows it, hashed on the way where it does not."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from pathlib import Path
from typing import IO

from bedplate.bundles.progress import Meter, silent
from bedplate.errors import UserError

BLOCK = 1024 * 1024


def link(source: Path, target: Path) -> None:
    """For a file whose digest is known: a second name, which costs neither disk nor time, or else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def add(source: Path, target: Path, meter: Meter) -> str:
    """A second name or a copy of a file; returns its sha256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with source.open("rb") as content, target.open("wb") as out:
            return _pump(content, out, meter)
    with target.open("rb") as content:
        return _pump(content, None, meter)


def extract(archive: Path, ending: str, target: Path, mode: int = 0o644) -> str:
    """The one file of a zip archive whose name ends so; returns its sha256."""
    with zipfile.ZipFile(archive) as opened:
        names = [name for name in opened.namelist() if name.endswith(ending)]
        if len(names) != 1:
            raise UserError(f"{archive.name} should hold one file …{ending}, it holds {len(names)}.")
        target.parent.mkdir(parents=True, exist_ok=True)
        size = opened.getinfo(names[0]).file_size
        with opened.open(names[0]) as content, target.open("wb") as out:
            digest = _pump(content, out, Meter(target.name, size, silent))
    target.chmod(mode)
    return digest


def _pump(content: IO[bytes], out: IO[bytes] | None, meter: Meter) -> str:
    digest = hashlib.sha256()
    while block := content.read(BLOCK):
        digest.update(block)
        if out:
            out.write(block)
        meter.add(len(block))
    return digest.hexdigest()
