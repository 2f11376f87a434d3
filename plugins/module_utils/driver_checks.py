# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a verify report says of a driver, why a host has to restart, and what to do next."""

from __future__ import annotations

from typing import List, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import (
    OPEN,
    PROPRIETARY,
    DriverFacts,
    Kernel,
    Service,
    Wanted,
)
from ansible_collections.bedplate.llm.plugins.module_utils.driver_packages import upstream
from ansible_collections.bedplate.llm.plugins.module_utils.driver_plan import PREINSTALLED, Plan

ROLE = "nvidia_driver"


def _check(name: str, ok: bool, good: str, bad: str, remedy: str) -> Check:
    return Check(f"{ROLE}.{name}", ok, good if ok else bad, "" if ok else remedy)


def expected_version(facts: DriverFacts, wanted: Wanted) -> str:
    """The version that all parts must have; of a driver that was there before us, the one that runs."""
    asked: str = wanted.version
    if wanted.source != PREINSTALLED:
        return asked
    installed = facts.running_module.version if facts.running_module else ""
    return asked or facts.loaded_version or installed or facts.library_version or ""


# --- what a restart is needed for -----------------------------------------------------------------------------------


def kernels_without_module(facts: DriverFacts, version: str) -> Tuple[str, ...]:
    return tuple(
        kernel.release for kernel in facts.kernels if kernel.module is None or kernel.module.version != version
    )


def reboot_reasons(facts: DriverFacts, wanted: Wanted) -> List[str]:
    """Derived from the state alone, so that they vanish with it.  None while a kernel would come up without a module:
    a restart would then cost the driver that runs now."""
    version = expected_version(facts, wanted)
    if not version or not facts.kernels or kernels_without_module(facts, version):
        return []
    reasons = []
    if facts.nouveau_loaded:
        reasons.append("nouveau is loaded, and NVIDIA's driver cannot take the GPU from it")
    if facts.loaded_version and facts.loaded_version != version:
        reasons.append(f"NVIDIA's module {facts.loaded_version} is loaded, and {version} is installed")
    elif facts.loaded_version and facts.running_module and facts.loaded_kind not in (None, facts.running_module.kind):
        reasons.append(
            f"the {facts.loaded_kind} module is loaded, and the {facts.running_module.kind} one is installed"
        )
    elif not facts.loaded_version and not facts.running_module:
        reasons.append(
            f"the running kernel {facts.system.running_kernel} has no NVIDIA module, and every kernel that can boot"
            " next has one"
        )
    return reasons


def reboot_ahead(facts: DriverFacts, wanted: Wanted, plan: Plan) -> List[str]:
    """Why a change that is due would need a restart.

    From the change until then the module that is loaded has libraries of another version beside it, and an engine that
    stops does not start again.
    """
    if wanted.source == PREINSTALLED or plan.settled or not facts.loaded_version:
        return []
    version = expected_version(facts, wanted)
    if facts.loaded_version != version:
        return [f"NVIDIA's module {facts.loaded_version} is loaded, and goes on beside {version} until a restart"]
    if facts.loaded_kind and plan.kind and facts.loaded_kind != plan.kind:
        return [f"the {facts.loaded_kind} module is loaded, and goes on until a restart brings the {plan.kind} one"]
    return []


def can_load(facts: DriverFacts, wanted: Wanted) -> bool:
    """Whether the module can simply be loaded into the running kernel: a fresh installation without nouveau."""
    module = facts.running_module
    return bool(
        facts.gpus
        and not facts.loaded_version
        and not facts.nouveau_loaded
        and module
        and module.version == expected_version(facts, wanted)
    )


def next_step(facts: DriverFacts, wanted: Wanted, plan: Plan) -> str:
    """One sentence for the person who reads the output."""
    if plan.problems:
        first: str = plan.problems[0].sentence
        return first
    version = expected_version(facts, wanted)
    if wanted.source != PREINSTALLED and not plan.settled:
        return f"Install driver {version} ({plan.kind} module): {len(plan.changes)} packages change."
    lacking = kernels_without_module(facts, version) if facts.kernels else ()
    if lacking:
        return f"Build the module for kernel {', '.join(lacking)} before anybody restarts this host."
    if reboot_reasons(facts, wanted):
        return "Restart the host."
    return "Load the module." if can_load(facts, wanted) else "Nothing."


# --- checks ---------------------------------------------------------------------------------------------------------


