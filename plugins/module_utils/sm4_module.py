# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""SM4 for kernels that were built without it: what to install and to build, what forbids it, and the checks.

The source is that of the distribution's own kernel, two files of it, from its package linux-source.  DKMS gets one
module for each series of kernels (6.1, 6.12, …), since the source of one series does not compile for another.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.cipher_profiles import GUOMI, Host, remedy
from ansible_collections.bedplate.llm.plugins.module_utils.dkms import no_headers, not_enrolled
from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import Offers, Problem, System
from ansible_collections.bedplate.llm.plugins.module_utils.driver_packages import upstream

ROLE = "sm4_module"
# What the kernel asks for when somebody wants SM4, whoever provides it.
ALIAS = "crypto-sm4"
SOURCES = ("sm4.c", "sm4_generic.c")
MODULES = ("sm4", "sm4_generic")
_PREFIX = "bedplate-sm4-"


@dataclass(frozen=True)
class Kernel:
    """A kernel that could boot next; sm4: whether it finds a module, or has it built in, when SM4 is asked for."""

    release: str
    headers: bool = False
    headers_package: str = ""
    sm4: bool = False


@dataclass(frozen=True)
class Build:
    """What DKMS has of ours: a source that was added, and for which kernel it was installed; none before that."""

    name: str
    version: str
    kernel: str = ""


