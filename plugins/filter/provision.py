# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The filter that says what the provisioning does with a host."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from ansible.errors import AnsibleFilterError
from ansible_collections.bedplate.llm.plugins.module_utils import provision
from ansible_collections.bedplate.llm.plugins.module_utils.checks import from_dict


def provision_step(checks: Sequence[Mapping[str, Any]], reboot: Mapping[str, Any], allowed: bool = False) -> str:
    """What to do with a host whose roles returned these checks."""
    try:
        found = [from_dict(check) for check in checks]
        return provision.step(found, reboot["own"], reboot["distribution"], bool(reboot["drained"]), allowed)
    except (KeyError, ValueError) as error:
        raise AnsibleFilterError(f"provision_step: {error}") from error


class FilterModule:
    """Filters of the provisioning."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"provision_step": provision_step}
