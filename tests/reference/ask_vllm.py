"""What vLLM itself makes of a model: run by the engine's own interpreter, questions and answers as JSON.

Nothing is loaded: the engine builds its modules on the meta device, with the parallel groups told that they are larger
than they are, so that each rank's parameters and each attention layer's cache come out as on real GPUs.

DeepSeek V4 has a class for each platform; that of NVIDIA is asked, told that its kernels are there.

A question: {config, tensor, pipeline, data, expert, mtp, kv_dtypes, requests: [[tokens, tokens in flight], ...]}.
An answer: {stages: [{weight_bytes, layers: {kv_dtype: [[bytes per token, window or null], ...]}, pool: [bytes of a
block, tokens to a block, groups], blocks: [for each request]}]}, without pool and blocks where layers' pages differ
(but for DeepSeek V4, whose blocks pack them); or {error}.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch
from vllm.config import get_layers_from_vllm_config, set_current_vllm_config
from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment, parallel_state
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.layers.fused_moe.expert_map_manager import ExpertMapManager
from vllm.model_executor.layers.fused_moe.oracle.mxfp4 import Mxfp4MoeBackend
from vllm.model_executor.layers.quantization import fp8, mxfp4
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.models import deepseek_v4
from vllm.models.deepseek_v4.nvidia import flashmla
from vllm.models.deepseek_v4.nvidia import model as deepseek_v4_model
from vllm.models.deepseek_v4.nvidia import mtp as deepseek_v4_mtp
from vllm.platforms import current_platform
from vllm.utils.torch_utils import kv_cache_dtype_str_to_dtype, set_default_torch_dtype
from vllm.v1.core.kv_cache_utils import _get_kv_cache_bytes_per_block, get_kv_cache_groups


def packs(config: dict) -> bool:
    return config["architectures"] == ["DeepseekV4ForCausalLM"]


def engine_config(config: dict, folder: str, mtp: bool = False):
    Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
    vllm_config = EngineArgs(
        model=folder,
        skip_tokenizer_init=True,
        load_format="dummy",
        enforce_eager=True,
        max_model_len=min(4096, config["max_position_embeddings"]),
        speculative_config={"method": "mtp", "num_speculative_tokens": 1} if mtp else None,
    ).create_engine_config()
    # A running engine chooses the order of bytes in the cache; sizes are the same in all that a model may have, which
    # for DeepSeek V4 are those that pack its pages into blocks (DeepseekV4IndexerBackend).
    vllm_config.cache_config.kv_cache_layout = "BLHNC" if packs(config) else "LBNHC"
    return vllm_config


@contextlib.contextmanager
def pretended(vllm_config, question: dict, stage: int):
    """The groups of one process, as if it were rank 0 of a stage."""
    tensor, pipeline, data, expert = (question[name] for name in ("tensor", "pipeline", "data", "expert"))
    wanted = {
        "_TP": (tensor, 0),
        "_PP": (pipeline, stage),
        "_DP": (data, 0),
        "_EP": (tensor * data if expert else 1, 0),
    }
    groups = {name: getattr(parallel_state, name) for name in wanted if getattr(parallel_state, name, None) is not None}
    before = {name: dict(vars(group)) for name, group in groups.items()}
    for name, group in groups.items():
        group.world_size, group.rank_in_group = wanted[name]
        group.rank, group.ranks = group.rank_in_group, list(range(group.world_size))
    parallel = vllm_config.parallel_config
    parallel.tensor_parallel_size, parallel.pipeline_parallel_size = tensor, pipeline
    parallel.data_parallel_size = data
    parallel.enable_expert_parallel = expert
    try:
        yield
    finally:
        for name, group in groups.items():
            vars(group).update(before[name])
        parallel.tensor_parallel_size = parallel.pipeline_parallel_size = parallel.data_parallel_size = 1
        parallel.enable_expert_parallel = False


def layer_caches(vllm_config, kv_dtype: str) -> dict:
    """Each attention layer's own answer for a type of cache."""
    specs = {}
    for name, layer in get_layers_from_vllm_config(vllm_config, AttentionLayerBase).items():
        if hasattr(layer, "kv_cache_dtype") and kv_dtype:
            layer.kv_cache_dtype = kv_dtype
            layer.kv_cache_torch_dtype = kv_cache_dtype_str_to_dtype(kv_dtype, vllm_config.model_config)
        specs[name] = layer.get_kv_cache_spec(vllm_config)
    # A layer of DeepSeek V4 that attends to its window only has that cache by another name.
    return {name: spec for name, spec in specs.items() if spec is not None}


