# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The part of CUDA's toolkit that an engine compiles kernels with: which packages, and whether they are right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.cuda_versions import driver_problem, major_of, version_tuple
from ansible_collections.bedplate.llm.plugins.module_utils.package_source import APT

VERSION = re.compile(r"\d+\.\d+")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True)
class Wanted:
    """version: major.minor, which is part of every package's name, so that versions lie side by side."""

    version: str
    packages: Tuple[str, ...]
    hold: bool = True

    @property
    def home(self) -> str:
        return f"/usr/local/cuda-{self.version}"

    def names(self, manager: str) -> List[str]:
        """The packages' full names; what Debian calls -dev, RPM calls -devel."""
        ends = "-" + self.version.replace(".", "-")
        plain = [name if manager == APT else re.sub(r"-dev$", "-devel", name) for name in self.packages]
        return [name + ends for name in plain]


@dataclass(frozen=True)
class Found:
    """installed: versions by package. compiler: what nvcc answers, empty without one. driver: empty without one."""

    manager: str
    installed: Mapping[str, str]
    held: Tuple[str, ...]
    compiler: str = ""
    driver: str = ""


def problems(
    version: str, engine_cuda: str, packages: Sequence[str], source: str, runtime: str, repository: Mapping[str, object]
) -> List[str]:
    """Why the settings cannot work, one sentence each; nothing for the source "none"."""
    if source == "none":
        return []
    found: List[str] = []
    if runtime == "container":
        found.append(
            f"cuda_toolkit_source is {source}, and vllm_runtime is container: an image brings its own CUDA; set"
            " cuda_toolkit_source to none."
        )
    if not engine_cuda:
        found.append(
            f"cuda_toolkit_source is {source}, and the engine of the bundle has no CUDA (its wheels have no"
            " nvidia-cuda-runtime); set cuda_toolkit_source to none."
        )
    if not VERSION.fullmatch(version):
        found.append(f"cuda_toolkit_version is {version!r}; give major and minor, such as 13.0.")
    elif engine_cuda and major_of(version) != major_of(engine_cuda):
        found.append(
            f"cuda_toolkit_version is {version}, and the engine is built for CUDA {engine_cuda}: kernels of another"
            " major version cannot be loaded into it; leave the variable out to follow the engine."
        )
    elif engine_cuda and version_tuple(version) > version_tuple(engine_cuda):
        found.append(
            f"cuda_toolkit_version is {version}, newer than the engine's CUDA {engine_cuda}: its compiler could make"
            " what the driver of that CUDA does not read; leave the variable out to follow the engine."
        )
    strange = [name for name in packages if not _PACKAGE.fullmatch(name)]
    if strange or not packages:
        found.append(
            f"cuda_toolkit_packages has {strange[0]!r}; give names of packages without the version at their end."
            if strange
            else "cuda_toolkit_packages is empty; give at least cuda-nvcc."
        )
    if source == "mirror" and not repository.get("url"):
        found.append("cuda_toolkit_repository has no url; give the address of the mirror of NVIDIA's packages.")
    if source in ("vendor", "mirror") and not repository.get("key"):
        found.append(
            "cuda_toolkit_repository has no key; give the public key that signs NVIDIA's packages, as text or as a file"
            " on this computer."
        )
    return found


def parse_nvcc(text: str) -> str:
    """13.0 of "Cuda compilation tools, release 13.0, V13.0.88"."""
    match = re.search(r"release (\d+\.\d+)", text)
    return match.group(1) if match else ""


def parse_dpkg(text: str) -> Dict[str, str]:
    """Lines "package<tab>status<tab>version" of dpkg-query; only what is wholly installed."""
    rows = (line.split("\t") for line in text.splitlines())
    return {row[0]: row[2] for row in rows if len(row) == 3 and row[1].endswith("ok installed")}


def parse_rpm(text: str) -> Dict[str, str]:
    """Lines "package<tab>version" of rpm --query."""
    rows = (line.split("\t") for line in text.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def missing(wanted: Wanted, found: Found) -> List[str]:
    return [name for name in wanted.names(found.manager) if name not in found.installed]


def loose(wanted: Wanted, found: Found) -> List[str]:
    """Packages that an upgrade would move although they are to be held."""
    return [name for name in wanted.names(found.manager) if wanted.hold and name not in found.held]


def refusal(wanted: Wanted, found: Found) -> Optional[str]:
    """Why this toolkit must not be installed beside that driver, as one sentence."""
    problem = driver_problem(wanted.version, found.driver)
    if problem is None:
        return None
    return (
        f"The toolkit's {problem}: what it compiles would not be loaded; install a driver of that branch first, or use"
        " a bundle with an engine for an older CUDA."
    )


def checks(wanted: Wanted, found: Found) -> List[Check]:
    """For a toolkit that was brought by packages; `by_hand` is for one that was there before."""
    absent, unheld = missing(wanted, found), loose(wanted, found)

    def check(name: str, ok: bool, holds: str, fails: str, remedy: str) -> Check:
        return Check(f"cuda_toolkit.{name}", ok, holds if ok else fails, "" if ok else remedy)

    again = "Run the role cuda_toolkit again."
    return [
        check(
            "packages",
            not absent,
            f"The packages of CUDA {wanted.version} are installed.",
            f"Not installed: {', '.join(absent)}.",
            again,
        ),
        check(
            "held",
            not unheld,
            "No upgrade moves them." if wanted.hold else "They are not to be held.",
            f"An upgrade would move {', '.join(unheld)}.",
            again,
        ),
        by_hand(wanted, found),
    ]


def by_hand(wanted: Wanted, found: Found) -> Check:
    ok = found.compiler == wanted.version
    return Check(
        "cuda_toolkit.compiler",
        ok,
        f"{wanted.home}/bin/nvcc is of CUDA {wanted.version}."
        if ok
        else f"{wanted.home}/bin/nvcc is of CUDA {found.compiler}, and {wanted.version} is wanted."
        if found.compiler
        else f"{wanted.home}/bin/nvcc does not answer, or is not there.",
        "" if ok else f"Install CUDA's compiler of version {wanted.version} there.",
    )
