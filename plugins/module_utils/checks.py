# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The check: one machine-checkable statement about a host or the service, with a reason and a remedy.

A verify report is a list of checks.  Modules build them with `Check`, hand them out with `as_dicts`, and whoever reads
a module's result (the `assert_checks` action, the CLI) turns the dictionaries back with `from_dict`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterable, List


@dataclass(frozen=True)
class Check:
    """One statement that holds or does not.

    id: dotted, "<role>.<statement-in-kebab-case>", unique within a host's report.
    reason: what was found, as one sentence; it is shown for a check that holds as well.
    remedy: what to do when it does not hold.
    """

    id: str
    ok: bool
    reason: str
    remedy: str = ""

    def as_dict(self) -> Dict[str, Any]:
        return {"id": self.id, "ok": self.ok, "reason": self.reason, "remedy": self.remedy}

    @property
    def sentence(self) -> str:
        """The line that a person reads when the check does not hold."""
        return f"{self.id}: {self.reason}" + (f" Remedy: {self.remedy}" if self.remedy else "")


def as_dicts(checks: Iterable[Check]) -> List[Dict[str, Any]]:
    return [check.as_dict() for check in checks]


def from_dict(value: Any) -> Check:
    """The inverse of `Check.as_dict`; ValueError in one sentence when the value is not a check."""
    if not isinstance(value, dict):
        raise ValueError(f"a check is a dictionary, found {type(value).__name__}: {value!r}")
    missing = [key for key in ("id", "ok", "reason") if key not in value]
    if missing:
        raise ValueError(f"a check needs the keys id, ok and reason; {', '.join(missing)} missing in {value!r}")
    if not isinstance(value["ok"], bool):
        raise ValueError(f"check {value['id']}: ok must be true or false, found {value['ok']!r}")
    return Check(str(value["id"]), value["ok"], str(value["reason"]), str(value.get("remedy") or ""))


def failing(checks: Iterable[Check]) -> List[Check]:
    return [check for check in checks if not check.ok]
