"""Container images made here: the two formats in which images travel as a file, and what can be wrong with them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_OCI = "application/vnd.oci.image"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def layer(files: Mapping[str, bytes]) -> bytes:
    """One layer with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def config(layers: Sequence[bytes], architecture: str = "amd64", labels: Mapping[str, str] | None = None) -> bytes:
    described: dict[str, Any] = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Labels": dict(labels or {}), "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(content)}" for content in layers]},
    }
    return json.dumps(described).encode()


def write(path: Path, files: Mapping[str, bytes]) -> Path:
    path.write_bytes(layer(files))
    return path


def oci_files(layers: Sequence[bytes], configuration: bytes) -> dict[str, bytes]:
    """An oci-archive's files, as `podman save --format oci-archive` writes them, its layers not compressed."""

    def descriptor(kind: str, content: bytes) -> dict[str, Any]:
        return {"mediaType": f"{_OCI}.{kind}", "digest": f"sha256:{sha256(content)}", "size": len(content)}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": descriptor("config.v1+json", configuration),
            "layers": [descriptor("layer.v1.tar", content) for content in layers],
        }
    ).encode()
    index = {"schemaVersion": 2, "manifests": [descriptor("manifest.v1+json", manifest)]}
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode()}
    for content in (manifest, configuration, *layers):
        files[f"blobs/sha256/{sha256(content)}"] = content
    return files


def docker_files(layers: Sequence[bytes], configuration: bytes) -> dict[str, bytes]:
    """A docker-archive's files, as `docker save` writes them."""
    names = [f"{sha256(content)}.tar" for content in layers]
    named = f"{sha256(configuration)}.json"
    manifest = [{"Config": named, "RepoTags": ["vllm:test"], "Layers": names}]
    return {
        "manifest.json": json.dumps(manifest).encode(),
        named: configuration,
        **dict(zip(names, layers, strict=True)),
    }
