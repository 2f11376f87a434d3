"""A package mirror of the tests' own: packages built here, an index over them, and a signature by a key made here.

`python apt_mirror.py FOLDER SPEC.json` makes all of it in FOLDER:
    keys/<name>.asc, keys/fingerprints.json     one signing key for each name in "keys"
    <repository>/                               one flat repository for each in "repositories", signed by its "key"
Real packages by dpkg-deb and a real signature by gpg: apt itself judges them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from email.utils import formatdate
from pathlib import Path
from typing import Any


def run(*argv: str, **more: Any) -> str:
    done = subprocess.run(argv, check=True, capture_output=True, text=True, **more)
    return done.stdout


class Signer:
    """A gpg home of its own; its agent ends with it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(mode=0o700, parents=True, exist_ok=True)

    def gpg(self, *argv: str, **more: Any) -> str:
        return run("gpg", "--homedir", str(self.home), "--batch", "--yes", "--quiet", *argv, **more)

    def make(self, name: str) -> str:
        """The fingerprint of a new key for that name."""
        address = f"{name} <{name}@mirror.invalid>"
        self.gpg("--passphrase", "", "--quick-generate-key", address, "rsa2048", "sign", "never")
        listing = self.gpg("--with-colons", "--list-keys", f"<{name}@mirror.invalid>")
        return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr"))

    def close(self) -> None:
        run("gpgconf", "--homedir", str(self.home), "--kill", "all")


def package(folder: Path, spec: dict[str, Any]) -> None:
    """One package; "files" maps paths to contents, and a content that begins with "#!" may be run."""
    architecture = spec.get("architecture", "amd64")
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        for path, content in spec.get("files", {}).items():
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
            target.chmod(0o755 if content.startswith("#!") else 0o644)
        control = {
            "Package": spec["name"],
            "Version": spec["version"],
            "Architecture": architecture,
            "Maintainer": "A test <test@mirror.invalid>",
            "Depends": ", ".join(spec.get("depends", [])),
            "Description": "stands in for what cannot be had here",
        }
        (root / "DEBIAN").mkdir()
        lines = "".join(f"{name}: {value}\n" for name, value in control.items() if value)
        (root / "DEBIAN" / "control").write_text(lines)
        name = f"{spec['name']}_{spec['version']}_{architecture}.deb"
        run("dpkg-deb", "--root-owner-group", "-Znone", "--build", work, str(folder / name))


def publish(folder: Path, signer: Signer, fingerprint: str) -> None:
    """The index over the packages in a folder, and its signature."""
    entries = []
    for deb in sorted(folder.glob("*.deb")):
        content = deb.read_bytes()
        entries.append(
            run("dpkg-deb", "--field", str(deb))
            + f"Filename: ./{deb.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
        )
    index = "\n".join(entries).encode()
    (folder / "Packages").write_bytes(index)
    (folder / "Packages.gz").write_bytes(gzip.compress(index, mtime=0))
    sums = "".join(
        f" {hashlib.sha256((folder / name).read_bytes()).hexdigest()} {(folder / name).stat().st_size} {name}\n"
        for name in ("Packages", "Packages.gz")
    )
    release = f"Origin: bedplate-test\nLabel: bedplate-test\nDate: {formatdate(usegmt=True)}\nSHA256:\n{sums}"
    (folder / "Release").write_text(release)
    for old in ("InRelease", "Release.gpg"):
        (folder / old).unlink(missing_ok=True)
    user = ["--local-user", fingerprint]
    signer.gpg(*user, "--clearsign", "--output", str(folder / "InRelease"), str(folder / "Release"))
    signer.gpg(*user, "--detach-sign", "--armor", "--output", str(folder / "Release.gpg"), str(folder / "Release"))


def build(folder: Path, spec: dict[str, Any]) -> dict[str, str]:
    """Everything that the specification asks for; the keys' fingerprints by their names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "keys").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        signer = Signer(Path(home) / "gpg")
        try:
            fingerprints = {name: signer.make(name) for name in spec["keys"]}
            for name, fingerprint in fingerprints.items():
                (folder / "keys" / f"{name}.asc").write_text(signer.gpg("--armor", "--export", fingerprint))
            for name, repository in spec["repositories"].items():
                (folder / name).mkdir(exist_ok=True)
                for described in repository["packages"]:
                    package(folder / name, described)
                publish(folder / name, signer, fingerprints[repository["key"]])
        finally:
            signer.close()
    (folder / "keys" / "fingerprints.json").write_text(json.dumps(fingerprints))
    return fingerprints


if __name__ == "__main__":
    os.umask(0o022)
    build(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
