# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""GPUs that a lab machine wears: a stand-in for the driver's library, built here, and the profile that it answers from.

NVIDIA's own binding goes with it, since the machine's Python has none: everything above the library is the real thing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import LabError
from ansible_collections.bedplate.llm.plugins.module_utils.lab_seed import SeedFile

SOURCE, HEADER = "nvml.c", "profile.h"
_NAME = "libnvidia-ml.so.1"
# Where the loader and every Python 3 of a Debian or Ubuntu look, without being told.
LIBRARY = f"usr/lib/{_NAME}"
BINDING = "usr/lib/python3/dist-packages/pynvml.py"
PROFILE = "etc/bedplate-lab/gpu-profile"


@dataclass(frozen=True)
class Gpus:
    """A profile, and the folder with the source of the stand-in."""

    profile: Path
    source: Path

    @property
    def label(self) -> str:
        """Name and digest: a machine that wears another profile, or another stand-in, is another machine."""
        digest = hashlib.sha256()
        for path in (self.profile, self.source / SOURCE, self.source / HEADER):
            digest.update(path.read_bytes())
        return f"{self.profile.stem}@{digest.hexdigest()[:12]}"


def find(machine: str, wanted: str, source: Path) -> Optional[Gpus]:
    """The profile of that name or path; None when none is wanted."""
    if not wanted:
        return None
    profiles = source / "profiles"
    profile = Path(wanted) if "/" in wanted else profiles / f"{wanted}.profile"
    if not profile.is_file():
        known = ", ".join(sorted(path.stem for path in profiles.glob("*.profile")))
        raise LabError(
            f"lab_gpu_profile of {machine} is '{wanted}', which is no profile: "
            f"use one of {known}, or the path of a file."
        )
    problem = _problem(profile.read_text(encoding="utf-8"))
    if problem:
        raise LabError(f"lab_gpu_profile of {machine} is {profile}, and {problem}: write lines of `key = value`.")
    return Gpus(profile, source)


def _problem(text: str) -> str:
    """What the stand-in would not read, or nothing; the limits are profile.h's."""
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    for number, line in lines:
        if "=" not in line or len(line) > 160:
            return f"its line {number} is '{line[:60]}'"
    return "" if 0 < len(lines) <= 2048 else f"it has {len(lines)} lines"


def binding() -> Path:
    """NVIDIA's pynvml on this computer."""
    found = importlib.util.find_spec("pynvml")
    if found is None or found.origin is None:
        raise LabError(
            "A lab machine with GPUs needs NVIDIA's pynvml from this computer, whose Python has none: "
            "install nvidia-ml-py, as bedplate's requirements do."
        )
    return Path(found.origin)


def build(source: Path) -> bytes:
    """The stand-in, compiled for this computer, whose kind the lab's machines are."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, _NAME)
        argv = ["cc", "-O1", "-shared", "-fPIC", f"-Wl,-soname,{_NAME}", "-o", str(library), str(source / SOURCE)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"cc cannot build {source / SOURCE}: {' '.join(done.stderr.split())[-300:]}")
        return library.read_bytes()


def files(gpus: Gpus) -> List[SeedFile]:
    """What makes a machine wear them."""
    return [
        SeedFile(LIBRARY, build(gpus.source)),
        SeedFile(BINDING, binding().read_bytes()),
        SeedFile(PROFILE, gpus.profile.read_bytes()),
    ]
