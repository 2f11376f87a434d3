"""config.json is read strictly: what is not known is refused by name, never guessed."""

from __future__ import annotations

from typing import Any

import model_configs
import pytest
from ansible_collections.bedplate.llm.plugins.module_utils import model_architecture, model_catalogue
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import ModelError, parse

CONFIG = dict(model_catalogue.find("deepseek-r1-distill-qwen-7b", model_catalogue.load()).config)
R1 = dict(model_catalogue.find("deepseek-r1", model_catalogue.load()).config)


def test_what_the_engine_takes_from_a_config() -> None:
    arch = parse(CONFIG, "config.json")
    assert (arch.head_dim, arch.qkv_bias, arch.qk_norm, arch.mla, arch.moe, arch.windows) == (
        128,
        True,
        False,
        None,
        None,
        (),
    )
    deepseek = parse(R1, "config.json")
    assert deepseek.mla is not None and deepseek.moe is not None and deepseek.quantization is not None
    assert (deepseek.mla.latent, deepseek.head_dim, deepseek.mtp_layers) == (576, 192, 1)
    assert [deepseek.is_sparse(layer) for layer in (0, 2, 3, 60, 61)] == [False, False, True, True, True]
    assert deepseek.quantization.block_shape == (128, 128)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"architectures": ["GPT2LMHeadModel"]},
            "GPT2LMHeadModel is not an architecture that can be planned; known are De",
        ),
        ({"architectures": "Qwen2ForCausalLM"}, "architectures is 'Qwen2ForCausalLM'; expected a list"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_hidden_layers": "28"}, "num_hidden_layers is '28'; expected a whole number"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True; expected a whole number"),
        ({"vocab_size": 0}, "vocab_size is 0; expected a whole number, 1 or more"),
        ({"num_key_value_heads": 3}, "no multiple of num_key_value_heads 3"),
        ({"torch_dtype": None}, "torch_dtype is missing"),
        ({"torch_dtype": "int8"}, "torch_dtype is 'int8'; expected one of bfloat16"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'; expected true or false"),
        ({"use_sliding_window": True}, "use_sliding_window is true, which is not planned"),
        (
            {"quantization_config": {"quant_method": "aqlm"}},
            "quant_method is 'aqlm', which is not planned; known are fp8",
        ),
        ({"quantization_config": 4}, "quantization_config is 4; expected a mapping"),
        ({"quantization_config": {"quant_method": "awq"}}, "bits in quantization_config is None"),
    ],
)
def test_a_config_that_is_not_understood_is_refused_in_one_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError) as refused:
        parse({**CONFIG, **change}, "models/x/config.json")
    message = str(refused.value)
    assert message.startswith("models/x/config.json: ") and sentence in message and "\n" not in message


def test_a_mixture_says_which_field_is_wrong() -> None:
    with pytest.raises(ModelError, match="num_experts_per_tok is 300, more than the 256 experts"):
        parse({**R1, "num_experts_per_tok": 300}, "config.json")
    with pytest.raises(ModelError, match="kv_lora_rank is missing"):
        parse({**R1, "kv_lora_rank": None}, "config.json")


def test_windows_by_layer() -> None:
    mistral = {**CONFIG, "architectures": ["MistralForCausalLM"], "sliding_window": 4096}
    assert parse(mistral, "config.json").windows == (4096,) * 28
    assert parse({**mistral, "sliding_window": None}, "config.json").windows == ()
    gemma = {**CONFIG, "architectures": ["Gemma3ForCausalLM"], "sliding_window": 512, "num_hidden_layers": 12}
    assert [layer for layer, window in enumerate(parse(gemma, "config.json").windows) if window is None] == [5, 11]
    with pytest.raises(ModelError, match="layer_types has 'chunked' in it"):
        parse({**gemma, "layer_types": ["chunked"] * 12}, "config.json")


@pytest.mark.parametrize("seed", range(len(model_configs.MODEL_TYPES) * 3))
def test_an_architecture_can_be_a_key(seed: int) -> None:
    config = model_configs.make(seed)
    assert len({parse(config, "a"), parse(dict(config), "b")}) == 1


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, ("awq", 4, 128, True)),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}, ("gptq", 4, 128, False)),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1, "sym": True}, ("gptq", 8, None, False)),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, ("modelopt_fp4", 4, 16, False)),
        ({"quant_method": "fp8"}, ("fp8", 8, None, False)),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 128, "symmetric": True}}},
                "ignore": ["lm_head"],
            },
            ("compressed-tensors", 4, 128, False),
        ),
    ],
)
def test_quantisation(section: dict[str, Any], expected: tuple[Any, ...]) -> None:
    found = model_architecture.parse({**CONFIG, "quantization_config": section}, "config.json").quantization
    assert found is not None
    assert (found.method, found.bits, found.group_size, found.zero_points) == expected
