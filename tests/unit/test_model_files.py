"""Local files against the architecture: the lab's model is as derived, and what differs is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import model_files, tiny_model
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import ModelError
from ansible_collections.bedplate.llm.plugins.module_utils.model_weights import checkpoint_bytes


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    tiny_model.write(str(directory))
    return directory


def test_files_are_what_the_architecture_says(model: Path) -> None:
    arch = model_files.architecture(str(model))
    stored = model_files.stored(str(model))
    assert model_files.differences(arch, stored) == []
    assert sum(tensor.bytes for tensor in stored) == checkpoint_bytes(arch)


def test_what_differs_is_said(model: Path) -> None:
    arch, stored = model_files.architecture(str(model)), model_files.stored(str(model))
    (missing,) = model_files.differences(arch, [tensor for tensor in stored if tensor.name != "lm_head.weight"])
    assert missing == "1 tensors are missing for Qwen2ForCausalLM with this config.json, first lm_head.weight."
    deeper, fewer = replace(arch, layers=arch.layers + 1), replace(arch, layers=arch.layers - 1)
    assert "are missing" in model_files.differences(deeper, stored)[0]
    assert "are not known" in model_files.differences(fewer, stored)[0]
    assert "have another shape" in model_files.differences(replace(arch, intermediate_size=64), stored)[0]


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        model_files.architecture(str(tmp_path))
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="is not JSON"):
        model_files.architecture(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps([]), encoding="utf-8")
    with pytest.raises(ModelError, match="is not a JSON object"):
        model_files.architecture(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 4)
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read: it is too short for a header"):
        model_files.stored(str(tmp_path))
