# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with a site's RAID arrays."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from ansible_collections.bedplate.llm.plugins.module_utils import md_array_declared


def md_array_problems(declared: Sequence[Mapping[str, Any]], volumes: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    return md_array_declared.parse(declared, volumes)[1]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"md_array_problems": md_array_problems}
