"""The catalogue: each entry is sound, each name is found, and a user's file is enough for a further model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import model_catalogue
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import ModelError
from ansible_collections.bedplate.llm.plugins.module_utils.model_limits import problems
from ansible_collections.bedplate.llm.plugins.module_utils.model_weights import Parallelism

ENTRIES = model_catalogue.load()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_says_what_a_plan_needs(entry: model_catalogue.Entry) -> None:
    assert entry.source and entry.model and entry.engine_minimum.count(".") == 2
    assert set(entry.sampling) <= {"temperature", "top_p", "top_k", "min_p"}
    assert bool(entry.templates["tools"]) == bool(entry.tool_parser)
    for recipe in entry.recipes:
        assert problems(entry.architecture, recipe.precision, Parallelism()) == []
        assert recipe.note.endswith(".")
        assert recipe.model or recipe.flags, "the engine must be told to quantise, or be given other files"
    written = Path(model_catalogue.FOLDER, entry.name + ".json").read_text(encoding="utf-8")
    assert json.loads(written)["name"] == entry.name


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("deepseek-r1", "deepseek-r1"),
        ("distill-qwen-7b", "deepseek-r1-distill-qwen-7b"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "deepseek-r1-distill-llama-70b"),
        ("Qwen3-8B", "qwen3-8b"),
    ],
)
def test_names(name: str, found: str) -> None:
    assert model_catalogue.find(name, ENTRIES).name == found


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ModelError, match="no model 'distil-qwen-7b'; did you mean distill-qwen-7b"):
        model_catalogue.find("distil-qwen-7b", ENTRIES)


def own(folder: Path, **changes: object) -> str:
    value = json.loads(Path(model_catalogue.FOLDER, "qwen3-8b.json").read_text(encoding="utf-8"))
    (folder / "mine.json").write_text(json.dumps({**value, **changes}), encoding="utf-8")
    return str(folder)


def test_one_file_adds_a_model(tmp_path: Path) -> None:
    entries = model_catalogue.load(own(tmp_path, name="house-8b", aliases=["house"], model="house/8b"))
    assert len(entries) == len(ENTRIES) + 1
    assert model_catalogue.find("house", entries).architecture == model_catalogue.find("qwen3-8b", ENTRIES).architecture


def test_a_users_own_name_wins(tmp_path: Path) -> None:
    entries = model_catalogue.load(own(tmp_path, source="ours"))
    assert len(entries) == len(ENTRIES)
    assert model_catalogue.find("qwen3-8b", entries).source == "ours"
    entries = model_catalogue.load(own(tmp_path, name="a-house-model", aliases=["r1"]))
    assert model_catalogue.find("R1", entries).name == "a-house-model"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"schema": 2}, "schema is 2; expected 1"),
        ({"colour": "red"}, "colour is no field of an entry"),
        ({"source": None}, "source is None; expected a str"),
        ({"recipes": [{"precision": "fp8"}]}, "a recipe is .*expected precision, model, flags and note"),
        ({"recipes": [{"precision": "int3", "model": "", "flags": {}, "note": ""}]}, "a recipe's precision is 'int3'"),
        ({"templates": {"chat": "files", "tools": "own"}}, "the template for tools is 'own'; expected files, engine"),
        (
            {"templates": {"chat": "files", "tools": "", "x": ""}},
            "templates has chat, tools, x; expected chat and tools",
        ),
        ({"config": {"architectures": ["MambaForCausalLM"]}}, "MambaForCausalLM is not an architecture"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ModelError, match=f"mine.json: {sentence}"):
        model_catalogue.load(own(tmp_path, **changes))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        model_catalogue.load(str(tmp_path / "missing"))


def test_one_alias_for_two_models_is_refused(tmp_path: Path) -> None:
    own(tmp_path, name="a", aliases=["same"])
    (tmp_path / "mine.json").rename(tmp_path / "first.json")
    with pytest.raises(ModelError, match="same names both a and b"):
        model_catalogue.load(own(tmp_path, name="b", aliases=["same"]))