def request_blocks(spec, tokens: int, in_flight: int) -> int:
    if hasattr(spec, "kv_cache_specs"):
        return max(request_blocks(each, tokens, in_flight) for each in spec.kv_cache_specs.values())
    if hasattr(spec, "max_admission_blocks_per_request"):
        return spec.max_admission_blocks_per_request(max_in_flight_tokens=in_flight, max_model_len=tokens)
    return -(-tokens // spec.block_size)


def stage_answer(vllm_config, question: dict, stage: int) -> dict:
    vllm_config.compilation_config.static_forward_context.clear()
    dtype = vllm_config.model_config.dtype
    with (
        set_current_vllm_config(vllm_config),
        pretended(vllm_config, question, stage),
        set_default_torch_dtype(dtype),
    ):
        with torch.device("meta"):
            weights = list(initialize_model(vllm_config=vllm_config).parameters())
            if question["mtp"]:
                draft = initialize_model(
                    vllm_config=vllm_config, model_config=vllm_config.speculative_config.draft_model_config
                )
                # The draft's embedding and head are the model's own, which the engine notices after loading.
                shared = ("embed_tokens.weight", "shared_head.head.weight")
                weights += [weight for name, weight in draft.named_parameters() if not name.endswith(shared)]
        answer: dict = {
            "weight_bytes": sum(weight.numel() * weight.element_size() for weight in weights),
            "layers": {},
        }
        for kv_dtype in question["kv_dtypes"]:
            specs = layer_caches(vllm_config, kv_dtype)
            answer["layers"][kv_dtype] = [
                [spec.page_size_bytes / spec.block_size, getattr(spec, "sliding_window", None)]
                for spec in specs.values()
            ]
        if packs(question["config"]):
            # Its own type of cache, which it has chosen when it was made.
            groups = get_kv_cache_groups(vllm_config, layer_caches(vllm_config, ""))
            layout = vllm_config.cache_config.get_resolved_kv_cache_layout()
            tokens = vllm_config.cache_config.block_size
            answer["pool"] = [_get_kv_cache_bytes_per_block(groups, layout), tokens, len(groups)]
            answer["blocks"] = [
                sum(request_blocks(group.kv_cache_spec, *request) for group in groups)
                for request in question["requests"]
            ]
            return answer
        groups = get_kv_cache_groups(vllm_config, layer_caches(vllm_config, "auto"))
        if all(hasattr(group.kv_cache_spec, "num_kv_heads") for group in groups):
            spec = groups[0].kv_cache_spec
            answer["pool"] = [
                max(len(group.layer_names) for group in groups) * spec.page_size_bytes,
                spec.block_size,
                len(groups),
            ]
            answer["blocks"] = [
                sum(request_blocks(group.kv_cache_spec, *request) for group in groups)
                for request in question["requests"]
            ]
    return answer


def answer(question: dict) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        try:
            vllm_config = engine_config(question["config"], folder, question["mtp"])
            return {"stages": [stage_answer(vllm_config, question, stage) for stage in range(question["pipeline"])]}
        except Exception as error:  # whatever the engine refuses is an answer
            return {"error": f"{type(error).__name__}: {error}"}


@contextlib.contextmanager
def any_hardware():
    """The choice of kernels is not asked about: without it, fp8 and sparse attention are described on a CPU too."""
    choose = current_platform.get_attn_backend_cls

    def without_sparse(backend, attn_selector_config, **others):
        return choose(backend, attn_selector_config=attn_selector_config._replace(use_sparse=False), **others)

    with (
        mock.patch.object(type(current_platform), "get_attn_backend_cls", staticmethod(without_sparse)),
        mock.patch.object(fp8, "init_fp8_linear_kernel", mock.MagicMock()),
        # What is logged of the experts' places; the meta device cannot tell.
        mock.patch.object(ExpertMapManager, "get_compressed_map_string", return_value=""),
        mock.patch.object(fp8, "select_fp8_moe_backend", mock.MagicMock(return_value=(mock.MagicMock(), None))),
        # DeepSeek V4: the classes for CUDA, and on Hopper fp4 experts go to Marlin.
        mock.patch.object(deepseek_v4, "DeepseekV4ForCausalLM", deepseek_v4_model.DeepseekV4ForCausalLM),
        mock.patch.object(deepseek_v4, "DeepSeekV4MTP", deepseek_v4_mtp.DeepSeekV4MTP),
        mock.patch.object(flashmla, "compute_fp8_einsum_recipe", return_value=((1, 128, 128), False)),
        mock.patch.object(
            mxfp4, "select_deepseek_v4_mxfp4_moe_backend", return_value=(Mxfp4MoeBackend.MARLIN, mock.MagicMock())
        ),
        mock.patch.object(torch.cuda, "Stream", mock.MagicMock()),
        mock.patch.object(torch.cuda, "Event", mock.MagicMock()),
    ):
        yield


def main() -> None:
    questions = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        init_distributed_environment(1, 0, f"file://{folder}/rendezvous", 0, "gloo")
        # The group of experts is made for a model with experts only, and serves the others as well.
        first = max(questions, key=lambda question: "moe_intermediate_size" in question["config"])
        with set_current_vllm_config(engine_config(first["config"], folder)):
            ensure_model_parallel_initialized(1, 1)
        with any_hardware():
            answers = [answer(question) for question in questions]
    json.dump(answers, sys.stdout)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
