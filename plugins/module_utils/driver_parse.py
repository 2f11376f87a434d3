# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the host's tools print about kernels, modules, packages and keys, as values."""

from __future__ import annotations

import re
from typing import Dict, Iterable, List, Optional, Set, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.driver_facts import OPEN, PROPRIETARY, Module, Package
from ansible_collections.bedplate.llm.plugins.module_utils.driver_packages import Repository
from ansible_collections.bedplate.llm.plugins.module_utils.package_manager import parse_locks

# The distributions rename NVIDIA's module, so that two flavours can lie beside each other.
MODULE_NAMES = ("nvidia", "nvidia-current-open", "nvidia-current", "nvidia-tesla")
# `-W` puts the fields into one line each; the status is "want error status".
DPKG_FORMAT = "${binary:Package}\t${Version}\t${db:Status-Abbrev}\n"
RPM_FORMAT = "%{NAME}\t%{EVR}\n"
_BLOCK = re.compile(r"^\s*(?:blacklist\s+nouveau|install\s+nouveau\s+/(?:usr/)?bin/(?:true|false))\s*$", re.M)


# --- kernels and modules --------------------------------------------------------------------------------------------


def loader_entries(text: str) -> Set[str]:
    """Releases that a boot loader's file lists: GRUB's menu, or entries of the boot loader specification."""
    return set(re.findall(r"^\s*linux(?:16|efi)?\s+\S*?/?vmlinu[xz]-(\S+)", text, re.M))


def redirected(config: str) -> str:
    """Which module `modprobe nvidia` loads, by its configuration: Debian says `install nvidia modprobe -i X`."""
    match = re.search(r"^install nvidia .*modprobe\s+(?:-i|--ignore-install)\s+(\S+)", config, re.M)
    return match[1] if match else "nvidia"


def parse_modinfo(text: str) -> Optional[Module]:
    """From `modinfo -k`; the open module's licence is "Dual MIT/GPL", the other one's "NVIDIA"."""
    fields: Dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key not in fields:
            fields[key] = value.strip()
    if not fields.get("version"):
        return None
    kind = OPEN if "MIT" in fields.get("license", "") or "GPL" in fields.get("license", "") else PROPRIETARY
    name = re.sub(r"\.ko(?:\.\w+)?$", "", fields.get("filename", "").rpartition("/")[2])
    return Module(fields["version"], kind, fields.get("signer", ""), name or "nvidia")


def blocks_nouveau(config: str) -> bool:
    return bool(_BLOCK.search(config))


def initramfs_content(listing: str, blocking_files: Iterable[str]) -> Tuple[bool, bool]:
    """Whether nouveau is in there, and whether one of the host's files that keep it away is as well."""
    names = [line.rsplit(" ", 1)[-1] for line in listing.splitlines()]
    nouveau = any(re.search(r"/nouveau\.ko(\.\w+)?$", name) for name in names)
    blocking = set(blocking_files)
    blocked = any("modprobe.d/" in name and name.rpartition("/")[2] in blocking for name in names)
    return nouveau, blocked


# --- packages -------------------------------------------------------------------------------------------------------


def parse_dpkg(text: str) -> List[Package]:
    """Installed ones; "complete" is false for what dpkg could not configure, as after a build that failed."""
    found: List[Package] = []
    for line in text.splitlines():
        name, version, status = [*line.split("\t"), "", ""][:3]
        if len(status) >= 2 and status[1] not in "nc":
            found.append(Package(name.partition(":")[0], version, status[0] == "h", status[1] == "i"))
    return found


def parse_rpm(text: str, locks: str) -> List[Package]:
    """`locks` is what `dnf versionlock list` prints: name-epoch:version-release.*"""
    locked = parse_locks(locks)
    pairs = [line.split("\t") for line in text.splitlines() if "\t" in line]
    return [Package(name, version.replace("(none):", ""), name in locked) for name, version in pairs]


def parse_madison(text: str) -> Dict[str, Tuple[str, ...]]:
    """`apt-cache madison`: name | version | source, newest first."""
    found: Dict[str, List[str]] = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) == 3 and parts[1] not in found.setdefault(parts[0], []):
            found[parts[0]].append(parts[1])
    return {name: tuple(versions) for name, versions in found.items()}


def parse_repoquery(text: str) -> Dict[str, Tuple[str, ...]]:
    """`dnf repoquery --qf '%{name}\\t%{evr}'`, oldest first as dnf prints them."""
    found: Dict[str, List[str]] = {}
    for line in text.splitlines():
        name, tab, version = line.partition("\t")
        if tab and version not in found.setdefault(name, []):
            found[name].insert(0, version)
    return {name: tuple(versions) for name, versions in found.items()}


def parse_simulation(text: str) -> Tuple[str, ...]:
    """Packages that `apt-get --simulate` would remove."""
    return tuple(match[1] for match in re.finditer(r"^(?:Remv|Purg) (\S+)", text, re.M))


def resolver_error(text: str) -> str:
    """What apt says is impossible, in one line."""
    lines = [line.strip() for line in text.splitlines()]
    start = next((index for index, line in enumerate(lines) if line.startswith("The following packages have unmet")), 0)
    said = [line for line in lines[start:] if line and not line.startswith(("Reading ", "Building ", "NOTE", "W:"))]
    return " ".join(" ".join(said).split())[:600]


def parse_index_targets(text: str) -> List[Repository]:
    """`apt-get indextargets`; only binary package lists, each once."""
    found: List[Repository] = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if fields.get("Created-By") != "Packages":
            continue
        entry = fields.get("Sourcesentry", "")
        repository = Repository(
            uri=fields.get("Repo-URI", fields.get("Site", "")).rstrip("/"),
            suite=fields.get("Release", ""),
            component=fields.get("Component", ""),
            file=re.sub(r":\d+$", "", entry),
            signed_by=fields.get("Signed-By", ""),
        )
        if repository not in found:
            found.append(repository)
    return found
