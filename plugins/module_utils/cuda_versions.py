# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine's CUDA, from its bundle, and which driver a CUDA needs: written once, here."""

from __future__ import annotations

import re
from typing import Iterable, Mapping, Optional, Tuple

# CUDA's runtime library as a wheel; until CUDA 12 its name ended with the major version.
_RUNTIME = re.compile(r"(?:^|/)nvidia_cuda_runtime(?:_cu\d+)?-(\d+)\.(\d+)[^/-]*-[^/]*\.whl$")

# First branch of the driver that runs programs of that CUDA, whatever their minor version; newer branches run them all.
# NVIDIA, CUDA Compatibility, "Minor Version Compatibility", table 1.
MINIMUM_BRANCH: Mapping[int, int] = {11: 450, 12: 525, 13: 580}


def engine_cuda(paths: Iterable[str]) -> str:
    """CUDA of an engine, such as "13.0", by the runtime among its wheels; empty for an engine without one."""
    for path in paths:
        match = _RUNTIME.search(path)
        if match:
            return f"{match.group(1)}.{match.group(2)}"
    return ""


def version_tuple(text: str) -> Tuple[int, ...]:
    """To compare versions by their numbers; of "13.0.88-1" those before the dash."""
    return tuple(int(number) for number in re.findall(r"\d+", text.partition("-")[0]))


def major_of(version: str) -> Optional[int]:
    numbers = version_tuple(version)
    return numbers[0] if numbers else None


def driver_problem(cuda: str, driver: str) -> Optional[str]:
    """Why a driver of that version cannot run programs of that CUDA, without a full stop; None when nothing is known
    against it."""
    major, branch = major_of(cuda), major_of(driver)
    minimum = MINIMUM_BRANCH.get(major) if major is not None else None
    if minimum is None or branch is None or branch >= minimum:
        return None
    return f"CUDA {cuda} needs a driver of branch {minimum} or newer, and this one is {driver}"
