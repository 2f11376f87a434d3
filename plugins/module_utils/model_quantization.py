# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a checkpoint's linear layers are stored, as quantization_config in its config.json says, and what a weight costs.

The shapes of the methods are those of vllm/model_executor/layers/quantization in vLLM 0.32: auto_awq.py, auto_gptq.py,
fp8.py, modelopt.py, compressed_tensors, mxfp4.py and online/fp8.py, and vllm/models/deepseek_v4/quant_config.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, List, Mapping, Optional, Tuple

BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


class ModelError(ValueError):
    """The model cannot be planned; the message is one sentence for the user."""


@dataclass(frozen=True)
class Quantization:
    """How the checkpoint's linear layers are stored.

    bits: of a weight; group_size: weights to one scale, None for one scale per tensor or channel; block_shape: outputs
    and inputs to one scale of block-wise fp8; excluded: module names or patterns that are left as they are;
    zero_points: whether 4-bit groups carry one (AWQ).  scale_bytes: of a scale, None for what the method has.
    experts: how routed experts are stored where it is not as other layers are (DeepSeek V4: groups of 32 in fp4).
    """

    method: str
    bits: int
    group_size: Optional[int] = None
    block_shape: Optional[Tuple[int, int]] = None
    excluded: Tuple[str, ...] = ()
    zero_points: bool = False
    scale_bytes: Optional[int] = None
    experts: Optional[Quantization] = None


# Weights that share an 8-bit scale in the fp4 of the Open Compute Project.
MXFP4_GROUP = 32
# Width and height of the blocks that share a scale in DeepSeek's fp8.
BLOCK = (128, 128)
# Precisions that are not the checkpoint's own.  Scales of 4-bit groups are 16-bit, those of fp8 blocks 32-bit, those of
# fp4 groups 8-bit; one 32-bit scale for a whole layer, as online fp8 has, is not counted.
PRECISIONS = {
    "fp8": Quantization("fp8", 8),
    "fp8_block": Quantization("fp8", 8, block_shape=BLOCK),
    "awq_int4": Quantization("awq", 4, group_size=128, zero_points=True),
    "gptq_int4": Quantization("gptq", 4, group_size=128),
    "nvfp4": Quantization("modelopt_fp4", 4, group_size=16),
}


def of_precision(precision: str, own: Optional[Quantization]) -> Optional[Quantization]:
    """The storage that a precision means; None for plain weights.  own: what the checkpoint itself has."""
    if precision == "checkpoint" or (precision == "mxfp4" and own is not None and own.experts is not None):
        return own
    if precision == "bf16":
        return None
    if precision not in PRECISIONS:
        known = ", ".join(["checkpoint", "bf16", *PRECISIONS])
        raise ModelError(f"precision is {precision!r}; expected one of {known}.")
    chosen = PRECISIONS[precision]
    # Modules that a checkpoint of the same kind leaves out stay out.
    same = own is not None and own.bits == chosen.bits and own.block_shape == chosen.block_shape
    return replace(chosen, excluded=own.excluded) if same and own is not None else chosen


def is_excluded(quantization: Quantization, module: str) -> bool:
    """Whether a module (a tensor's name without .weight) stays as it is: by its name, a part of it, or a pattern."""
    for pattern in quantization.excluded:
        if pattern.startswith("re:"):
            if re.match(pattern[3:], module):
                return True
        elif "*" in pattern:
            if re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), module):
                return True
        elif module == pattern or module.startswith(pattern + ".") or ("." + pattern + ".") in ("." + module + "."):
            return True
    return False


