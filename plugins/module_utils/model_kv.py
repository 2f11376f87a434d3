# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bytes of the key-value cache: per token, and for a request of a given length."""

from __future__ import annotations

from ansible_collections.bedplate.llm.plugins.module_utils.model_architecture import Architecture

KV_DTYPES = ("auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_ds_mla", "nvfp4_ds_mla")


def kv_bytes_per_token_per_gpu(
    arch: Architecture, kv_dtype: str, tensor: int, pipeline: int, decode_context: int = 1, mtp: bool = False
) -> int:
    """Bytes that one token of context takes on the fullest pipeline stage, all layers counted as full attention."""
    raise NotImplementedError


def kv_bytes_for_request(
    arch: Architecture,
    tokens: int,
    kv_dtype: str,
    tensor: int,
    pipeline: int,
    decode_context: int = 1,
    block_size: int = 16,
    in_flight: int = 0,
    mtp: bool = False,
) -> int:
    """Bytes that a request of so many tokens takes on the fullest stage: whole blocks, windows counted as windows."""
    raise NotImplementedError
