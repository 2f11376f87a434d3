# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A question to the planner from what people write: a model's name or folder, GPUs, lengths such as 32k.

It reads files (the catalogue, a model's config.json and headers), so it runs on the operator's machine.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Optional

from ansible_collections.bedplate.llm.plugins.module_utils import model_catalogue, model_files
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_sets import GpuSet
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import ModelError
from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import Question


def question(model: str, gpus: GpuSet, catalogue: Optional[str] = None) -> Question:
    """What is asked of a model by its name in the catalogue, or of the files in a folder.

    catalogue: a folder with further models.  ModelError in one sentence when there is no such model, when its
    architecture is not known, or when its files are not what their config.json says.
    """
    if os.path.isdir(model) or os.sep in model:
        entry = _named(model, catalogue)
        if entry is None:
            return _from_folder(model, gpus)
    else:
        entry = model_catalogue.find(model, model_catalogue.load(catalogue))
    return Question(
        model=entry.name,
        arch=entry.architecture,
        gpus=gpus,
        recipes=entry.recipes,
        engine_minimum=entry.engine_minimum,
        reasoning_parser=entry.reasoning_parser,
    )


def _named(model: str, catalogue: Optional[str]) -> Optional[model_catalogue.Entry]:
    """The entry that is published under such a name (OWNER/MODEL), when there is no folder of that name."""
    if os.path.isdir(model):
        return None
    try:
        return model_catalogue.find(model, model_catalogue.load(catalogue))
    except ModelError:
        return None


def _from_folder(folder: str, gpus: GpuSet) -> Question:
    arch = model_files.architecture(folder)
    stored = model_files.stored(folder)
    differences = model_files.differences(arch, stored) if stored else []
    if differences:
        raise ModelError(f"{folder}: {differences[0]} The plan would be about another model; complete the files.")
    name = os.path.basename(os.path.normpath(folder))
    asked = Question(model=name, arch=arch, gpus=gpus)
    if not stored:
        note = f"{folder} has no safetensors files; the weights are those that its config.json implies."
        asked = replace(asked, gpus=replace(gpus, notes=(*gpus.notes, note)))
    return asked
