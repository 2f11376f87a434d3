"""What may be in a model's folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import tiny_model
from ansible_collections.bedplate.llm.plugins.module_utils.model_policy import name_problem, name_problems, problems


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made")
    tiny_model.write(str(directory))
    return directory


@pytest.fixture
def model(tmp_path: Path, made: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def add(name: str, content: str = "x") -> Callable[[Path], None]:
    def change(model: Path) -> None:
        path = model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")

    return change


def merge(name: str, **entries: object) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        content = json.loads((model / name).read_text(encoding="utf-8"))
        (model / name).write_text(json.dumps({**content, **entries}), encoding="utf-8")

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda model: (model / name).unlink()


def link(name: str, target: str) -> Callable[[Path], None]:
    return lambda model: (model / name).symlink_to(target)


@pytest.mark.parametrize(
    "name",
    ["a.safetensors", "tokenizer.json", "vocab.txt", "spiece.model", "chat_template.jinja", "LICENSE", "README.md"],
)
def test_data_files_are_accepted_by_name(name: str) -> None:
    assert name_problem(f"sub/{name}") is None


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "a.pt", "a.pth", "a.pkl", "a.ckpt", "a.gguf", "modeling.py", "a.so", "a.JSON", "run", ".pth"],
)
def test_files_that_can_carry_code_are_refused_by_name(name: str) -> None:
    (sentence,) = name_problems(["config.json", name])
    assert sentence.startswith(f"{name} is refused")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (add("weights/pytorch_model.bin"), "weights/pytorch_model.bin is refused"),
        (add("modeling_evil.py"), "modeling_evil.py is refused"),
        (merge("config.json", auto_map={"AutoConfig": "evil.Config"}), "config.json is refused: auto_map"),
        (merge("config.json", text_config=[{"auto_map": {}}]), "config.json is refused: auto_map"),
        (
            merge("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}),
            "tokenizer_config.json is refused",
        ),
        (add("config.json", "{"), "config.json is refused: it is not JSON"),
        (add("config.json", "[" * 100_000), "config.json is refused: it is not JSON"),
        (remove("config.json"), "config.json is missing"),
        (remove("model.safetensors"), "there is no .safetensors file"),
        (add("model.safetensors", "pickled"), "model.safetensors is refused: it is too short"),
        (link("more.json", "/etc/hostname"), "more.json is refused: it is a link to /etc/hostname"),
        (link("more.json", "config.json"), "more.json is refused: it is a link"),
        (link("folder", "/etc"), "folder is refused: it is a link to /etc"),
        (link("gone.json", "nowhere"), "gone.json is refused: it is a link"),
        (lambda model: os.mkfifo(model / "pipe.json"), "pipe.json is refused: it is neither"),
    ],
)
def test_each_way_to_bring_code_has_its_sentence(model: Path, change: Callable[[Path], None], sentence: str) -> None:
    assert problems(str(model)) == []
    change(model)
    (found,) = problems(str(model))
    assert found.startswith(sentence)