def checks(facts: DriverFacts, wanted: Wanted, plan: Plan) -> List[Check]:
    """What can be asked on every host; what only an installation of ours promises is added for it."""
    version = expected_version(facts, wanted)
    report = [
        _present(version, wanted),
        _loaded(facts, version),
        _library(facts),
        _modules(facts, version),
        _kind(facts),
        _nouveau(facts),
        _secure_boot(facts),
        _fabric(facts, version, plan),
    ]
    if facts.packages:
        report.append(_one_version(facts, version))
    if wanted.persistence:
        report.append(_persistence(facts.persistence))
    if wanted.source != PREINSTALLED:
        report += [_installed(plan, version), _held(facts, plan)]
        if facts.unattended_away is not None:
            report.append(_unattended(facts.unattended_away))
    return report


def _present(version: str, wanted: Wanted) -> Check:
    return _check(
        "version",
        bool(version),
        f"The driver's version is {version}.",
        "This host has no NVIDIA driver, and none is asked for.",
        "Set nvidia_driver_version, or install the driver that nvidia_driver_source: preinstalled expects."
        if wanted.source == PREINSTALLED
        else "Set nvidia_driver_version.",
    )


def _loaded(facts: DriverFacts, version: str) -> Check:
    loaded = facts.loaded_version
    found = f"The kernel has loaded NVIDIA's module {loaded}" if loaded else "The kernel has no NVIDIA module loaded"
    return _check(
        "loaded",
        loaded == version and bool(loaded),
        f"{found} ({facts.loaded_kind}).",
        f"{found}, and it should be {version or 'there'}.",
        "Restart the host, or load the module with `modprobe nvidia` where none is loaded.",
    )


def _library(facts: DriverFacts) -> Check:
    """The pair whose disagreement ends every new process with "Driver/library version mismatch"."""
    loaded, library = facts.loaded_version, facts.library_version
    return _check(
        "library",
        not loaded or not library or loaded == library,
        f"Module ({loaded or 'not loaded'}) and library ({library or 'not installed'}) do not disagree.",
        f"The loaded module is {loaded} and the library {library}: a new process on the GPU ends with a mismatch.",
        "Restart the host, so that the module of the library's version is loaded.",
    )


def _modules(facts: DriverFacts, version: str) -> Check:
    lacking = kernels_without_module(facts, version)
    have = ", ".join(kernel.release for kernel in facts.kernels)
    found = {kernel.release: kernel.module.version if kernel.module else "none" for kernel in facts.kernels}
    return _check(
        "module-every-kernel",
        not lacking,
        f"Every kernel that can boot next has module {version}: {have}."
        if facts.kernels
        else "This host boots a kernel from outside, so there is none to have a module.",
        f"Without module {version}: " + ", ".join(f"{name} (has {found[name]})" for name in lacking) + ".",
        "Do not restart this host before the module is built: see `dkms status` and make.log in /var/lib/dkms, or"
        " remove that kernel.",
    )


def _kind(facts: DriverFacts) -> Check:
    kinds = {kernel.module.kind for kernel in facts.kernels if kernel.module}
    kinds |= {facts.loaded_kind} if facts.loaded_kind else set()
    wrong = [
        f"{gpu.product or gpu.name} needs the {needed} module"
        for gpu in facts.gpus
        for needed in [{"required": OPEN, "no": PROPRIETARY}.get(gpu.open_module or "")]
        if needed and kinds - {needed}
    ]
    return _check(
        "module-kind",
        not wrong,
        f"The {' and the '.join(sorted(kinds)) or 'missing'} module fits the GPUs.",
        f"{'; '.join(dict.fromkeys(wrong))}, and the {' and the '.join(sorted(kinds))} one is there.",
        "Set nvidia_driver_kernel_module to auto and run the role again.",
    )


def _nouveau(facts: DriverFacts) -> Check:
    carried = [kernel.release for kernel in facts.kernels if _carries_nouveau(kernel)]
    faults = [
        *(["the kernel has loaded it"] if facts.nouveau_loaded else []),
        # A machine without kernels of its own, and without nouveau now, gets none at its next start either.
        *(["nothing keeps it from being loaded"] if facts.kernels and not facts.nouveau_blocked else []),
        *([f"the initramfs of {', '.join(carried)} has it and nothing that keeps it away"] if carried else []),
    ]
    return _check(
        "nouveau",
        not faults,
        "nouveau is not loaded, and will not be.",
        f"nouveau is in the way: {'; '.join(faults)}.",
        "Run the role, which keeps it away and rebuilds every initramfs, and restart the host where it is loaded.",
    )


def _carries_nouveau(kernel: Kernel) -> bool:
    return bool(kernel.initramfs and kernel.initramfs.nouveau and not kernel.initramfs.blocks_nouveau)


