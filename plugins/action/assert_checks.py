# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller half of `bedplate.llm.assert_checks`: all of it, since it looks at values that are already here."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.bedplate.llm.plugins.module_utils.checks import failing, from_dict


class ActionModule(ActionBase):  # type: ignore[misc]
    """Fail with every check that does not hold, not only with the first one."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        arguments = self.validate_argument_spec({"checks": {"type": "list", "elements": "dict", "required": True}})[1]
        try:
            checks = [from_dict(value) for value in arguments["checks"]]
        except ValueError as error:
            raise AnsibleActionFail(f"assert_checks: {error}") from error
        if not checks:
            # An empty report proves nothing; treating it as success would be a check that always passes.
            raise AnsibleActionFail("assert_checks: the list of checks is empty, so nothing was proved.")
        broken = failing(checks)
        result.update(changed=False, failed=bool(broken))
        if broken:
            lines = "\n".join(f"  - {check.sentence}" for check in broken)
            result["msg"] = f"{len(broken)} of {len(checks)} checks do not hold:\n{lines}"
        else:
            result["msg"] = f"{len(checks)} checks hold."
        return result
