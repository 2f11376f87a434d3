"""The lab's model: the same bytes everywhere, a sound checkpoint, and a tokenizer that can spell everything."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import model_policy, safetensors, tiny_model
from ansible_collections.bedplate.llm.plugins.module_utils.tiny_model_text import TEXT
from jinja2.sandbox import ImmutableSandboxedEnvironment

# A change here is a new model: every lab host brings it anew.
DIGEST = "7622147d57b8468e285f2d708a179a19825995bbf8855aadd6ea30b69559c991"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    tiny_model.write(str(directory))
    return directory


def read(model: Path, name: str) -> dict:
    return json.loads((model / name).read_text(encoding="utf-8"))


def render(model: Path, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
    described = read(model, "tokenizer_config.json")
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(
        described["chat_template"]
    )
    return template.render(
        messages=messages,
        add_generation_prompt=add_generation_prompt,
        bos_token=described["bos_token"],
        eos_token=described["eos_token"],
    )


def test_the_bytes_are_the_same_on_every_machine(model: Path) -> None:
    content = hashlib.sha256()
    for file in sorted(model.iterdir()):
        content.update(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n".encode())
    assert content.hexdigest() == DIGEST


def test_the_policy_for_models_accepts_it(model: Path) -> None:
    assert model_policy.problems(str(model)) == []


def test_the_tensors_have_the_shapes_that_the_configuration_implies(model: Path) -> None:
    config = read(model, "config.json")
    path = model / "model.safetensors"
    with path.open("rb") as handle:
        tensors, start = safetensors.read_header(handle, path.stat().st_size)
    shapes = {name: tensor["shape"] for name, tensor in tensors.items()}
    hidden, width = config["hidden_size"], config["hidden_size"] // config["num_attention_heads"]
    assert shapes["model.embed_tokens.weight"] == shapes["lm_head.weight"] == [config["vocab_size"], hidden]
    assert shapes["model.layers.0.self_attn.k_proj.weight"] == [config["num_key_value_heads"] * width, hidden]
    assert shapes["model.layers.0.self_attn.k_proj.bias"] == [config["num_key_value_heads"] * width]
    assert shapes["model.layers.3.mlp.down_proj.weight"] == [hidden, config["intermediate_size"]]
    layers = {int(found.group(1)) for name in shapes if (found := re.match(r"model\.layers\.(\d+)\.", name))}
    assert layers == set(range(config["num_hidden_layers"]))
    assert {tensor["dtype"] for tensor in tensors.values()} == {"BF16"}
    assert start % 8 == 0


@pytest.mark.parametrize(("value", "bits"), [(1.0, 0x3F80), (-2.0, 0xC000), (0.5, 0x3F00)])
def test_norms_are_one_and_the_numbers_are_bfloat16(value: float, bits: int) -> None:
    assert tiny_model._bfloat16(value) == bits
    assert tiny_model.tensor_bytes("model.norm.weight", (2,)) == b"\x80\x3f\x80\x3f"


def test_every_merge_joins_two_tokens_into_a_third(model: Path) -> None:
    described = read(model, "tokenizer.json")["model"]
    vocabulary = described["vocab"]
    for left, right in described["merges"]:
        assert left in vocabulary
        assert right in vocabulary
        assert left + right in vocabulary


def test_every_byte_has_a_token_of_its_own(model: Path) -> None:
    alphabet = tiny_model.byte_alphabet()
    assert len(set(alphabet.values())) == 256
    assert set(alphabet.values()) <= set(read(model, "tokenizer.json")["model"]["vocab"])


def test_ids_are_unique_and_inside_the_embedding(model: Path) -> None:
    described = read(model, "tokenizer.json")
    ids = [*described["model"]["vocab"].values(), *(token["id"] for token in described["added_tokens"])]
    assert sorted(ids) == list(range(len(ids)))
    assert len(ids) <= read(model, "config.json")["vocab_size"]


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_end_of_answer_is_the_same_token_everywhere(model: Path, name: str) -> None:
    added = {token["content"]: token["id"] for token in read(model, "tokenizer.json")["added_tokens"]}
    assert read(model, name)["eos_token_id"] == added[read(model, "tokenizer_config.json")["eos_token"]]


def test_merges_are_learned_by_frequency_and_ties_by_order() -> None:
    assert tiny_model.learn_merges("abab abab cd", 1) == [("a", "b")]
    assert tiny_model.learn_merges("ab cd", 10) == tiny_model.learn_merges("ab cd", 10)
    assert tiny_model.learn_merges("cd", 5) == [("c", "d")]
    assert len(tiny_model.learn_merges(TEXT, tiny_model.MERGES)) == tiny_model.MERGES


def test_a_question_ends_with_an_open_thought(model: Path) -> None:
    prompt = render(model, [{"role": "system", "content": "S."}, {"role": "user", "content": "Q?"}], True)
    assert prompt == "<｜begin▁of▁sentence｜>S.<｜User｜>Q?<｜Assistant｜><think>\n"


def test_an_answer_in_the_conversation_is_closed(model: Path) -> None:
    talk = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]
    assert render(model, talk, False) == "<｜begin▁of▁sentence｜><｜User｜>Q?<｜Assistant｜>A.<｜end▁of▁sentence｜>"
