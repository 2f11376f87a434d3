# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which versions of NVIDIA's container toolkit may be used, for the role's validation."""

from __future__ import annotations

from collections.abc import Callable

from ansible_collections.bedplate.llm.plugins.module_utils.container_toolkit import version_problem


def container_toolkit_version_problem(version: str) -> str:
    return version_problem(version, "container_toolkit_version")


class FilterModule:
    def filters(self) -> dict[str, Callable[..., str]]:
        return {"container_toolkit_version_problem": container_toolkit_version_problem}
