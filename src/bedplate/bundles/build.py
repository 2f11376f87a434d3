"""Build a bundle: the engine's wheels, the gateway, models; beside the old one, and put in its place when complete."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.bedplate.llm.plugins.module_utils import bundle, tiny_model, tiny_model_text

from bedplate.bundles import DEFAULT_DEVICE
from bedplate.bundles.assemble import (
    TINY_MODEL,
    Assembler,
    Locks,
    require_models,
    require_python,
)
from bedplate.bundles.download import Target
from bedplate.bundles.images import EngineImage
from bedplate.bundles.progress import Progress, silent
from bedplate.errors import UserError

# Changed when this program makes another bundle of the same inputs, so that old ones are not taken for up to date.
RECIPE = "3"


@dataclass(frozen=True)
class Built:
    """changed is false when the folder already held what would be built."""

    path: Path
    changed: bool
    bytes: int


def build(
    name: str,
    destination: Path,
    *,
    models: Sequence[Path] = (),
    python: str | None = None,
    device: str = DEFAULT_DEVICE,
    engine_lock: Path | None = None,
    image: EngineImage | None = None,
    progress: Progress = silent,
) -> Built:
    """Make `destination` the bundle.

    models: folders of models; without any, the bundle gets the lab's tiny one, so that there is something to serve.
    python: the hosts' version such as "3.11", by default that of this machine.  engine_lock: a lock file instead of the
    one that this version has for the device.  image: the engine as a container image, instead of its wheels.
    """
    if image and engine_lock:
        raise UserError("--image and --engine-lock are both given; the engine is an image or wheels, leave one out.")
    target = Target(python or f"{sys.version_info.major}.{sys.version_info.minor}", os.uname().machine)
    folders = [model.absolute() for model in models]
    require_models(folders)
    locks = Locks.of(device, engine_lock)
    if engine_lock is None and image is None:
        require_python(device, target.python)
    inputs = _inputs(name, target, device, locks, folders, image)
    old = _existing(destination)
    if old and old.inputs == inputs and _complete(destination, old):
        progress(f"{destination} is up to date")
        return Built(destination, False, sum(artefact.size for artefact in old.artefacts))
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{destination.name}.", dir=destination.parent) as scratch:
        root = Path(scratch) / "new"
        root.mkdir()
        assembler = Assembler(root, target, progress)
        # First what may be refused, then what has to be fetched.
        if image:
            assembler.image(image, device)
        else:
            assembler.engine(locks, device)
        assembler.gateway(locks)
        for folder in folders:
            assembler.model(folder)
        if not folders:
            progress(f"no --model was given: the bundle gets {TINY_MODEL}, whose weights are random")
            assembler.tiny_model()
        described = {"python": target.python, "architecture": target.architecture}
        made = bundle.Bundle(name, inputs, described, assembler.parts, assembler.artefacts)
        (root / bundle.MANIFEST).write_text(bundle.to_json(made), encoding="utf-8")
        _replace(destination, root, Path(scratch) / "old")
    size = sum(artefact.size for artefact in made.artefacts)
    progress(f"{destination} is ready: {len(made.artefacts)} artefacts, {size / 1e6:.0f} MB")
    return Built(destination, True, size)


def _inputs(
    name: str, target: Target, device: str, locks: Locks, models: Sequence[Path], image: EngineImage | None
) -> str:
    """A digest of everything the bundle is made from, cheap enough to ask before building."""
    digest = hashlib.sha256(f"{RECIPE} {name} {target} {device}\n".encode())
    if image and image.path.is_file():
        status = image.path.stat()
        digest.update(f"{image.path.name} {image.version} {status.st_size} {status.st_mtime_ns}\n".encode())
    makers = (Path(tiny_model.__file__), Path(tiny_model_text.__file__))
    for path in (locks.engine, locks.installer, locks.gateway, *makers):
        digest.update(path.read_bytes())
    for model in models:
        for path in sorted(model.rglob("*")):
            status = path.stat()
            line = f"{model.name}/{path.relative_to(model)} {status.st_size} {status.st_mtime_ns}\n"
            digest.update(line.encode())
    return digest.hexdigest()


def _existing(destination: Path) -> bundle.Bundle | None:
    """The bundle that is there, None where there is none or one that cannot be used; UserError for anything else."""
    if not destination.exists():
        return None
    try:
        ours = "artefacts" in json.loads((destination / bundle.MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        ours = False
    if not ours:
        raise UserError(
            f"{destination} exists and is no bundle ({bundle.MANIFEST} is missing or another program's); "
            "name another folder with --dir, or move this one away."
        )
    try:
        return bundle.load(str(destination))
    except bundle.BundleError:
        return None


def _complete(directory: Path, found: bundle.Bundle) -> bool:
    """Whether every file is there with its size; `bedplate bundle verify` is the one that hashes."""
    for artefact in found.artefacts:
        path = directory / found.parts[artefact.part].path / artefact.path
        if path.is_symlink() or not path.is_file() or path.stat().st_size != artefact.size:
            return False
    return True


def _replace(destination: Path, made: Path, aside: Path) -> None:
    replaced = destination.exists()
    if replaced:
        destination.rename(aside)
    try:
        made.rename(destination)
    except OSError:
        if replaced:
            aside.rename(destination)
        raise
