# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""One version: everything on a host that has to be of the driver's version, and whether it is.

Each part of the driver is updated by a package of its own, and each pair that differs ends differently: NVML says
"Driver/library version mismatch", CUDA says 802, containers find no libcuda.  A check a pair says which does not agree
and what to do.  What is not installed is no finding, and what `gpu_info` says already is not said again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Collection, List, Mapping, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import cuda_versions, gpu_health
from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_facts import Driver

CUDA_LIBRARY, NVML_LIBRARY = "libcuda.so.1", "libnvidia-ml.so.1"
_FABRIC = "gpu.fabric-manager"
_HOLD = "and hold the driver's packages together, so that nothing updates one of them alone"
# What of the driver a CDI specification mounts carries the version in its name.
_CDI_LIBRARY = re.compile(r"/lib(?:cuda|nvidia-ml|nvidia-ptxjitcompiler)\.so\.(\d+\.\d+(?:\.\d+)*)\b")
_CDI_KIND = re.compile(r"""["']?kind["']?\s*:\s*["']?nvidia\.com/""")


@dataclass(frozen=True)
class Cdi:
    """A CDI specification and the versions of the driver's libraries that it mounts."""

    path: str
    versions: Tuple[str, ...]


@dataclass(frozen=True)
class Stack:
    """Versions as they were found; None and empty are what is not there.

    loaded: the kernel's module. modules: on disk, by kernel. libraries: of the files that the names lead to.
    firmware: folders of GSP firmware. tools: nvidia-smi, nvidia-persistenced. engine_cuda: major.minor.
    """

    kernel: str = ""
    loaded: Optional[str] = None
    loaded_open: Optional[bool] = None
    modules: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    fabric_manager: Optional[str] = None
    cdi: Tuple[Cdi, ...] = ()
    firmware: Tuple[str, ...] = ()
    engine_cuda: str = ""

    @property
    def library(self) -> Optional[str]:
        return self.libraries.get(NVML_LIBRARY) or self.libraries.get(CUDA_LIBRARY)

    @property
    def installed(self) -> Optional[str]:
        """What the packages on disk are: the version that everything should be of after the next boot."""
        return self.library or self.modules.get(self.kernel) or self.loaded


def parse_cdi(path: str, text: str) -> Optional[Cdi]:
    """A specification of NVIDIA's devices, JSON or YAML; None for somebody else's."""
    if not _CDI_KIND.search(text):
        return None
    return Cdi(path, tuple(sorted(set(_CDI_LIBRARY.findall(text)))))


def checks(stack: Stack, said: Collection[str] = ()) -> List[Check]:
    """A check for each pair of which both are there; `said` are ids of checks that the same report has already."""
    found = [
        _library(stack),
        _libraries(stack),
        _loaded(stack),
        _next_boot(stack),
        *(_tool(stack, name) for name in sorted(stack.tools)),
        _fabric_manager(stack),
        _cdi(stack),
        _firmware(stack),
        _engine(stack),
    ]
    # With module and packages of one version, gpu_info has compared the fabric manager with the same.
    told = {*said, *(["gpu_stack.fabric-manager"] if _FABRIC in said and stack.loaded == stack.installed else [])}
    return [check for check in found if check is not None and check.id not in told]


def _check(name: str, ok: bool, holds: str, fails: str, remedy: str) -> Check:
    return Check(f"gpu_stack.{name}", ok, holds if ok else fails, "" if ok else remedy)


def _library(stack: Stack) -> Optional[Check]:
    """The same check, by the same words and id, as gpu_info's."""
    if not (stack.loaded and stack.library):
        return None
    return gpu_health.driver_library(Driver(module_version=stack.loaded, library_version=stack.library))


def _libraries(stack: Stack) -> Optional[Check]:
    if len(stack.libraries) < 2:
        return None
    listed = ", ".join(f"{name} {version}" for name, version in sorted(stack.libraries.items()))
    return _check(
        "libraries",
        len(set(stack.libraries.values())) == 1,
        f"The driver's libraries are of one version ({stack.library}).",
        f"The driver's libraries are of different versions: {listed}.",
        f"Install the packages of both libraries in one version, run ldconfig, {_HOLD}.",
    )


