# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host's facts as the names that NVIDIA's repositories use."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ansible.errors import AnsibleFilterError
from ansible_collections.bedplate.llm.plugins.module_utils import nvidia_platform as platforms


def nvidia_platform(facts: Mapping[str, Any]) -> dict[str, str]:
    missing = [name for name in ("distribution", "distribution_version", "architecture") if not facts.get(name)]
    if missing:
        raise AnsibleFilterError(f"nvidia_platform: the host's facts have no {', '.join(missing)}; gather them first.")
    try:
        return platforms.describe(
            str(facts["distribution"]), str(facts["distribution_version"]), str(facts["architecture"])
        )
    except platforms.PlatformError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"nvidia_platform": nvidia_platform}
