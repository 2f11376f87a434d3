# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A model of a bundle in the shapes that the model_store role hands to its module and to bundle_push."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.bedplate.llm.plugins.module_utils.bundle import BundleError, find_part, load
from ansible_collections.bedplate.llm.plugins.module_utils.model_policy import name_problems


def bundle_model(name: str, directory: str) -> dict[str, Any]:
    try:
        bundle = load(directory)
        part = find_part(bundle, kind="model", name=name)
    except BundleError as error:
        raise AnsibleFilterError(str(error)) from error
    files = [{"path": file.path, "sha256": file.sha256, "size": file.size} for file in bundle.of(part.id)]
    declared = {"name": part.name, "digest": part.digest, "artefacts": files}
    return {
        "declared": declared,
        "path": str(Path(directory).resolve() / part.path),
        "refused": name_problems(file["path"] for file in files),
    }


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"bundle_model": bundle_model}
