# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read what a host has of package sources, and run its package manager for one source alone."""

from __future__ import annotations

import glob
import os
import time
from typing import Callable, Dict, List, Sequence, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.package_source import (
    APT,
    DNF,
    LAYOUTS,
    PREFIX,
    Source,
    SourceError,
)
from ansible_collections.bedplate.llm.plugins.module_utils.package_source_plan import State

# When each source's list of packages was last fetched; the lists themselves have the server's time.
STAMPS = "/var/cache/bedplate/package_source"
LOCKED = ("Could not get lock", "Unable to acquire", "Unable to lock")

_FILES = {
    APT: (
        "/etc/apt/sources.list",
        "/etc/apt/sources.list.d/*",
        f"/etc/apt/keyrings/{PREFIX}*.gpg",
        f"/etc/apt/apt.conf.d/90{PREFIX}*",
        "/etc/apt/trusted.gpg",
        "/etc/apt/trusted.gpg.d/*",
    ),
    DNF: ("/etc/yum.repos.d/*", f"/etc/pki/rpm-gpg/RPM-GPG-KEY-{PREFIX}*"),
}

Run = Callable[[List[str]], Tuple[int, str, str]]


def find_manager(present: Callable[[str], bool] = os.path.exists) -> str:
    for program, manager in (("/usr/bin/apt-get", str(APT)), ("/usr/bin/dnf", str(DNF))):
        if present(program):
            return manager
    raise SourceError(
        "This host has neither apt-get nor dnf: package sources are made for Debian, Ubuntu and RHEL here."
    )


def read_files(manager: str, root: str = "") -> Dict[str, bytes]:
    found: Dict[str, bytes] = {}
    for pattern in _FILES[manager]:
        for path in glob.glob(root + pattern):
            if os.path.isfile(path):
                with open(path, "rb") as handle:
                    found[path[len(root) :]] = handle.read()
    return found


def stamp(name: str) -> str:
    return f"{STAMPS}/{name}"


def apt_options(name: str) -> List[str]:
    """For one source and no other: somebody else's broken source is not this role's, and its lists are not touched."""
    return [
        f"-oDir::Etc::sourcelist={LAYOUTS[APT].source_path(name)}",
        "-oDir::Etc::sourceparts=/dev/null",
        "-oAPT::Get::List-Cleanup=0",
    ]


def update_argv(manager: str, name: str) -> List[str]:
    if manager == APT:
        # Without the error mode, apt goes on with the old lists when a signature is wrong, and ends with 0.
        return ["apt-get", "update", "-q", *apt_options(name), "-oAPT::Update::Error-Mode=any", "-oAcquire::Retries=2"]
    return ["dnf", "--assumeyes", "--disablerepo=*", f"--enablerepo={PREFIX}{name}", "makecache", "--refresh"]


def indexed(manager: str, name: str, run: Run) -> bool:
    """Whether the list of packages of a source is there."""
    if manager == APT:
        code, out, _err = run(["apt-get", "indextargets", *apt_options(name), "--format", "$(FILENAME)"])
        return code == 0 and any(os.path.exists(path) for path in out.split())
    return bool(glob.glob(f"/var/cache/dnf/{PREFIX}{name}-*/repodata/repomd.xml"))


def read_state(sources: Sequence[Source], valid_seconds: int, run: Run, now: float) -> State:
    manager = find_manager()
    architecture = run(["dpkg", "--print-architecture"])[1].strip() if manager == APT else ""
    files = read_files(manager)
    there = [
        source.name
        for source in sources
        if LAYOUTS[manager].source_path(source.name) in files and indexed(manager, source.name, run)
    ]
    return State(
        manager, architecture, files, tuple(there), tuple(name for name in there if _young(name, valid_seconds, now))
    )


def _young(name: str, valid_seconds: int, now: float) -> bool:
    try:
        return now - os.path.getmtime(stamp(name)) < valid_seconds
    except OSError:
        return False


def update(
    manager: str,
    name: str,
    lock_timeout: int,
    run: Run,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Fetch the list of packages of one source; SourceError with what the package manager says against it.

    apt's own lock timeout is for installing only: for its lists it gives up at once.
    """
    end = clock() + lock_timeout
    while True:
        code, out, err = run(update_argv(manager, name))
        if not code:
            os.makedirs(STAMPS, exist_ok=True)
            with open(stamp(name), "w", encoding="ascii"):
                pass
            return
        said = [line for line in (out + "\n" + err).splitlines() if line.startswith(("E:", "W:", "Err", "Error"))]
        text = " ".join(said or err.split("\n")).strip()[-1500:]
        if not any(words in text for words in LOCKED):
            raise SourceError(f"{name}: the package manager refuses this source; it says: {text}")
        if clock() >= end:
            raise SourceError(
                f"{name}: another package manager holds its lock for {lock_timeout} s already; wait for it to end, or"
                f" raise package_source_lock_timeout. It says: {text}"
            )
        sleep(3)
