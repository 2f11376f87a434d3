"""Run an Ansible module in this process, as its own wrapper would."""

from __future__ import annotations

from types import ModuleType
from typing import Any
from unittest import mock

from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args


class ModuleFailedError(Exception):
    """The module ended with fail_json; the text is its message."""


class _ExitedError(Exception):
    pass


def run(module: ModuleType, **options: Any) -> dict[str, Any]:
    """What the module returns; `ModuleFailedError` when it fails."""

    def leave(_module: object, **result: Any) -> None:
        raise _ExitedError(result)

    def fail(_module: object, msg: str, **result: Any) -> None:
        raise ModuleFailedError(msg)

    with (
        patch_module_args(options),
        mock.patch.object(basic.AnsibleModule, "exit_json", leave),
        mock.patch.object(basic.AnsibleModule, "fail_json", fail),
    ):
        try:
            module.main()
        except _ExitedError as exited:
            result: dict[str, Any] = exited.args[0]
            return result
    raise AssertionError(f"{module.__name__} ended without a result")
