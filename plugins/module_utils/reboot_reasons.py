# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Why a host waits for a reboot: what the roles wrote down, and what its distribution says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check

# One file to a role, one reason to a line. On tmpfs: the reboot itself clears it.
FOLDER = "run/bedplate/reboot.d"
DEBIAN_FLAG = "run/reboot-required"
DEBIAN_PACKAGES = "run/reboot-required.pkgs"

_ALLOW = "allow it: `bedplate provision --reboot`, or bedplate_reboot_allowed: true"


@dataclass(frozen=True)
class Reason:
    """source: the role that waits, or "the distribution"."""

    source: str
    text: str

    def as_dict(self) -> Dict[str, Any]:
        return {"source": self.source, "text": self.text}


@dataclass(frozen=True)
class Reasons:
    """`unknown` says why the distribution could not be asked, and is empty when it could."""

    own: Tuple[Reason, ...] = ()
    distribution: Tuple[Reason, ...] = ()
    unknown: str = ""

    @property
    def all(self) -> Tuple[Reason, ...]:
        return self.own + self.distribution


def parse_own(files: Mapping[str, str]) -> Tuple[Reason, ...]:
    """From the texts of the files by their names; a file without a line is a reason too, since its role made it."""
    found: List[Reason] = []
    for name in sorted(files):
        lines = [line.strip() for line in files[name].splitlines() if line.strip()]
        found += [Reason(name, line) for line in lines or ["it does not say why"]]
    return tuple(found)


def parse_debian(flag: Optional[str], packages: str) -> Tuple[Reason, ...]:
    """From /run/reboot-required and its .pkgs, which package scripts of Debian and Ubuntu write; None: no such file."""
    if flag is None:
        return ()
    names = sorted(set(packages.split()))
    return (Reason("the distribution", f"updated {', '.join(names)}" if names else "a package asks for it"),)


def parse_needs_restarting(code: int, output: str) -> Tuple[Tuple[Reason, ...], str]:
    """From `dnf needs-restarting -r`: the reasons, and why there is no answer. 0 is no, 1 is yes and says what."""
    if code == 0:
        return (), ""
    names = sorted({line.strip()[2:].strip() for line in output.splitlines() if line.strip().startswith("* ")})
    if code == 1 and (names or "eboot is required" in output):
        return (Reason("the distribution", f"updated {', '.join(names)}" if names else "a package asks for it"),), ""
    said = " ".join(output.split())[-200:]
    return (), f"`dnf needs-restarting -r` does not answer ({said or f'exit status {code}'})"


def sentence(reasons: Iterable[Reason]) -> str:
    """`nvidia_driver: …; the distribution: updated linux-image-amd64`"""
    return "; ".join(f"{reason.source}: {reason.text.rstrip('.')}" for reason in reasons)


def checks(reasons: Reasons) -> List[Check]:
    """Nothing waits; what waits stands with its reasons and how to allow it."""
    found = [
        Check(
            "reboot.not-waiting",
            not reasons.own,
            f"The host waits for a reboot: {sentence(reasons.own)}." if reasons.own else "No role waits for a reboot.",
            f"{_ALLOW}." if reasons.own else "",
        )
    ]
    if reasons.unknown:
        reason, remedy = f"It is not known: {reasons.unknown}.", "install the package dnf-utils."
    elif reasons.distribution:
        reason, remedy = f"The host waits for a reboot: {sentence(reasons.distribution)}.", f"{_ALLOW}."
    else:
        reason, remedy = "The distribution waits for no reboot.", ""
    known_and_none = not reasons.unknown and not reasons.distribution
    return [*found, Check("reboot.distribution-not-waiting", known_and_none, reason, remedy)]