def _loaded(stack: Stack) -> Optional[Check]:
    disk = stack.modules.get(stack.kernel)
    if not (stack.loaded and disk):
        return None
    if stack.library and stack.library != stack.loaded:
        return None  # gpu.driver-library says so, and that a reboot is due
    return _check(
        "module-loaded",
        stack.loaded == disk,
        f"The loaded kernel module is the one on disk ({disk}).",
        f"The loaded kernel module is {stack.loaded}, and the one on disk for this kernel is {disk}: the next boot or"
        " reload brings a driver that the libraries are not of.",
        f"Bring module and libraries to one version, {_HOLD}; then reboot.",
    )


def _next_boot(stack: Stack) -> Optional[Check]:
    """Kernels without a module are the driver role's to judge: only those that have one are compared."""
    if not (stack.library and stack.modules):
        return None
    wrong = [f"{kernel} ({version})" for kernel, version in sorted(stack.modules.items()) if version != stack.library]
    return _check(
        "module-next-boot",
        not wrong,
        f"The module on disk is {stack.library}, as the libraries are, for every kernel that has one.",
        f"The libraries are {stack.library}, and the module on disk is another one for the kernel {', '.join(wrong)}:"
        " once booted, it has no usable GPU.",
        "Build the module for that kernel again (dkms autoinstall -k KERNEL), or remove the kernel.",
    )


def _tool(stack: Stack, name: str) -> Optional[Check]:
    version, installed = stack.tools[name], stack.installed
    if not installed:
        return None
    return _check(
        name,
        version == installed,
        f"{name} is {version}, as the driver is.",
        f"{name} is {version}, and the driver is {installed}.",
        f"Install the {name} of the driver's version, {_HOLD}.",
    )


def _fabric_manager(stack: Stack) -> Optional[Check]:
    """Against what is installed, so before a reboot too; against what runs, gpu_info compares (gpu.fabric-manager)."""
    if not (stack.fabric_manager and stack.installed):
        return None
    return _check(
        "fabric-manager",
        stack.fabric_manager == stack.installed,
        f"The fabric manager is {stack.fabric_manager}, as the driver is.",
        f"The fabric manager is {stack.fabric_manager}, and the driver is {stack.installed}: the NVSwitches stay"
        " off, and CUDA says 802.",
        f"Install the nvidia-fabricmanager of exactly the driver's version, restart it, {_HOLD}.",
    )


def _cdi(stack: Stack) -> Optional[Check]:
    known = [spec for spec in stack.cdi if spec.versions]
    if not (known and stack.installed):
        return None
    stale = [spec for spec in known if spec.versions != (stack.installed,)]
    listed = "; ".join(f"{spec.path} mounts libraries of {', '.join(spec.versions)}" for spec in stale)
    return _check(
        "cdi",
        not stale,
        f"Containers get the libraries of {stack.installed}, as the driver is.",
        f"Containers do not get the driver's libraries, which are {stack.installed}: {listed}.",
        "Make the specification again (systemctl restart nvidia-cdi-refresh, or nvidia-ctk cdi generate"
        f" --output={stale[0].path if stale else ''}), and start the containers again.",
    )


def _firmware(stack: Stack) -> Optional[Check]:
    version = stack.modules.get(stack.kernel) or stack.loaded
    if not (stack.firmware and version):
        return None
    return _check(
        "firmware",
        version in stack.firmware,
        f"The GPU's firmware is there for {version}.",
        f"The GPU's firmware (GSP) is there for {', '.join(stack.firmware)}, and the module is {version}: it cannot"
        " start the GPU at the next boot.",
        f"Install the firmware package of the driver's version, build the initramfs again, {_HOLD}.",
    )


def _engine(stack: Stack) -> Optional[Check]:
    driver = stack.installed
    if not (stack.engine_cuda and driver):
        return None
    problem = cuda_versions.driver_problem(stack.engine_cuda, driver)
    judged = cuda_versions.major_of(stack.engine_cuda) in cuda_versions.MINIMUM_BRANCH
    unknown = "" if judged else " No minimum is known for that CUDA, so nothing was compared."
    return _check(
        "engine-cuda",
        problem is None,
        f"The engine's CUDA is {stack.engine_cuda}, and the driver is {driver}.{unknown}",
        f"The engine does not start: its {problem}.",
        "Install a driver of that branch or newer, or use a bundle with an engine for an older CUDA.",
    )
