# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The commands that stage, install, hold and remove a driver's packages, and what their failure means."""

from __future__ import annotations

from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.dkms import failed_builds
from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import Package
from ansible_collections.bedplate.llm.plugins.module_utils.package_manager import complaint, unhold

Wanted = Sequence[Tuple[str, str]]
Argv = List[str]
Run = Callable[[Sequence[str]], Optional[str]]

# Versions that are asked for are exact, so that an older one is meant; what is held moves in the same transaction, so
# that there is no moment in which an upgrade by somebody else could come in between.
_APT = (
    *("apt-get", "--yes", "--no-install-recommends", "--allow-change-held-packages", "--allow-downgrades"),
    *("-o", "Dpkg::Options::=--force-confold"),
)
_DNF = ("dnf", "--assumeyes", "--setopt=install_weak_deps=False")


def pending(wanted: Wanted, present: Mapping[str, Package]) -> List[str]:
    """Names that are missing, of another version, or were never configured."""
    found: List[str] = []
    for name, version in wanted:
        package = present.get(name)
        if package is None or not package.complete or (version and package.version != version):
            found.append(name)
    return found


def words(manager: str, wanted: Wanted, drops: Sequence[str] = ()) -> Argv:
    """How the manager writes an exact version, and what goes in the same transaction; dnf finds that by itself."""
    mark = "=" if manager == "apt" else "-"
    names = [f"{name}{mark}{version}" if version else name for name, version in wanted]
    return [*names, *(f"{name}-" for name in drops if manager == "apt")]


def apt_install(lock_timeout: int = 0) -> Argv:
    return [*_APT, "-o", f"DPkg::Lock::Timeout={lock_timeout}", "install"]


def to_fetch(manager: str, wanted: Wanted, drops: Sequence[str], names: Sequence[str], run: Run) -> List[str]:
    """Of what is missing, what is not downloaded yet.  Without lists, or with dnf, nobody can say: then all of it."""
    if manager != "apt":
        return list(names)
    listed = run([*apt_install(), "--print-uris", *words(manager, wanted, drops)])
    if listed is None:
        return list(names)
    files = [line.split(" ")[1] for line in listed.splitlines() if line.startswith("'")]
    return sorted({file.partition("_")[0] for file in files})


def install(
    manager: str,
    wanted: Wanted,
    stream: str,
    lock_timeout: int,
    stage: bool = False,
    locked: Sequence[str] = (),
    drops: Sequence[str] = (),
) -> List[Argv]:
    # Also while staging, which removes nothing: without them there is no solution to download for.
    names = words(manager, wanted, drops)
    if manager == "apt":
        lists = ["apt-get", "-o", "Acquire::Retries=3", "--quiet=2", "update"]
        return [lists, [*apt_install(lock_timeout), *(["--download-only"] if stage else []), *names]]
    if stage:
        return [[*_DNF, "install", "--downloadonly", *names]]
    module = [[*_DNF, "module", "reset", stream.partition(":")[0]], [*_DNF, "module", "enable", stream]]
    return [
        *(module if stream else []),
        *unhold(manager, locked),
        [*_DNF, "--allowerasing", "install", *names],
    ]


def build(kernels: Sequence[str]) -> List[Argv]:
    """DKMS passes over a kernel in silence when its headers come later than the driver."""
    return [["dkms", "autoinstall", "-k", kernel] for kernel in kernels]


def remove(manager: str, names: Sequence[str], lock_timeout: int, locked: Sequence[str] = ()) -> List[Argv]:
    """Only what is the driver's: nothing is removed because it seems not to be needed any more."""
    if manager == "apt":
        purge = ["apt-get", "--yes", "-o", f"DPkg::Lock::Timeout={lock_timeout}", "purge", *names]
    else:
        purge = ["dnf", "--assumeyes", "--noautoremove", "remove", *names]
    return [*unhold(manager, locked), purge]


def failure(argv: Sequence[str], output: str) -> str:
    """What went wrong, in a sentence: a module that does not compile is said first, since it decides about restarts."""
    kernels = failed_builds(output) or (argv[-1:] if argv[0] == "dkms" else ())
    said = complaint(output)
    if kernels:
        return (
            f"NVIDIA's module cannot be built for kernel {', '.join(kernels)}, which could boot next: {said}"
            " make.log below /var/lib/dkms may say more. Do not restart this host: choose a version that builds, or"
            " boot an older kernel and remove this one. Nothing was loaded or unloaded, and what is installed is held."
        )
    return f"{argv[0]} failed, and the driver may be installed in part; what is installed is held: {said}"


def diff(
    state: str,
    names: Sequence[str],
    loose: Sequence[str],
    wanted: Wanted,
    present: Mapping[str, Package],
    drops: Sequence[str] = (),
) -> Dict[str, str]:
    versions = dict(wanted)

    def before(name: str) -> str:
        package = present.get(name)
        return f"{name} {package.version if package else '(not installed)'}\n"

    def after(name: str) -> str:
        if state == "absent" or name in drops:
            return f"{name} (not installed)\n"
        return f"{name} {versions.get(name) or '(any)'}{' (downloaded)' if state == 'staged' else ''}\n"

    return {
        "before": "".join(map(before, names)) + "".join(f"{name} not held\n" for name in loose),
        "after": "".join(map(after, names)) + "".join(f"{name} held\n" for name in loose),
    }
