# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""A model's local files against its architecture: what is stored, and whether it is what the planner derives."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Dict, List, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils import model_architecture
from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import Architecture, ModelError
from ansible_collections.bedplate.llm.plugins.module_utils.model_weights import tensors
from ansible_collections.bedplate.llm.plugins.module_utils.safetensors import SafetensorsError, read_header

# What quantised checkpoints have beside or in place of a weight, and rotary tables that old ones carry.
BESIDE = (".weight_scale_inv", ".weight_scale", ".weight_scale_2", ".input_scale", ".qweight", ".qzeros", ".scales",
          ".scale", ".g_idx", ".weight_packed", ".weight_shape", ".weight_zero_point", ".weight_g_idx",
          ".weight_global_scale", ".input_global_scale", ".k_scale", ".v_scale", ".rotary_emb.inv_freq")  # fmt: skip
PACKED_WEIGHT = (".qweight", ".weight_packed")


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file; bytes as its header says."""

    name: str
    shape: Tuple[int, ...]
    dtype: str
    bytes: int


def architecture(folder: str) -> Architecture:
    """What config.json of a model's folder says."""
    path = os.path.join(folder, "config.json")
    try:
        with open(path, encoding="utf-8") as handle:
            config = json.load(handle)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); name a folder with a model's files.") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON ({error}).") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object.")
    return model_architecture.parse(config, path)


def stored(folder: str) -> List[StoredTensor]:
    """All tensors of the folder's safetensors files, from their headers alone; ModelError names the file."""
    found: Dict[str, StoredTensor] = {}
    for file in sorted(name for name in os.listdir(folder) if name.endswith(".safetensors")):
        path = os.path.join(folder, file)
        try:
            with open(path, "rb") as handle:
                header, _start = read_header(handle, os.path.getsize(path))
            for name, tensor in header.items():
                begin, end = tensor["data_offsets"]
                if name in found:
                    raise ModelError(f"{path} has tensor {name}, which another file of the model has too.")
                found[name] = StoredTensor(name, tuple(tensor["shape"]), tensor["dtype"], int(end) - int(begin))
        except (OSError, SafetensorsError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"{path} cannot be read: {error}") from error
    return list(found.values())


def differences(arch: Architecture, files: List[StoredTensor]) -> List[str]:
    """How the files differ from what the architecture says, in sentences; empty when the plan is about these files."""
    wanted = {spec.name: spec.shape for spec in tensors(arch, mtp=True)}
    optional = {name for name in wanted if _layer_number(name) >= arch.layers or _drafts(arch, name)}
    if arch.tied_embeddings:
        wanted["lm_head.weight"] = (arch.vocab_size, arch.hidden_size)
        optional.add("lm_head.weight")
    present = {tensor.name: tensor for tensor in files}
    packed = {name[: -len(end)] + ".weight" for name in present for end in PACKED_WEIGHT if name.endswith(end)}
    missing = [name for name in wanted if name not in present and name not in packed and name not in optional]
    strange = [name for name in present if name not in wanted and not name.endswith(BESIDE) and not _drafts(arch, name)]
    # Packed 4-bit weights of fp4 keep the name and have half the inputs.
    shapes = [
        name
        for name, tensor in present.items()
        if name in wanted and tensor.shape != wanted[name] and tensor.dtype not in ("U8", "I8", "I32")
    ]
    found = []
    for names, what in ((missing, "are missing"), (strange, "are not known"), (shapes, "have another shape")):
        if names:
            found.append(f"{len(names)} tensors {what} for {arch.name} with this config.json, first {names[0]}.")
    return found


def _drafts(arch: Architecture, name: str) -> bool:
    """Whether it is of DeepSeek V4's module for speculative decoding, of which there are two kinds; none is loaded."""
    return arch.compressed is not None and name.startswith("mtp.")


def _layer_number(name: str) -> int:
    parts = name.split(".")
    return int(parts[2]) if parts[:2] == ["model", "layers"] else -1
