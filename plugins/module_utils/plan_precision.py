# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which number formats a GPU can serve, what calculates then, and what it costs besides memory."""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.gpu_generations import Product
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import Architecture

# Formats that the engine makes itself while it loads a bf16 checkpoint; all others need other files.
ONLINE = ("bf16", "fp8")
# From the least change to a model's answers to the most.
ORDER = ("bf16", "fp8_block", "fp8", "awq_int4", "gptq_int4", "nvfp4")
_TITLES = {
    "bf16": "bf16",
    "fp8": "fp8",
    "fp8_block": "block-wise fp8",
    "awq_int4": "AWQ int4",
    "gptq_int4": "GPTQ int4",
    "nvfp4": "NVFP4",
    "mxfp4": "fp8 with MXFP4 experts",
}


def title(precision: str) -> str:
    """How a report names it."""
    return _TITLES.get(precision, precision)


def of_checkpoint(arch: Architecture) -> str:
    """The format that the model's files have."""
    stored = arch.quantization
    if stored is None:
        return "bf16"
    if stored.experts is not None:
        return "mxfp4"
    if stored.method in ("fp8", "compressed-tensors") and stored.bits == 8:
        return "fp8_block" if stored.block_shape else "fp8"
    if "fp4" in stored.method:
        return "nvfp4"
    return "awq_int4" if stored.zero_points or stored.method == "awq" else "gptq_int4"


def model_problem(precision: str, arch: Architecture) -> Optional[str]:
    """Why the model cannot have the format, as a sentence; None when it can, or when the GPU decides."""
    stored = of_checkpoint(arch)
    if precision in ("auto", "checkpoint", stored):
        return None
    if arch.compressed is not None:
        return f"the engine serves {arch.name} as its files are, in {title(stored)}; leave out --precision {precision}."
    if precision == "mxfp4":
        return f"{title(precision)} is a format of DeepSeek V4's files; choose another precision for {arch.name}."
    return None


def problem(precision: str, product: Product) -> Optional[str]:
    """Why this GPU cannot serve the format, as a sentence; None when it can."""
    capability = product.compute_capability
    found = f"{product.name} is {product.architecture.capitalize()} ({capability[0]}.{capability[1]})"
    if precision == "fp8_block" and capability < (9, 0):
        return f"block-wise fp8 needs Hopper or newer (compute capability 9.0), and {found}."
    if precision == "mxfp4" and capability < (9, 0):
        return f"DeepSeek V4's attention and block-wise fp8 need Hopper or newer (compute capability 9.0), and {found}."
    if precision == "nvfp4" and capability < (10, 0):
        return f"NVFP4 needs Blackwell (compute capability 10.0), and {found}."
    if precision == "fp8" and capability < (8, 0):
        return f"fp8 needs Ampere or newer, and {found}."
    return None


def calculates(precision: str, product: Product) -> str:
    """The unit that multiplies: bf16, fp8 or fp4.  Int4 weights are unpacked to bf16 everywhere (Marlin).

    MXFP4 experts meet 8-bit activations on Blackwell; on Hopper 0.32 unpacks them to bf16 (Marlin), and half of what a
    token uses is fp8: the bound is that of fp8 for both.
    """
    if precision in ("fp8", "fp8_block", "mxfp4") and product.fp8:
        return "fp8"
    if precision == "nvfp4" and product.fp4:
        return "fp4"
    return "bf16"


def warnings(precision: str, stored: str, product: Product) -> List[str]:
    """What to know about a format on this GPU."""
    said = []
    if precision == "fp8" and not product.fp8:
        said.append(
            f"{product.name} has no fp8 units: weights are kept in fp8 and unpacked to bf16 (Marlin), which saves"
            " memory and decoding time but no prefill time."
        )
    if precision == "fp8" and stored == "bf16":
        said.append(
            "fp8 is made from the bf16 files while they load; it changes answers a little: measure the quality that you"
            " need, or use a published fp8 checkpoint."
        )
    if precision == "fp8_block":
        said.append(
            "The engine's fastest kernels for block-wise fp8 (DeepGEMM) are compiled on the host with nvcc, which hosts"
            " of this collection do not have; serving without them was not proved yet."
        )
    if precision == "mxfp4" and product.compute_capability < (10, 0):
        said.append(
            f"{product.name} has no fp4 units: experts are kept in MXFP4 and unpacked to bf16 (Marlin), which saves"
            " memory and decoding time but no prefill time."
        )
    if precision in ("awq_int4", "gptq_int4", "nvfp4") and precision != stored:
        said.append(
            f"{title(precision)} needs its own checkpoint, and its answers differ: measure the quality that you need."
        )
    return said


def kv_problem(kv_dtype: str, arch: Architecture, product: Product) -> Optional[str]:
    """Why this GPU or model cannot keep its KV cache in the format; None when it can."""
    capability = product.compute_capability
    if kv_dtype.startswith("fp8") and capability < (8, 9):
        return f"an fp8 KV cache needs fp8 units (compute capability 8.9), and {product.name} has none."
    if arch.compressed is not None:
        if not kv_dtype.startswith("fp8"):
            return f"{arch.name} has a KV cache of fp8 rows only, not {kv_dtype}; leave the format out."
        return None
    if kv_dtype.startswith("fp8") and arch.mla is not None and capability < (9, 0):
        return f"an fp8 KV cache with latent attention needs Hopper or newer, and {product.name} is older."
    if kv_dtype in ("fp8_ds_mla", "nvfp4_ds_mla") and arch.mla is None:
        return f"{kv_dtype} is for models with latent attention (DeepSeek V2 and later) only."
    if kv_dtype == "fp8_ds_mla" and arch.indexer is None:
        return "fp8_ds_mla is for models with sparse attention (DeepSeek V3.2); use fp8."
    if kv_dtype == "nvfp4_ds_mla" and capability < (10, 0):
        return f"nvfp4_ds_mla needs Blackwell, and {product.name} is older."
    return None


def smaller_kv(arch: Architecture) -> str:
    """The fp8 format of the cache for this model."""
    return "fp8_ds_mla" if arch.indexer is not None else "fp8"


def choices(arch: Architecture, wanted: str, product: Optional[Product] = None) -> Tuple[str, ...]:
    """The formats to try, best first: the asked one, or the checkpoint's and then what the engine can make of it.

    On a GPU that cannot serve the checkpoint's format, other checkpoints of the model are looked at.
    """
    stored = of_checkpoint(arch)
    if wanted == "checkpoint":
        return (stored,)
    if wanted != "auto":
        return (wanted,)
    if arch.compressed is not None:
        return (stored,)
    if product is not None and problem(stored, product):
        return (stored, "bf16", "awq_int4")
    return ("bf16", "fp8") if stored == "bf16" else (stored,)


def quantization_flag(precision: str, stored: str) -> Dict[str, str]:
    """--quantization only where the engine quantises; a quantised checkpoint says itself what it is."""
    return {"quantization": "fp8"} if precision == "fp8" and stored == "bf16" else {}
