"""config.json as models have it, made at random from a seed: for the planner's property tests and tests/reference."""

from __future__ import annotations

import random
from typing import Any

COMMON = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "torch_dtype": "bfloat16"}
MODEL_TYPES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "Gemma3ForCausalLM": "gemma3_text",
    "DeepseekV2ForCausalLM": "deepseek_v2",
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "DeepseekV32ForCausalLM": "deepseek_v32",
    "DeepseekV4ForCausalLM": "deepseek_v4",
}


# Of one architecture only.
FOR_THE_ENGINE: dict[str, dict[str, Any]] = {
    "DeepseekV4ForCausalLM": {
        "compress_rope_theta": 160000.0,
        "hc_eps": 1e-6,
        "hc_sinkhorn_iters": 20,
        "rope_scaling": {
            "beta_fast": 32,
            "beta_slow": 1,
            "factor": 16,
            "original_max_position_embeddings": 65536,
            "type": "yarn",
        },
        "swiglu_limit": 10.0,
    }
}


def whole(config: dict[str, Any]) -> dict[str, Any]:
    """With what the engine wants to know and the planner does not."""
    name = config["architectures"][0]
    common = {**COMMON, "routed_scaling_factor": 2.5, "model_type": MODEL_TYPES[name]}
    return {**common, **FOR_THE_ENGINE.get(name, {}), **config}


def _experts(pick: random.Random, experts: str) -> dict[str, Any]:
    return {
        experts: pick.choice([8, 16]),
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 128 * pick.randint(1, 3),
        "norm_topk_prob": True,
    }


def _latent(pick: random.Random, name: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        **_experts(pick, "n_routed_experts"),
        "kv_lora_rank": 64 * pick.randint(1, 8),
        "qk_rope_head_dim": 32 * pick.randint(1, 2),
        "qk_nope_head_dim": 64 * pick.randint(1, 2),
        "v_head_dim": 64 * pick.randint(1, 2),
        "q_lora_rank": pick.choice([None, 96, 256]),
        "n_shared_experts": pick.randint(1, 2),
        "first_k_dense_replace": pick.randint(0, 2),
        "moe_layer_freq": 1,
        "n_group": 2,
        "topk_group": 1,
        "num_nextn_predict_layers": 1,
    }
    if name == "DeepseekV2ForCausalLM":
        return {**config, "topk_method": "group_limited_greedy", "scoring_func": "softmax"}
    config.update(topk_method="noaux_tc", scoring_func="sigmoid")
    if name == "DeepseekV32ForCausalLM":
        config.update(q_lora_rank=128, index_n_heads=8, index_head_dim=128, index_topk=64)
    return config


def _compressed(pick: random.Random, layers: int) -> dict[str, Any]:
    """DeepSeek V4: the kernels fix some widths, the rest is free."""
    groups = pick.choice([2, 4, 8])
    return {
        **_experts(pick, "n_routed_experts"),
        "compress_ratios": [pick.choice([0, 4, 4, 128]) for _layer in range(layers)] + [0],
        "expert_dtype": pick.choice(["fp4", "fp4", "fp8"]),
        "head_dim": 512,
        "hidden_size": 256 * pick.randint(1, 4),
        "hc_mult": pick.choice([2, 4]),
        "index_head_dim": 128,
        "index_n_heads": 8 * pick.randint(1, 4),
        "index_topk": 64,
        # So that each rank, of data parallelism too, has whole blocks of each expert: kernels pad what they get.
        "moe_intermediate_size": 256 * groups,
        "n_shared_experts": 1,
        "num_attention_heads": groups * pick.choice([1, 2, 4]),
        "num_hash_layers": pick.randint(0, 3),
        "num_key_value_heads": 1,
        "num_nextn_predict_layers": 1,
        "o_groups": groups,
        "o_lora_rank": 128 * pick.randint(1, 2),
        "q_lora_rank": 128 * pick.randint(1, 3),
        "qk_rope_head_dim": 64,
        "quantization_config": {
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "quant_method": "fp8",
            "scale_fmt": "ue8m0",
            "weight_block_size": [128, 128],
        },
        "scoring_func": "sqrtsoftplus",
        "sliding_window": 128 * pick.randint(1, 2),
        "topk_method": "noaux_tc",
        **FOR_THE_ENGINE["DeepseekV4ForCausalLM"],
    }


def make(seed: int) -> dict[str, Any]:
    """A small model of one of the architectures; the same seed gives the same one."""
    pick = random.Random(seed)
    name = sorted(MODEL_TYPES)[seed % len(MODEL_TYPES)]
    kv_heads = pick.choice([1, 2, 4])
    heads = kv_heads * pick.choice([1, 2, 4, 8])
    config: dict[str, Any] = {
        "architectures": [name],
        "num_hidden_layers": pick.randint(3, 14),
        "hidden_size": heads * 64 * pick.choice([1, 2]),
        "intermediate_size": 256 * pick.randint(1, 6),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": pick.randint(500, 3000),
        "max_position_embeddings": 32768,
        "tie_word_embeddings": pick.random() < 0.3,
    }
    if name == "DeepseekV4ForCausalLM":
        config.pop("intermediate_size")
        config.update(_compressed(pick, config["num_hidden_layers"]))
    elif name.startswith("Deepseek"):
        config.update(_latent(pick, name), num_key_value_heads=heads)
    elif name != "Qwen2ForCausalLM":
        config["head_dim"] = pick.choice([64, 128, 256])
    if name == "Qwen3MoeForCausalLM":
        config.update(_experts(pick, "num_experts"), decoder_sparse_step=1, mlp_only_layers=[])
    if name == "LlamaForCausalLM":
        config.update(attention_bias=pick.random() < 0.5, mlp_bias=pick.random() < 0.5)
    if name == "MistralForCausalLM":
        config["sliding_window"] = pick.choice([None, 1024])
    if name == "Gemma3ForCausalLM":
        config.update(
            sliding_window=512,
            hidden_activation="gelu_pytorch_tanh",
            query_pre_attn_scalar=64,
            tie_word_embeddings=True,
        )
        config["layer_types"] = [
            "full_attention" if (layer + 1) % 6 == 0 or layer == 0 else "sliding_attention"
            for layer in range(config["num_hidden_layers"])
        ]
    return whole(config)


def tensor_sizes(config: dict[str, Any]) -> list[int]:
    """Tensor parallel sizes that suit the heads."""
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    if config["architectures"][0].startswith("Deepseek"):
        kv_heads = 1
        heads = config.get("o_groups", heads)
    return [size for size in (1, 2, 4, 8) if heads % size == 0 and (kv_heads % size == 0 or size % kv_heads == 0)]
