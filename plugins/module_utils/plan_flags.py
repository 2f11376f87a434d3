# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The arguments and the environment of `vllm serve` for a plan, and what an operator has to know about them."""

from __future__ import annotations

from typing import Any, Dict, List

from ansible_collections.bedplate.llm.plugins.module_utils import plan_memory, plan_precision
from ansible_collections.bedplate.llm.plugins.module_utils.gpu_generations import Product
from ansible_collections.bedplate.llm.plugins.module_utils.plan_options import comfortable, of_engine, request_bytes
from ansible_collections.bedplate.llm.plugins.module_utils.plan_types import GIB, Option, Question

# Loading more than this takes longer than the engine waits for itself by default (600 s).
_LONG_LOAD_BYTES = 200 * GIB
_LONG_LOAD_SECONDS = "3600"


def hosts_of_engine(question: Question, option: Option) -> int:
    """Over how many hosts one engine is spread."""
    engine = of_engine(question.arch, option.parallelism)
    ranks = engine.tensor * engine.pipeline * engine.data
    return int(-(-ranks // question.gpus.gpus_per_host))


def flags(question: Question, option: Option) -> Dict[str, Any]:
    """Names without dashes, in the order of a command line; True is a switch."""
    where, arch = option.parallelism, question.arch
    stored = plan_precision.of_checkpoint(arch)
    found: Dict[str, Any] = {}
    for name, number in (
        ("tensor-parallel-size", where.tensor),
        ("pipeline-parallel-size", where.pipeline),
        ("data-parallel-size", where.data),
    ):
        if number > 1:
            found[name] = number
    if where.expert:
        found["enable-expert-parallel"] = True
    hosts = hosts_of_engine(question, option)
    if hosts > 1 and where.data > 1:
        found["data-parallel-size-local"] = where.data // hosts
    elif hosts > 1:
        found["nnodes"] = hosts
    found.update(plan_precision.quantization_flag(option.precision, stored))
    for recipe in question.recipes:
        if recipe.precision == option.precision and option.precision != stored:
            found.update({name: value for name, value in recipe.flags.items() if name not in found})
            break
    if option.kv_dtype != "auto":
        found["kv-cache-dtype"] = option.kv_dtype
    found["max-model-len"] = option.max_model_len
    found["gpu-memory-utilization"] = question.utilization
    found["max-num-seqs"] = option.max_num_seqs
    found["max-num-batched-tokens"] = option.max_num_batched_tokens
    if question.reasoning_parser:
        found["reasoning-parser"] = question.reasoning_parser
    return found


def environment(option: Option) -> Dict[str, str]:
    """Variables of the engine.  What belongs to a site (interfaces, addresses) is not in a plan."""
    loaded = option.budget.weights * option.gpus
    return {"VLLM_ENGINE_READY_TIMEOUT_S": _LONG_LOAD_SECONDS} if loaded > _LONG_LOAD_BYTES else {}


def warnings(question: Question, option: Option) -> List[str]:
    """What the table of figures does not say."""
    arch, gpus, where = question.arch, question.gpus, option.parallelism
    said = list(gpus.notes)
    idle = gpus.total - option.gpus
    if idle > 0:
        said.append(f"{idle} of {gpus.total} GPUs are left idle: no legal placement of this model uses them all.")
    if option.fits and option.max_model_len < arch.max_positions and question.max_model_len is None:
        said.append(
            f"The context is limited to {option.max_model_len:,} of the model's {arch.max_positions:,} tokens, which is"
            " what the memory holds for one request."
        )
    if question.max_model_len is not None and question.max_model_len > arch.max_positions:
        said.append(
            f"{question.max_model_len:,} tokens are more than the {arch.max_positions:,} that the model was made for;"
            " the engine refuses that unless VLLM_ALLOW_LONG_MAX_MODEL_LEN is set, and answers get worse."
        )
    if option.fits and not comfortable(question, option):
        said.append(
            f"There is room for {option.kv_tokens:,} tokens only: a few long requests at the same time; others wait."
        )
    besides = request_bytes(question, option)
    if option.fits and besides:
        said.append(
            f"The engine counts {besides / GIB:.1f} GiB of each request besides its tokens, as if all prompts were"
            " worked on at once: the room that it tells shrinks with the context, and more requests than that run"
            " together."
        )
    stored = plan_precision.of_checkpoint(arch)
    said += plan_precision.warnings(option.precision, stored, gpus.product)
    for recipe in question.recipes:
        if recipe.precision == option.precision and option.precision != stored and recipe.model:
            said.append(f"The files are those of {recipe.model}: {recipe.note}")
            break
    if option.kv_dtype.startswith("fp8"):
        said.append(
            "An fp8 KV cache changes answers a little, most in long contexts: measure the quality that you need."
        )
    if hosts_of_engine(question, option) > 1:
        said += _between_hosts(where.data > 1)
    if where.tensor > 1 and not gpus.linked(where.tensor):
        said.append(
            "There is no NVLink between these GPUs; the expected speed counts PCIe, which differs between servers."
        )
    if arch.compressed is not None:
        said += _compressed(where.tensor, gpus.product)
    why = plan_memory.uncalibrated(arch, where, question.gpus.product, option.kv_dtype)
    if why:
        said.append(f"The memory beside the weights is not held to a measured start: {why}; keep a margin.")
    if arch.indexer is not None and where.tensor > 1:
        said.append("Sparse attention pads its heads under tensor parallelism; data parallelism with EP is faster.")
    return said


def _compressed(tensor: int, product: Product) -> List[str]:
    """Of DeepSeek V4, whatever its experts are stored in."""
    said = [
        "The engine has no other kernels for DeepSeek V4's output projection and residual streams than DeepGEMM's and"
        " TileLang's, which are compiled on the host with nvcc; hosts of this collection do not have it, and serving"
        " the model was not proved yet."
    ]
    if tensor > 1:
        said.append(
            "Compressed attention works on 64 heads at least: more tensor ranks save its weights, not its work; data"
            " parallelism with EP saves both."
        )
    if product.compute_capability >= (12, 0):
        said.append(f"Other kernels (FlashInfer) serve DeepSeek V4 on {product.name} than on data-centre GPUs.")
    return said


def _between_hosts(data: bool) -> List[str]:
    own = (
        "--data-parallel-address, --data-parallel-start-rank and, on all hosts but the first, --headless"
        if data
        else "--node-rank, --master-addr and, on all hosts but the first, --headless"
    )
    return [
        f"One engine spans several hosts: each host's command line also needs its own {own}. The vllm role serves"
        " from one host and refuses that.",
        "What GPUs of different hosts say to each other is neither encrypted nor authenticated: give it a network of"
        " its own, and name it in NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME.",
    ]