def _secure_boot(facts: DriverFacts) -> Check:
    unsigned = [kernel.release for kernel in facts.kernels if kernel.module and not kernel.module.signer]
    refused = bool(facts.secure_boot) and (bool(unsigned) or facts.signing_key_enrolled is False)
    why = f"the module of {', '.join(unsigned)} is not signed" if unsigned else "its key is not enrolled"
    state = {True: "on", False: "off", None: "not there"}[facts.secure_boot]
    return _check(
        "secure-boot",
        not refused,
        f"Secure Boot is {state}.",
        f"Secure Boot is on, and {why}: the kernel will refuse the module.",
        "Enroll the key that signs the module with `mokutil --import`, or use signed packages.",
    )


def _fabric(facts: DriverFacts, version: str, plan: Plan) -> Check:
    manager = facts.fabric_manager
    if not plan.fabric and not manager.installed:
        return _check("fabric-manager", True, "No fabric is managed on this host.", "", "")
    known = upstream(manager.version) if manager.version else ""
    faults = [
        *([] if manager.installed else ["it is not installed"]),
        *([f"it is {known}, the driver {version}"] if known and known != version else []),
        *(["it is not enabled"] if manager.installed and manager.enabled is False else []),
        *(["it does not run"] if facts.loaded_version and manager.installed and manager.active is False else []),
    ]
    return _check(
        "fabric-manager",
        not faults,
        f"The fabric manager {known or 'of unknown version'} is the driver's.",
        f"The fabric manager is wrong: {'; '.join(faults)}. CUDA would end with error 802.",
        "Run the role, or install exactly the driver's version of it.",
    )


def _one_version(facts: DriverFacts, version: str) -> Check:
    """All that carries a driver's version; helpers such as nvidia-modprobe have versions of their own."""
    branch = version.partition(".")[0]
    versions = {package.name: upstream(package.version) for package in facts.packages}
    others = [
        f"{name} {found}"
        for name, found in sorted(versions.items())
        if found != version and name.startswith(_CORE) and _is_drivers_version(found)
    ]
    broken = [package.name for package in facts.packages if not package.complete]
    return _check(
        "one-version",
        not others and not broken,
        f"All {len(versions)} packages of the driver fit {version} (branch {branch}).",
        "Packages of the driver do not fit together: "
        + ", ".join([*others, *(f"{name} is not configured" for name in broken)])
        + ".",
        "Run the role, which installs one version of all in one transaction.",
    )


def _is_drivers_version(version: str) -> bool:
    """Not that of a helper with a number of its own, such as libnvidia-egl-wayland1 1.1.10."""
    branch = version.partition(".")[0]
    return branch.isdigit() and int(branch) >= 300


_CORE = (
    "firmware-nvidia-gsp",
    "libcuda1",
    "libnvidia-",
    "nvidia-alternative",
    "nvidia-compute-utils",
    "nvidia-dkms",
    "nvidia-driver",
    "nvidia-fabricmanager",
    "nvidia-kernel-dkms",
    "nvidia-kernel-open-dkms",
    "nvidia-kernel-source",
    "nvidia-open-kernel-dkms",
    "nvidia-smi",
    "nvidia-utils",
)


def _persistence(service: Service) -> Check:
    # Without systemd nobody can be asked, and gpu_info tells the mode that the driver is in.
    return _check(
        "persistence",
        service.enabled is not False,
        "The persistence daemon starts with the host." if service.enabled else "There is no systemd to ask.",
        "The persistence daemon does not start with the host: the first request after a rest waits for the GPUs.",
        "Run the role, or `systemctl enable --now nvidia-persistenced`.",
    )


def _installed(plan: Plan, version: str) -> Check:
    return _check(
        "packages",
        bool(plan.packages) and not plan.changes,
        f"{len(plan.packages)} packages are installed as version {version} asks.",
        f"Not installed as asked: {', '.join(plan.changes) or 'nothing is known of what to install'}.",
        "Run the role.",
    )


def _held(facts: DriverFacts, plan: Plan) -> Check:
    loose = [package.name for package in facts.packages if not package.held]
    return _check(
        "held",
        not loose and not plan.unheld and bool(facts.packages),
        f"{len(facts.packages)} packages of the driver are held.",
        f"Not held: {', '.join(loose or plan.unheld) or 'there are no packages'}; an upgrade would move them.",
        "Run the role.",
    )


def _unattended(away: bool) -> Check:
    return _check(
        "unattended",
        away,
        "Unattended upgrades stay away from the driver.",
        "Unattended upgrades would upgrade the driver below a running engine.",
        "Run the role.",
    )


def stale_initramfs(facts: DriverFacts) -> Tuple[str, ...]:
    """Kernels whose initramfs has to be made again before it says what modprobe's settings say."""
    return tuple(
        kernel.release
        for kernel in facts.kernels
        if kernel.initramfs and (kernel.initramfs.stale or _carries_nouveau(kernel))
    )
