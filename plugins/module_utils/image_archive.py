# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A container image in one file, as `podman save` and `docker save` write it: what it is, and whether it is whole.

An image is known by its id, the sha256 of its configuration.  The configuration names the digests of the unpacked
layers, so the id stands for all of the content; and a container store keeps it, whichever of the two formats the image
came in.  A manifest's digest would not do: loading a docker-archive makes another manifest.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import dataclass
from typing import IO, Any, Callable, Dict, List, Optional, Tuple

# What hosts call their processor, as images call it.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_BLOCK = 1024 * 1024
# Larger is no description of an image, and would only fill the memory.
_DESCRIPTION_LIMIT = 8 * 1024 * 1024


class ImageError(ValueError):
    """The file is no image that can be used; the message is one sentence for the user."""


@dataclass(frozen=True)
class Image:
    """id: sha256 of the configuration, in hexadecimal; labels as whoever built the image wrote them."""

    id: str
    architecture: str
    labels: Dict[str, str]


@dataclass(frozen=True)
class _Layer:
    """One layer's file in the archive and the digest that it should have."""

    path: str
    sha256: str


def read(path: str, seen: Optional[Callable[[int], None]] = None) -> Image:
    """Read the archive, and compare every part of it with the digest under which it is named.

    seen: told how many bytes were hashed, since the layers of an engine are gigabytes.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            names = set(archive.getnames())
            if "manifest.json" in names:
                config, layers = _docker(archive)
            elif "index.json" in names:
                config, layers = _oci(archive)
            else:
                raise ImageError("it has neither a manifest.json nor an index.json")
            for layer in layers:
                found = _digest(_member(archive, layer.path), seen)
                if found != layer.sha256:
                    raise ImageError(f"its layer {layer.path} has sha256 {found}, named is {layer.sha256}")
    except tarfile.ReadError:
        raise ImageError(
            f"{path} is no image: it is no tar archive; save one with `podman save --format oci-archive`, and unpack it"
            " first if it is compressed."
        ) from None
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}.") from error
    except (ImageError, KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ImageError(f"{path} is no image that can be used: {said}; save it again.") from error
    return config


def _docker(archive: tarfile.TarFile) -> Tuple[Image, List[_Layer]]:
    manifest = json.loads(_bytes(archive, "manifest.json"))
    if len(manifest) != 1:
        raise ImageError(f"it holds {len(manifest)} images where one is wanted")
    name = manifest[0]["Config"]
    content = _bytes(archive, name)
    named = name.rsplit("/", 1)[-1].partition(".")[0]
    config, described = _config(content)
    if config.id != named:
        raise ImageError(f"its configuration {name} has sha256 {config.id}")
    # The layers of this format are not compressed, so their digests are those that the configuration names.
    wanted = [digest.partition(":")[2] for digest in described["rootfs"]["diff_ids"]]
    if len(wanted) != len(manifest[0]["Layers"]):
        raise ImageError(f"it holds {len(manifest[0]['Layers'])} layers, its configuration names {len(wanted)}")
    return config, [_Layer(path, digest) for path, digest in zip(manifest[0]["Layers"], wanted)]


def _oci(archive: tarfile.TarFile) -> Tuple[Image, List[_Layer]]:
    found = json.loads(_bytes(archive, "index.json"))["manifests"]
    if len(found) != 1:
        raise ImageError(f"it holds {len(found)} images where one is wanted")
    manifest = json.loads(_blob(archive, found[0]["digest"]))
    if "layers" not in manifest:
        raise ImageError("it is a list of images for several architectures where one image is wanted")
    config, _described = _config(_blob(archive, manifest["config"]["digest"]))
    return config, [_Layer(_blob_path(layer["digest"]), layer["digest"][7:]) for layer in manifest["layers"]]


def _config(content: bytes) -> Tuple[Image, Dict[str, Any]]:
    described: Dict[str, Any] = json.loads(content)
    labels = (described.get("config") or {}).get("Labels") or {}
    image = Image(hashlib.sha256(content).hexdigest(), str(described["architecture"]), labels)
    return image, described


def _blob_path(digest: str) -> str:
    algorithm, _colon, value = digest.partition(":")
    if algorithm != "sha256":
        raise ImageError(f"it names a part {digest}, and only sha256 is known here")
    return f"blobs/{algorithm}/{value}"


def _blob(archive: tarfile.TarFile, digest: str) -> bytes:
    content = _bytes(archive, _blob_path(digest))
    found = "sha256:" + hashlib.sha256(content).hexdigest()
    if found != digest:
        raise ImageError(f"its part {digest} has the digest {found}")
    return content


def _member(archive: tarfile.TarFile, path: str) -> IO[bytes]:
    """A file of the archive; old versions of docker write a layer that occurs twice as a link to the first."""
    try:
        opened = archive.extractfile(path)
    except KeyError:
        opened = None
    if opened is None:
        raise ImageError(f"its file {path} is missing")
    return opened


def _bytes(archive: tarfile.TarFile, path: str) -> bytes:
    content = _member(archive, path).read(_DESCRIPTION_LIMIT + 1)
    if len(content) > _DESCRIPTION_LIMIT:
        raise ImageError(f"its file {path} is larger than a description can be")
    return content


def _digest(content: IO[bytes], seen: Optional[Callable[[int], None]]) -> str:
    digest = hashlib.sha256()
    for block in iter(lambda: content.read(_BLOCK), b""):
        digest.update(block)
        if seen:
            seen(len(block))
    return digest.hexdigest()