@dataclass(frozen=True)
class Facts:
    """unusable: why the running kernel cannot do the profile; empty when it can."""

    system: System
    kernels: Tuple[Kernel, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    builds: Tuple[Build, ...] = ()
    unusable: str = ""
    loaded_at_boot: bool = False
    secure_boot: Optional[bool] = None
    signing_key: str = ""
    signing_key_enrolled: Optional[bool] = None


@dataclass(frozen=True)
class Plan:
    """series: those that need our module.  packages: what is missing for it.  build_for: kernels that lack a build of
    the source that is installed.  stale: builds of an older one."""

    series: Tuple[str, ...] = ()
    packages: Tuple[str, ...] = ()
    build_for: Tuple[str, ...] = ()
    stale: Tuple[Build, ...] = ()
    problems: Tuple[Problem, ...] = ()

    @property
    def settled(self) -> bool:
        return not (self.packages or self.build_for or self.stale or self.problems)


# --- names ----------------------------------------------------------------------------------------------------------


def series_of(release: str) -> str:
    """6.1 of 6.1.0-56-cloud-amd64, 6.12 of 6.12.115+deb12-amd64."""
    match = re.match(r"\d+\.\d+", release)
    return match[0] if match else ""


def module_name(series: str) -> str:
    return f"{_PREFIX}{series}"


def source_package(series: str) -> str:
    return f"linux-source-{series}"


def source_version(facts: Facts, series: str) -> str:
    """Version of the source that is installed; empty while none is."""
    return str(upstream(facts.packages.get(source_package(series), "")))


def parse_dkms(text: str) -> Tuple[Build, ...]:
    """Ours in `dkms status`: `name/version: added`, `name/version, kernel, architecture: installed (…)`."""
    found = []
    for line in text.splitlines():
        match = re.match(rf"({_PREFIX}[\d.]+)/([^,:\s]+)(?:, (\S+), \S+)?: (\w+)", line.strip())
        if match:
            found.append(Build(match[1], match[2], (match[3] or "") if match[4] == "installed" else ""))
    return tuple(found)


def dkms_conf(series: str, version: str) -> str:
    blocks = "".join(
        f'BUILT_MODULE_NAME[{number}]="{name}"\nDEST_MODULE_LOCATION[{number}]="/updates/dkms"\n'
        for number, name in enumerate(MODULES)
    )
    exclusive = series.replace(".", r"\.")
    return (
        "# bedplate: the cipher SM4 for kernels of one series, from the distribution's own source of it.\n"
        f'PACKAGE_NAME="{module_name(series)}"\nPACKAGE_VERSION="{version}"\n{blocks}'
        f'AUTOINSTALL="yes"\nBUILD_EXCLUSIVE_KERNEL="^{exclusive}\\."\n'
    )


KBUILD = f"obj-m := {' '.join(f'{name}.o' for name in MODULES)}\n"


# --- the plan -------------------------------------------------------------------------------------------------------


def _ours(facts: Facts, kernel: Kernel) -> bool:
    return any(build.kernel == kernel.release for build in facts.builds)


def needing(facts: Facts) -> Tuple[Kernel, ...]:
    """Kernels whose distribution gave them no SM4."""
    return tuple(kernel for kernel in facts.kernels if not kernel.sm4 or _ours(facts, kernel))


def _following(facts: Facts) -> Tuple[str, ...]:
    """Packages that bring the headers of each kernel to come, for those that bring the kernels."""
    releases = {kernel.release for kernel in facts.kernels}
    flavours = [name[len("linux-image-") :] for name in facts.packages if name.startswith("linux-image-")]
    return tuple(
        f"linux-headers-{flavour}"
        for flavour in flavours
        if flavour not in releases and not re.match(r"\d+\.\d+\.\d", flavour)
    )


def make_plan(facts: Facts, offers: Optional[Offers] = None) -> Plan:
    """Without offers nobody has asked the package sources yet."""
    kernels = needing(facts)
    if not kernels and (facts.kernels or not facts.unusable):
        return Plan()
    problems = _place_problems(facts)
    if problems:
        return Plan(problems=problems)
    series = tuple(sorted({series_of(kernel.release) for kernel in kernels}))
    wanted = [
        "dkms",
        *(source_package(name) for name in series),
        *(kernel.headers_package for kernel in kernels if not kernel.headers),
        *_following(facts),
    ]
    packages = tuple(name for name in dict.fromkeys(wanted) if name not in facts.packages)
    current = {(module_name(name), source_version(facts, name)) for name in series}
    built = {build.kernel for build in facts.builds if (build.name, build.version) in current}
    build_for = tuple(kernel.release for kernel in kernels if not (kernel.sm4 and kernel.release in built))
    # While the new source is not there, the old builds are all that there is.
    known = {name for name, version in current if version}
    stale = {
        (build.name, build.version)
        for build in facts.builds
        if build.name in known and (build.name, build.version) not in current
    }
    changes = bool(packages or build_for or stale)
    return Plan(
        series,
        packages,
        build_for,
        tuple(Build(name, version) for name, version in sorted(stale)),
        (*(_offer_problems(facts, packages, offers) if offers else ()), *_secure_boot_problems(facts, changes)),
    )


def _place_problems(facts: Facts) -> Tuple[Problem, ...]:
    here = facts.system
    if here.distribution != "debian":
        step = remedy(GUOMI, Host(here.running_kernel, here.distribution))
        return (
            Problem(
                "system",
                f"This host runs {here.label}, and the role sm4_module builds SM4 for Debian's kernels only: {step}.",
            ),
        )
    if not facts.kernels:
        return (
            Problem(
                "kernel",
                "This host has no kernel in /boot that a module could be built for: it boots one from outside (a"
                " container, or a machine whose host provides the kernel); install the distribution's kernel.",
            ),
        )
    return ()


def _offer_problems(facts: Facts, packages: Tuple[str, ...], offers: Offers) -> List[Problem]:
    lacking = [name for name in packages if not offers.versions.get(name)]
    headers = {kernel.headers_package: kernel.release for kernel in facts.kernels}
    without = [name for name in lacking if name in headers]
    others = [name for name in lacking if name not in headers]
    problems = []
    if without:
        problems.append(Problem("headers", no_headers([headers[name] for name in without], without)))
    if others:
        problems.append(
            Problem(
                "packages",
                f"The package sources of this host have no {', '.join(others)}, and SM4 cannot be built without it: add"
                " the distribution's main part, or a mirror of it, to apt's sources.",
            )
        )
    if not problems and offers.error:
        problems.append(Problem("resolver", f"The packages cannot be installed together: {offers.error}."))
    if offers.removes:
        problems.append(
            Problem(
                "removes",
                f"Installing what the build needs would remove {', '.join(offers.removes)}: remove what is not needed"
                " yourself.",
            )
        )
    return problems


def _secure_boot_problems(facts: Facts, changes: bool) -> List[Problem]:
    if not facts.secure_boot or facts.signing_key_enrolled or not changes:
        return []
    return [Problem("secure-boot", not_enrolled(facts.signing_key))]


def diff(facts: Facts, plan: Plan) -> Dict[str, str]:
    before = {build.kernel: build.version for build in facts.builds if build.kernel}
    after = {release: source_version(facts, series_of(release)) or "the source's" for release in plan.build_for}
    return {
        "before": "".join(f"{name} (not installed)\n" for name in plan.packages)
        + "".join(f"kernel {release} SM4 {before.get(release, 'none')}\n" for release in plan.build_for),
        "after": "".join(f"{name}\n" for name in plan.packages)
        + "".join(f"kernel {release} SM4 {version}\n" for release, version in after.items()),
    }


def as_dict(facts: Facts) -> Dict[str, Any]:
    """For whoever reads a result: of the packages only those that matter here."""
    relevant = ("dkms", "linux-headers-", "linux-image-", "linux-source-")
    found = asdict(facts)
    found["packages"] = {name: version for name, version in facts.packages.items() if name.startswith(relevant)}
    return found


# --- afterwards -----------------------------------------------------------------------------------------------------


def reboot_reasons(facts: Facts) -> List[str]:
    """The running kernel is none of those that could boot next, and each of these has SM4."""
    running = facts.system.running_kernel
    if not facts.unusable or not facts.kernels or any(not kernel.sm4 for kernel in facts.kernels):
        return []
    if running in {kernel.release for kernel in facts.kernels}:
        return []
    return [f"the running kernel {running} has no SM4, and every kernel that can boot next has it"]


def _check(name: str, ok: bool, good: str, bad: str, remedy_: str) -> Check:
    return Check(f"{ROLE}.{name}", ok, good if ok else bad, "" if ok else remedy_)


def checks(facts: Facts, plan: Plan) -> List[Check]:
    lacking = [kernel.release for kernel in facts.kernels if not kernel.sm4]
    missing = [name for name in plan.packages if name.startswith(("dkms", "linux-headers-"))]
    added = {build.name for build in facts.builds}
    unknown = [module_name(name) for name in plan.series if module_name(name) not in added]
    return [
        _check(
            "kernel-has-sm4",
            not facts.unusable,
            f"Kernel {facts.system.running_kernel} encrypts with {GUOMI.algorithm} as the standard says.",
            facts.unusable,
            "Run the role, and restart the host where it asks for that.",
        ),
        _check(
            "module-every-kernel",
            not lacking,
            f"Every kernel that can boot next has SM4: {', '.join(kernel.release for kernel in facts.kernels)}."
            if facts.kernels
            else "This host boots a kernel from outside, so there is none to have a module.",
            f"Without SM4, so that a volume of the profile {GUOMI.name} stays locked there: {', '.join(lacking)}.",
            "Do not restart this host into such a kernel: run the role, or remove that kernel.",
        ),
        _check(
            "next-kernel",
            not missing and not unknown,
            "A kernel that an upgrade brings gets SM4 with it.",
            f"A kernel that an upgrade brings would come without SM4: {', '.join([*missing, *unknown])} is missing.",
            "Run the role.",
        ),
        _check(
            "loaded-at-boot",
            facts.loaded_at_boot,
            "The module is loaded when the host starts.",
            "Nothing loads the module when the host starts: a kernel without it would be noticed only by the volume.",
            "Run the role.",
        ),
    ]
