"""The engine as a container image: what a file holds, and whether this site's hosts can run it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ansible_collections.bedplate.llm.plugins.module_utils import image_archive, vllm_policy

from bedplate.bundles.download import Target
from bedplate.bundles.progress import Meter, Progress
from bedplate.errors import UserError

VERSION_LABEL = "org.opencontainers.image.version"
LICENCES_LABEL = "org.opencontainers.image.licenses"


@dataclass(frozen=True)
class EngineImage:
    """The file of `--image`, and the version of the engine in it where the operator says one."""

    path: Path
    version: str = ""


@dataclass(frozen=True)
class Examined:
    id: str
    version: str
    licence: str


def examine(asked: EngineImage, target: Target, progress: Progress) -> Examined:
    """UserError unless the file is one whole image, for the hosts' processor, whose engine's version is known."""
    if not asked.path.is_file():
        raise UserError(f"{asked.path} is not a file; --image takes what `podman save --format oci-archive` writes.")
    meter = Meter(f"image {asked.path.name}: checking it", asked.path.stat().st_size, progress)
    try:
        image = image_archive.read(str(asked.path), meter.add)
    except image_archive.ImageError as error:
        raise UserError(str(error)) from error
    wanted = image_archive.ARCHITECTURES.get(target.architecture, target.architecture)
    if image.architecture != wanted:
        raise UserError(
            f"the image {asked.path} is for {image.architecture}, and the hosts are {target.architecture} ({wanted}); "
            "save the image for their processor."
        )
    version = asked.version or image.labels.get(VERSION_LABEL, "").removeprefix("v")
    try:
        vllm_policy.version_key(version)
    except ValueError:
        said = f"says {version!r}" if version else "is not there"
        raise UserError(
            f"the version of vLLM in the image {asked.path} is not known (its label {VERSION_LABEL} {said}); name it "
            "with --image-version, such as 0.33.0."
        ) from None
    return Examined(image.id, version, image.labels.get(LICENCES_LABEL, "not stated"))
