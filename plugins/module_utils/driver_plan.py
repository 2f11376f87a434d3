# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What to install on a host, and everything that refuses it before the first change."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import List, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.dkms import no_headers, not_enrolled
from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import (
    DriverFacts,
    Offers,
    Problem,
    Wanted,
)
from ansible_collections.bedplate.llm.plugins.module_utils.driver_kind import fabric_of, kind_of
from ansible_collections.bedplate.llm.plugins.module_utils.driver_packages import (
    DKMS,
    PackageSet,
    choose,
    is_drivers,
    is_other_kind,
    missing_headers,
    package_set,
    to_hold,
    upstream,
)
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_holders import Holder
from ansible_collections.bedplate.llm.plugins.module_utils.nvidia_platform import (
    PlatformError,
    nvidia_arch,
    repo_distribution,
)

PREINSTALLED = "preinstalled"
# The driver's own services: they hold its devices always, and their packages restart them.
_OWN_UNITS = ("nvidia-persistenced.service", "nvidia-fabricmanager.service", "nvidia-powerd.service")


@dataclass(frozen=True)
class Plan:
    """packages: names with the package version to install, empty where any will do; headers are among them.

    drops: installed packages with the other kind of module.

    settled: the packages are installed in that version and held, so nothing has to be asked or changed.
    """

    kind: Optional[str] = None
    fabric: str = ""
    packages: Tuple[Tuple[str, str], ...] = ()
    module_stream: str = ""
    build: str = DKMS
    drops: Tuple[str, ...] = ()
    changes: Tuple[str, ...] = ()
    unheld: Tuple[str, ...] = ()
    problems: Tuple[Problem, ...] = ()

    @property
    def settled(self) -> bool:
        return bool(self.packages) and not self.changes and not self.unheld


def make_plan(facts: DriverFacts, wanted: Wanted, offers: Optional[Offers] = None) -> Plan:
    """Without offers nobody has asked the package sources yet: what only they know is left open."""
    problem = _system_problem(facts, wanted)
    if problem:
        return Plan(problems=(problem,))
    if wanted.source == PREINSTALLED:
        # Only switches that are seen: in a virtual machine those of NVLink 5 are run from outside.
        fabric = fabric_of(facts, wanted) if facts.nvswitches else ""
        return Plan(facts.running_module.kind if facts.running_module else facts.loaded_kind, fabric)
    chosen = kind_of(facts, wanted)
    fabric = fabric_of(facts, wanted)
    if chosen.kind is None:
        return Plan(fabric=fabric, problems=chosen.problems)
    packages = package_set(facts.system, wanted, chosen.kind, facts.kernels, fabric)
    if packages is None:
        return Plan(chosen.kind, fabric, problems=(_no_packages(facts, wanted),))
    problems = [*chosen.problems, *_build_problems(wanted, packages), *_kernel_problems(facts)]
    headers = missing_headers(packages, facts.kernels)
    beside = [(name, "") for name in (*packages.beside, *headers)]
    drops = tuple(package.name for package in facts.packages if is_other_kind(package.name, chosen.kind))
    changes = (*_changes(facts, wanted, packages, headers), *drops)
    unheld = to_hold(facts.packages, facts.kernel_packages, wanted.hold_kernel)
    exact = [(name, _installed_as(facts, name, wanted.version)) for name in packages.exact]
    if offers is not None:
        exact = [(name, choose(wanted.version, offers.versions.get(name, ())) or "") for name in packages.exact]
        exact += _along(facts, wanted, packages, drops, offers)
        problems += _offer_problems(wanted, packages, headers, offers, facts)
    problems += _secure_boot_problems(facts, packages, changes)
    problems += _holder_problems(facts, changes)
    return Plan(
        kind=chosen.kind,
        fabric=fabric,
        packages=(*exact, *beside),
        module_stream=packages.module_stream,
        build=packages.build,
        drops=drops,
        changes=changes,
        unheld=unheld if not changes else (),
        problems=tuple(problems),
    )


def _installed_as(facts: DriverFacts, name: str, version: str) -> str:
    package = facts.installed(name)
    return package.version if package and upstream(package.version) == version else ""


def _along(
    facts: DriverFacts, wanted: Wanted, packages: PackageSet, drops: Tuple[str, ...], offers: Offers
) -> List[Tuple[str, str]]:
    """Other installed parts of the driver: they are held, so that they move only when they are named."""
    found = []
    for package in facts.packages:
        version = choose(wanted.version, offers.versions.get(package.name, ()))
        if version and version != package.version and package.name not in (*packages.names, *drops):
            found.append((package.name, version))
    return found


def _changes(facts: DriverFacts, wanted: Wanted, packages: PackageSet, headers: Tuple[str, ...]) -> Tuple[str, ...]:
    """Packages of the set that are not there as they should be."""
    changes = [
        name
        for name in packages.exact
        for found in [facts.installed(name)]
        if found is None or not found.complete or upstream(found.version) != wanted.version
    ]
    return (*changes, *(name for name in packages.beside if facts.installed(name) is None), *headers)


# --- problems, in the order in which they are told ------------------------------------------------------------------


def _system_problem(facts: DriverFacts, wanted: Wanted) -> Optional[Problem]:
    if wanted.source == PREINSTALLED:
        return None  # nothing is installed: any system may be looked at
    try:
        repo_distribution(facts.system.distribution, facts.system.version)
        nvidia_arch(facts.system.machine)
    except PlatformError as error:
        return Problem("system", str(error))
    return None


