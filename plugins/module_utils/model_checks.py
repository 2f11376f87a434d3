# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a verify report says about a model on a host."""

from __future__ import annotations

from typing import List

from ansible_collections.bedplate.llm.plugins.module_utils.checks import Check
from ansible_collections.bedplate.llm.plugins.module_utils.model_policy import problems
from ansible_collections.bedplate.llm.plugins.module_utils.model_tree import (
    Model,
    differences,
    installed,
    read_record,
    writable,
)


def look(model: Model, deep: bool, owner: int = 0) -> List[Check]:
    """One check when the model is absent, four when it is there; the model's name is part of their ids."""
    prefix = f"model_store.{model.name}"
    if not installed(model):
        return [Check(f"{prefix}-present", False, f"{model.path} is not installed.", "Roll the site out.")]
    again = f"Move {model.path} away and roll out again, so that the bundle's copy is brought anew."
    wrong = differences(model, model.path, deep, read_record(model))
    refused = problems(model.path)
    loose = writable(model.path, owner)
    compared = "sha256 is" if deep else "size and time of change are"
    return [
        Check(f"{prefix}-present", True, f"{model.path} is installed."),
        Check(
            f"{prefix}-complete",
            not wrong,
            " ".join(wrong) or f"Every file's {compared} as they were when the file was verified.",
            again,
        ),
        Check(f"{prefix}-policy", not refused, " ".join(refused) or "It holds safetensors and data files only.", again),
        Check(
            f"{prefix}-immutable",
            not loose,
            f"Not read-only and owned by root: {', '.join(loose)}." if loose else "Nobody but root could change it.",
            again,
        ),
    ]