def _parts(total: int, size: int) -> int:
    return -(-total // size)


def linear_bytes(quantization: Optional[Quantization], outputs: int, inputs: int, dtype: str) -> int:
    """Bytes of a linear layer's weight with its scales and zero points, outputs and inputs as this rank has them."""
    if quantization is None:
        return outputs * inputs * BYTES[dtype]
    weight = _parts(outputs * inputs * quantization.bits, 8)
    if quantization.block_shape:
        blocks = _parts(outputs, quantization.block_shape[0]) * _parts(inputs, quantization.block_shape[1])
        return weight + blocks * (quantization.scale_bytes or 4)
    if quantization.group_size:
        groups = outputs * _parts(inputs, quantization.group_size)
        scale = quantization.scale_bytes or (1 if quantization.method == "modelopt_fp4" else 2)
        zeros = _parts(groups * quantization.bits, 8) if quantization.zero_points else 0
        return weight + groups * scale + zeros
    return weight


def deepseek_v4(own: Optional[Quantization], config: Mapping[str, Any], where: str) -> Quantization:
    """DeepSeek V4's: fp8 blocks, and the routed experts as expert_dtype says (fp4 when it is missing).

    With fp4 experts the scales of the blocks are 8-bit powers of two (quant_config.py: is_scale_e8m0).
    """
    section, experts = config.get("quantization_config") or {}, config.get("expert_dtype")
    if own is None or own.method != "fp8" or own.block_shape is None or section.get("moe_quant_algo"):
        raise ModelError(f"{where}: quantization_config is not the fp8 in blocks that DeepSeek V4 is planned with.")
    if experts not in (None, "fp4", "fp8"):
        raise ModelError(f"{where}: expert_dtype is {experts!r}; expected fp4 or fp8.")
    if experts == "fp8":
        return own
    return replace(own, scale_bytes=1, experts=Quantization("mxfp4", 4, group_size=MXFP4_GROUP, scale_bytes=1))


def _texts(value: Any) -> Tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _number(section: Mapping[str, Any], name: str, where: str, default: Optional[int] = None) -> int:
    value = section.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelError(f"{where}: {name} in quantization_config is {value!r}; expected a whole number.")
    return value


def _group(size: int) -> Optional[int]:
    """-1 is one group for the whole row: one scale for each output, too little to count."""
    return size if size > 0 else None


def _compressed(section: Mapping[str, Any], where: str) -> Quantization:
    groups = section.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, dict) else None
    weights = first.get("weights") if isinstance(first, dict) else None
    if not isinstance(groups, dict) or len(groups) != 1 or not isinstance(weights, dict):
        raise ModelError(
            f"{where}: config_groups in quantization_config is not one group with weights; that is not planned."
        )
    block = weights.get("block_structure")
    size = weights.get("group_size")
    fp4 = weights.get("type") == "float" and weights.get("num_bits") == 4
    return Quantization(
        method="modelopt_fp4" if fp4 else "compressed-tensors",
        bits=_number(weights, "num_bits", where),
        group_size=_group(size) if isinstance(size, int) else None,
        block_shape=(int(block[0]), int(block[1])) if isinstance(block, list) and len(block) == 2 else None,
        excluded=_texts(section.get("ignore")),
        zero_points=weights.get("symmetric") is False,
    )


def parse(config: Mapping[str, Any], where: str) -> Optional[Quantization]:
    """The quantisation that config.json states; None for plain weights, ModelError for what is not known."""
    section = config.get("quantization_config")
    if section is None:
        return None
    if not isinstance(section, dict):
        raise ModelError(f"{where}: quantization_config is {section!r}; expected a mapping.")
    method = section.get("quant_method")
    if method == "fp8":
        block = section.get("weight_block_size")
        if block is not None and not (isinstance(block, list) and len(block) == 2):
            raise ModelError(f"{where}: weight_block_size is {block!r}; expected two numbers.")
        excluded = _texts(section.get("modules_to_not_convert")) + _texts(section.get("ignored_layers"))
        return Quantization("fp8", 8, block_shape=(int(block[0]), int(block[1])) if block else None, excluded=excluded)
    if method in ("awq", "gptq"):
        return Quantization(
            method=method,
            bits=_number(section, "bits", where),
            group_size=_group(_number(section, "group_size", where, 128)),
            excluded=_texts(section.get("modules_to_not_convert")),
            zero_points=bool(section.get("zero_point", True)) if method == "awq" else section.get("sym") is False,
        )
    if method == "compressed-tensors":
        return _compressed(section, where)
    if method == "modelopt" and "NVFP4" in str(section.get("quant_algo", "")):
        return Quantization("modelopt_fp4", 4, group_size=16, excluded=_modelopt_excluded(section))
    if method == "modelopt" and section.get("quant_algo") == "FP8":
        return Quantization("modelopt", 8, excluded=_modelopt_excluded(section))
    known = "fp8, awq, gptq, compressed-tensors and modelopt (FP8, NVFP4)"
    raise ModelError(f"{where}: quant_method is {method!r}, which is not planned; known are {known}.")


def _modelopt_excluded(section: Mapping[str, Any]) -> Tuple[str, ...]:
    found: List[str] = []
    for name in ("ignore", "exclude_modules"):
        found += _texts(section.get(name))
    return tuple(found)
