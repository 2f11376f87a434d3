"""The stand-in for the driver's library, built once and loaded into this process, so that the real pynvml finds it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

SOURCE = Path(__file__).resolve().parents[2] / "roles/lab_host/files/nvml"
PROFILES = {path.stem: path for path in sorted((SOURCE / "profiles").glob("*.profile"))}
LIBRARY = "libnvidia-ml.so.1"


def build(folder: Path) -> Path:
    """The library, in a folder for LD_LIBRARY_PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / LIBRARY
    warnings = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror")
    flags = ("-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}")
    subprocess.run(["cc", *warnings, *flags, "-o", library, SOURCE / "nvml.c"], check=True)
    return library


@functools.cache
def load() -> None:
    """The dynamic linker takes a library that is loaded for the one that is asked for when their names are the same."""
    with tempfile.TemporaryDirectory() as folder:
        ctypes.CDLL(str(build(Path(folder))))


@contextlib.contextmanager
def wearing(profile: Path) -> Iterator[None]:
    """This process is a machine with the GPUs of the profile."""
    load()
    with mock.patch.dict(os.environ, {"BEDPLATE_GPU_PROFILE": str(profile)}):
        yield
