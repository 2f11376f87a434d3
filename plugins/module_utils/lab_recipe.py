# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The base image of a lab: which packages from which sources, the digest that names it in the cache, and the few files
that turn a minimal system into a host that an operator reaches over ssh.  Pure: the building is lab_build's."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Iterable, Mapping

from ansible_collections.bedplate.llm.plugins.module_utils.lab_model import USER, LabError
from ansible_collections.bedplate.llm.plugins.module_utils.lab_seed import SEED_NAME

# Part of the digest: raise it when the files below or the build itself change what an image is.
RECIPE_VERSION = 1

PACKAGES = (
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "netbase",
    "nftables",
    "nmap",
    "openssh-server",
    "openssl",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
)
VM_PACKAGES = ("e2fsprogs", "initramfs-tools", "kmod", "udev")


# What the distributions that a lab can be made of call themselves in their package lists.
ORIGINS = {"debian": "Debian", "ubuntu": "Ubuntu"}


@dataclass(frozen=True)
class Source:
    """One repository of the distribution, as this machine's own apt has it."""

    uri: str
    suite: str
    components: tuple[str, ...]

    @property
    def line(self) -> str:
        return f"deb {self.uri} {self.suite} {' '.join(self.components)}"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is in a base image, apart from the day's package versions."""

    kind: str
    distribution: str
    codename: str
    architecture: str
    packages: tuple[str, ...]
    sources: tuple[Source, ...]

    @property
    def digest(self) -> str:
        # The mirrors are left out on purpose: the same packages from another mirror are the same image.
        parts = [
            RECIPE_VERSION,
            self.kind,
            self.distribution,
            self.codename,
            self.architecture,
            list(self.packages),
            sorted((source.suite, list(source.components)) for source in self.sources),
            sorted(files(self.kind).items()),
            list(MASKED_UNITS),
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.digest[:12]}"


def parse_index_targets(text: str) -> list[dict[str, str]]:
    """Read what `apt-get indextargets` prints: paragraphs of `Name: value`."""
    paragraphs = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if fields:
            paragraphs.append(fields)
    return paragraphs


def choose_sources(
    targets: Iterable[Mapping[str, str]], origin: str, codename: str, architecture: str
) -> tuple[Source, ...]:
    """The distribution's own repositories for its own release: the release and its updates and security suites.

    Third parties' repositories and backports stay out, so that a lab machine is what a plain installation is.
    """
    found: dict[tuple[str, str], list[str]] = {}
    wanted = {codename, f"{codename}-updates", f"{codename}-security"}
    for target in targets:
        if (
            target.get("Created-By") == "Packages"
            and target.get("Architecture") == architecture
            and target.get("Release") in wanted
            and target.get("Origin") == origin
        ):
            components = found.setdefault((target["Repo-URI"], target["Release"]), [])
            if target["Component"] not in components:
                components.append(target["Component"])
    sources = tuple(Source(uri, suite, tuple(components)) for (uri, suite), components in found.items())
    if codename not in {source.suite for source in sources}:
        raise LabError(
            f"apt on this machine has no package list of {codename} for {architecture}: "
            "run `apt-get update` and try again."
        )
    return sources


def kernel_package(distribution: str, architecture: str) -> str:
    return "linux-image-virtual" if distribution == "ubuntu" else f"linux-image-cloud-{architecture}"


def make_recipe(
    kind: str,
    release: Mapping[str, str],
    architecture: str,
    targets: Iterable[Mapping[str, str]],
    extra_packages: Iterable[str],
) -> Recipe:
    """`release` is /etc/os-release as a dictionary."""
    distribution, codename = release.get("ID", ""), release.get("VERSION_CODENAME", "")
    if distribution not in ORIGINS or not codename:
        raise LabError(
            f"This machine runs '{release.get('PRETTY_NAME', distribution)}': a lab needs Debian or Ubuntu under it."
        )
    packages = {*PACKAGES, *extra_packages}
    if kind == "vm":
        packages |= {*VM_PACKAGES, kernel_package(distribution, architecture)}
    return Recipe(
        kind=kind,
        distribution=distribution,
        codename=codename,
        architecture=architecture,
        packages=tuple(sorted(packages)),
        sources=choose_sources(targets, ORIGINS[distribution], codename, architecture),
    )


# Units that only make noise on a machine that lives for an hour: they would change it, or wait for what never comes.
MASKED_UNITS = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "systemd-networkd-wait-online.service",
    "systemd-resolved.service",
)
ENABLED_UNITS = ("systemd-networkd.service",)

_SSHD = """\
# Only the key of the lab's operator, only the user with sudo, only the host key that the operator has pinned.
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
"""

# Runs in the initramfs of a virtual machine, with the root file system mounted and before its systemd starts.
_SEED_SCRIPT = f"""\
#!/bin/sh
# The identity of a lab machine (name, addresses, host key) comes as an archive appended to the initramfs.
[ "$1" = prereqs ] && exit 0
if [ -f /{SEED_NAME} ] && [ ! -e "$rootmnt/etc/ssh/ssh_host_ed25519_key" ]; then
    chroot "$rootmnt" /bin/tar --extract --preserve-permissions --numeric-owner --directory=/ < /{SEED_NAME}
fi
"""


def files(kind: str) -> dict[str, tuple[str, int]]:
    """Files of the image beside its packages: {path: (content, mode)}."""
    wanted = {
        f"etc/sudoers.d/{USER}": (f"{USER} ALL=(ALL:ALL) NOPASSWD: ALL\n", 0o440),
        "etc/ssh/sshd_config.d/10-lab.conf": (_SSHD, 0o644),
        "etc/apt/apt.conf.d/99lab": ('Acquire::Languages "none";\nAPT::Install-Recommends "false";\n', 0o644),
        # Empty, not missing: a missing file makes systemd treat the boot as the first one ever.
        "etc/machine-id": ("", 0o444),
        "etc/hostname": ("", 0o644),
    }
    if kind == "vm":
        wanted["etc/fstab"] = ("LABEL=lab-root / ext4 defaults 0 1\n", 0o644)
        wanted["etc/initramfs-tools/scripts/init-bottom/bedplate-seed"] = (_SEED_SCRIPT, 0o755)
    return wanted
