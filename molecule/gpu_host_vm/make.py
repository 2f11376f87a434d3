"""What the machine is fed with: an image with the stand-in engine, and a signed mirror with the stand-in toolkit.

`python make.py FOLDER` makes FOLDER/vllm.tar and FOLDER/mirror.tar, with FOLDER/mirror/keys beside it.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from ansible_collections.bedplate.llm.plugins.module_utils.lab_build import apt_options, recipe_here
from ansible_collections.bedplate.llm.plugins.module_utils.lab_host import run
from ansible_collections.bedplate.llm.plugins.module_utils.lab_recipe import Recipe

SCENARIO = Path(__file__).resolve().parent
TESTS = SCENARIO.parents[1] / "tests"
sys.path += [str(TESTS / "lab"), str(TESTS / "unit")]

import apt_mirror  # noqa: E402
import image_harness  # noqa: E402

VERSION = "0.33.0"
# Of Python, what the stand-in imports and nothing else: every megabyte is a second on an emulated processor.
NOT_NEEDED = (
    *(
        "var",
        "usr/share",
        "usr/sbin",
        "usr/lib/apt",
        "usr/lib/x86_64-linux-gnu/gconv",
        "usr/lib/x86_64-linux-gnu/perl*",
    ),
    *(f"usr/lib/python3.*/{name}" for name in ("test", "lib2to3", "idlelib", "ensurepip", "distutils", "pydoc_data")),
    *(f"usr/lib/python3.*/{name}" for name in ("asyncio", "unittest", "xml*", "sqlite3", "ctypes", "multiprocessing")),
)


def tree(folder: Path, recipe: Recipe) -> bytes:
    """A layer with Debian's Python, from the mirrors that this computer uses."""
    sources = folder / "sources.list"
    sources.write_text("".join(f"{source.line}\n" for source in recipe.sources))
    root = folder / "tree"
    run(
        *("mmdebstrap", "--mode=root", "--variant=extract", "--format=directory", "--quiet"),
        *(f"--architectures={recipe.architecture}", "--aptopt=APT::Install-Recommends false", *apt_options()),
        *("--include=python3-minimal,libpython3-stdlib", recipe.codename, root, sources),
    )
    left_out = [f"--exclude=./{name}" for name in NOT_NEEDED]
    argv = ["tar", "--create", "--sort=name", "--numeric-owner", "--directory", str(root), *left_out, "."]
    return subprocess.run(argv, check=True, capture_output=True).stdout


def image(folder: Path) -> None:
    recipe = recipe_here("container", [])
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        system = tree(Path(scratch), recipe)
    layers = [system, image_harness.layer({"usr/local/bin/vllm": (SCENARIO / "files/vllm").read_bytes()})]
    labels = {"org.opencontainers.image.version": VERSION}
    config = image_harness.config(layers, recipe.architecture, labels)
    image_harness.write(folder / "vllm.tar", image_harness.oci_files(layers, config))


def mirror(folder: Path) -> None:
    toolkit = {
        "name": "nvidia-container-toolkit-base",
        "version": "1.19.1-1",
        "files": {"/usr/bin/nvidia-ctk": (SCENARIO / "files/nvidia-ctk").read_text()},
    }
    spec = {"keys": ["vendor"], "repositories": {"toolkit": {"key": "vendor", "packages": [toolkit]}}}
    apt_mirror.build(folder / "mirror", spec)
    with tarfile.open(folder / "mirror.tar", "w") as archive:
        archive.add(folder / "mirror/toolkit", "toolkit")


if __name__ == "__main__":
    made = Path(sys.argv[1])
    made.mkdir(parents=True, exist_ok=True)
    image(made)
    mirror(made)
