# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The head of a safetensors file, checked before anybody maps the rest into memory.

Format: 8 bytes little-endian length of the header, the header as JSON, then the tensors' bytes without gap or overlap.
Source: the format's description in the safetensors project's README.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO, Dict, List, Tuple

# The limit of the reference implementation: a header beyond it is an attack on the reader's memory.
LARGEST_HEADER = 100 * 1000 * 1000
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64,
}  # fmt: skip


class SafetensorsError(ValueError):
    """The file is not sound; the message is one sentence without the file's name."""


def _once(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    """Two readers that disagree on which of two equal keys counts would see two different files."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise SafetensorsError("its header names a key twice.")
    return found


def _natural(value: Any) -> int:
    """Python's int() also takes text, fractions and booleans, and two negative lengths multiply to a positive one."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no natural number")
    return value


def read_header(handle: BinaryIO, size: int) -> Tuple[Dict[str, Any], int]:
    """The tensors by name and the offset of their bytes; size is that of the whole file in bytes."""
    start = handle.read(8)
    if len(start) < 8:
        raise SafetensorsError("it is too short for a header.")
    (length,) = struct.unpack("<Q", start)
    if length > LARGEST_HEADER or 8 + length > size:
        raise SafetensorsError(f"its header claims {length} bytes, the file has {size}.")
    try:
        header = json.loads(handle.read(length).decode("utf-8"), object_pairs_hook=_once)
    except SafetensorsError:
        raise
    except (ValueError, RecursionError) as error:
        raise SafetensorsError(f"its header is not JSON ({error}).") from error
    if not isinstance(header, dict):
        raise SafetensorsError("its header is not a JSON object.")
    header.pop("__metadata__", None)
    return header, 8 + int(length)


def check(handle: BinaryIO, size: int) -> None:
    """SafetensorsError unless every tensor has the bytes of its shape and type, and all together fill the file."""
    tensors, start = read_header(handle, size)
    spans: List[Tuple[int, int, str]] = []
    for name, tensor in tensors.items():
        try:
            begin, end = (_natural(offset) for offset in tensor["data_offsets"])
            bits = BITS[tensor["dtype"]]
            for length in tensor["shape"]:
                bits *= _natural(length)
        except (KeyError, TypeError, ValueError) as error:
            raise SafetensorsError(f"tensor {name!r} is not described as the format asks ({error!r}).") from error
        if (end - begin) * 8 != bits:
            raise SafetensorsError(
                f"tensor {name!r} has {end - begin} bytes where its shape and type take {bits / 8:g}."
            )
        spans.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise SafetensorsError(f"tensor {name!r} begins at byte {begin}, the one before it ends at {position}.")
        position = end
    if start + position != size:
        raise SafetensorsError(f"its tensors end at byte {start + position}, the file has {size}.")
