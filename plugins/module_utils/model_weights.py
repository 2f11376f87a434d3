# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The tensors of a model and the bytes that each GPU holds of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import Architecture

PRECISIONS = ("checkpoint", "bf16", "fp8", "fp8_block", "awq_int4", "gptq_int4", "nvfp4")


@dataclass(frozen=True)
class Parallelism:
    """Numbers of ranks.  expert: experts are spread over all tensor * data ranks instead of being cut."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: bool = False


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the checkpoint.

    kind: linear, embedding, head, norm, bias, router; sharding: column, row, kv, vocab, experts, replicated.
    layer: -1 for what stands before the layers, the number of layers for what stands after them.
    """

    name: str
    shape: Tuple[int, ...]
    kind: str
    sharding: str
    layer: int


def tensors(arch: Architecture, mtp: bool = False) -> Iterator[TensorSpec]:
    """The checkpoint's tensors as the architecture says, with those of multi-token prediction when asked."""
    raise NotImplementedError


def parameters(arch: Architecture, mtp: bool = False) -> int:
    """The number of weights, as published for the model."""
    raise NotImplementedError


def weight_bytes_per_gpu(arch: Architecture, precision: str, parallelism: Parallelism, mtp: bool = False) -> int:
    """Bytes of weights on the fullest rank after loading."""
    raise NotImplementedError
