# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The CUDA of a bundle's engine, and what is wrong with the toolkit that a site wants for it."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ansible_collections.bedplate.llm.plugins.module_utils import cuda_toolkit, cuda_versions


def engine_cuda(part: Mapping[str, Any]) -> str:
    return cuda_versions.engine_cuda(str(artefact["path"]) for artefact in part.get("artefacts") or [])


def cuda_toolkit_problems(settings: Mapping[str, Any]) -> list[str]:
    return cuda_toolkit.problems(**settings)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"engine_cuda": engine_cuda, "cuda_toolkit_problems": cuda_toolkit_problems}