def _no_packages(facts: DriverFacts, wanted: Wanted) -> Problem:
    return Problem(
        "source",
        f"nvidia_driver_source is {wanted.source}, and {facts.system.distribution} brings no NVIDIA driver of its own:"
        " set it to vendor or mirror.",
    )


def _build_problems(wanted: Wanted, packages: PackageSet) -> List[Problem]:
    if wanted.build in ("auto", packages.build):
        return []
    return [
        Problem(
            "build",
            f"nvidia_driver_module_build is {wanted.build}, and these packages are {packages.build}: set it to auto, or"
            " use another nvidia_driver_source.",
        )
    ]


def _kernel_problems(facts: DriverFacts) -> List[Problem]:
    if facts.kernels:
        return []
    return [
        Problem(
            "kernel",
            "This host has no kernel in /boot that a module could be built for: it boots one from outside (a container,"
            " or a machine whose host provides the kernel); install the distribution's kernel, or set"
            " nvidia_driver_source to preinstalled.",
        )
    ]


def complete_versions(packages: PackageSet, offers: Offers) -> Tuple[str, ...]:
    """Driver versions in which every package of the set is offered, newest first."""
    lists = [[upstream(version) for version in offers.versions.get(name, ())] for name in packages.exact]
    if not lists or not all(lists):
        return ()
    return tuple(version for version in dict.fromkeys(lists[0]) if all(version in versions for versions in lists))


def _offer_problems(
    wanted: Wanted, packages: PackageSet, headers: Tuple[str, ...], offers: Offers, facts: DriverFacts
) -> List[Problem]:
    complete = complete_versions(packages, offers)
    offered = f"it offers {', '.join(complete)} as a whole" if complete else "it offers no version as a whole"
    if not wanted.version and any(re.search(r"-0\b", name) for name in packages.exact):
        return [
            Problem(
                "version",
                "nvidia_driver_version is not set: write down an exact version, such as 580.95.05; the names of the"
                " packages follow from it (`apt-cache search --names-only '^nvidia-utils-'` lists the branches).",
            )
        ]
    if not wanted.version:
        return [
            Problem(
                "version",
                f"nvidia_driver_version is not set: the source {wanted.source}, with the {packages.kind} kernel module,"
                f" {offered.partition(' ')[2]}; write one of these down, so that every host has the same.",
            )
        ]
    problems = []
    lacking = [
        name + (f" (only {', '.join(map(upstream, offers.versions[name]))})" if offers.versions.get(name) else "")
        for name in packages.exact
        if choose(wanted.version, offers.versions.get(name, ())) is None
    ]
    if lacking:
        problems.append(
            Problem(
                "version",
                f"nvidia_driver_version is {wanted.version}, and the source {wanted.source} does not have it of"
                f" {', '.join(lacking)}: {offered}; choose one of these, or another nvidia_driver_source or"
                " nvidia_driver_kernel_module.",
            )
        )
    problems += _headers_problems(headers, offers, facts)
    beside = [name for name in packages.beside if not offers.versions.get(name)]
    if beside:
        problems.append(
            Problem("version", f"The source {wanted.source} does not have {', '.join(beside)}: use another source.")
        )
    # What is missing above is what the resolver would complain about as well.
    if not problems and offers.error:
        problems.append(Problem("resolver", f"The packages cannot be installed together: {offers.error}."))
    foreign = [name for name in offers.removes if not is_drivers(name)]
    if foreign:
        problems.append(
            Problem(
                "removes",
                f"Installing the driver would remove {', '.join(foreign)}: remove what is not needed yourself, or"
                " choose another version.",
            )
        )
    return problems


def _headers_problems(headers: Tuple[str, ...], offers: Offers, facts: DriverFacts) -> List[Problem]:
    lacking = {name for name in headers if not offers.versions.get(name)}
    kernels = [kernel.release for kernel in facts.kernels if kernel.headers_package in lacking]
    if not kernels:
        return []
    return [Problem("headers", no_headers(kernels, lacking))]


def _secure_boot_problems(facts: DriverFacts, packages: PackageSet, changes: Tuple[str, ...]) -> List[Problem]:
    if not facts.secure_boot or packages.build != DKMS or facts.signing_key_enrolled or not changes:
        return []
    left = "The driver that runs now was left alone."
    return [Problem("secure-boot", f"{not_enrolled(facts.signing_key)} {left}")]


def foreign_holders(holders: Tuple[Holder, ...]) -> Tuple[Holder, ...]:
    return tuple(holder for holder in holders if holder.unit not in _OWN_UNITS)


def users(holders: Tuple[Holder, ...]) -> List[str]:
    return [
        f"{holder.command} (process {holder.pid}" + (f" of {holder.unit})" if holder.unit else ")")
        for holder in foreign_holders(holders)
    ]


def _holder_problems(facts: DriverFacts, changes: Tuple[str, ...]) -> List[Problem]:
    """Named and left alone: killing a process that talks to a GPU can leave both behind."""
    holders = foreign_holders(facts.holders)
    if not holders or not changes:
        return []
    named = ", ".join(users(holders)[:8])
    units = sorted({holder.unit for holder in holders if holder.unit.endswith(".service")})
    stop = f"stop it with `systemctl stop {' '.join(units)}`" if units else "end it"
    return [
        Problem(
            "holders",
            f"The driver would be exchanged below who uses the GPU through it: {named}; {stop} and run this again.",
        )
    ]
