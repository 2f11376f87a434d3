"""An image is known by the digest of its configuration, and an archive that is not whole is refused in one sentence."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import image_archive
from image_harness import config, docker_files, layer, oci_files, sha256, write

LAYERS = [layer({"usr/bin/vllm": b"#!/usr/bin/python3\n"}), layer({"etc/motd": b"hello"})]
CONFIG = config(LAYERS, labels={"org.opencontainers.image.version": "v0.33.0"})
Files = dict[str, bytes]
FORMATS = {"oci": oci_files, "docker": docker_files}


@pytest.mark.parametrize("form", FORMATS)
def test_both_formats_give_the_same_id(tmp_path: Path, form: str) -> None:
    counted: list[int] = []
    image = image_archive.read(str(write(tmp_path / "image.tar", FORMATS[form](LAYERS, CONFIG))), counted.append)
    assert image == image_archive.Image(sha256(CONFIG), "amd64", {"org.opencontainers.image.version": "v0.33.0"})
    assert sum(counted) == sum(map(len, LAYERS))


def without(ending: str) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        del files[next(name for name in files if name.endswith(ending))]

    return change


def turned(content: bytes) -> Callable[[Files], None]:
    """One byte of a file is another, its length the same."""

    def change(files: Files) -> None:
        name = next(name for name, found in files.items() if found == content)
        files[name] = bytes([content[0] ^ 1]) + content[1:]

    return change


def two_images(files: Files) -> None:
    for name in ("manifest.json", "index.json"):
        if name in files:
            found = json.loads(files[name])
            entries = found if name == "manifest.json" else found["manifests"]
            entries.append(entries[0])
            files[name] = json.dumps(found).encode()


def list_of_architectures(files: Files) -> None:
    manifest = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    files[f"blobs/sha256/{sha256(manifest)}"] = manifest
    files["index.json"] = json.dumps({"manifests": [{"digest": f"sha256:{sha256(manifest)}"}]}).encode()


@pytest.mark.parametrize(
    ("form", "change", "said"),
    [
        ("oci", turned(LAYERS[1]), f"has sha256 .*, named is {sha256(LAYERS[1])}"),
        ("docker", turned(LAYERS[1]), f"has sha256 .*, named is {sha256(LAYERS[1])}"),
        ("oci", turned(CONFIG), "has the digest sha256:"),
        ("docker", turned(CONFIG), "its configuration .* has sha256|can be used"),
        ("oci", without(sha256(LAYERS[0])), "its file blobs/sha256/.* is missing"),
        ("docker", without(".tar"), "its file .*tar is missing"),
        ("docker", without(".json"), "it has neither a manifest.json nor an index.json"),
        ("oci", two_images, "it holds 2 images where one is wanted"),
        ("docker", two_images, "it holds 2 images where one is wanted"),
        ("oci", list_of_architectures, "a list of images for several architectures"),
    ],
)
def test_what_is_not_one_whole_image_is_refused(
    tmp_path: Path, form: str, change: Callable[[Files], None], said: str
) -> None:
    files = FORMATS[form](LAYERS, CONFIG)
    change(files)
    path = write(tmp_path / "image.tar", files)
    with pytest.raises(image_archive.ImageError, match=said) as refused:
        image_archive.read(str(path))
    assert str(refused.value).startswith(str(path))
    assert str(refused.value).endswith("save it again.")


@pytest.mark.parametrize("content", [b"hello", gzip.compress(layer({"index.json": b"{}"}))], ids=["text", "compressed"])
def test_another_file_is_refused_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(content)
    with pytest.raises(image_archive.ImageError, match="podman save --format oci-archive"):
        image_archive.read(str(path))


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(image_archive.ImageError, match=os.strerror(2)):
        image_archive.read(str(tmp_path / "none.tar"))
