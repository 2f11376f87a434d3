"""The head of a safetensors file: what is sound passes, and each way of being unsound has its sentence."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.safetensors import SafetensorsError, check


def file(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + body


def tensor(begin: Any, end: Any, shape: Any = (2,), dtype: Any = "BF16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def look(content: bytes) -> None:
    check(io.BytesIO(content), len(content))


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({"a": tensor(0, 4)}, bytes(4)),
        ({"__metadata__": {"format": "pt"}, "b": tensor(4, 12, [2, 1], "F32"), "a": tensor(0, 4)}, bytes(12)),
        ({"scalar": tensor(0, 8, [], "I64")}, bytes(8)),
        ({"empty": tensor(0, 0, [0, 7]), "a": tensor(0, 4)}, bytes(4)),
        ({"packed": tensor(0, 1, [2], "F4")}, bytes(1)),
        ({}, b""),
    ],
    ids=["one", "any-order", "scalar", "empty-tensor", "half-bytes", "none"],
)
def test_a_sound_file_passes(header: dict[str, Any], body: bytes) -> None:
    look(file(header, body))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x00\x00", "too short"),
        (file({"a": tensor(0, 4)}, bytes(4), length=10**6), "header claims 1000000 bytes"),
        (file({"a": tensor(0, 4)}, bytes(4), length=2**63), "header claims"),
        (file(b"{nonsense"), "not JSON"),
        (file(b"\xff\xfe"), "not JSON"),
        (file(b"[" * 100_000), "not JSON"),
        (file([]), "not a JSON object"),
        (file(b'{"a": {}, "a": {}}'), "names a key twice"),
        (file({"a": 7}), "'a' is not described"),
        (file({"a": tensor(0, 4, dtype="PICKLE")}, bytes(4)), "'a' is not described"),
        (file({"a": tensor(0, 4, dtype=["BF16"])}, bytes(4)), "'a' is not described"),
        (file({"a": tensor("0", 4)}, bytes(4)), "no natural number"),
        (file({"a": tensor(-4, 0)}, bytes(4)), "no natural number"),
        (file({"a": tensor(0, 4, [-1, -2])}, bytes(4)), "no natural number"),
        (file({"a": tensor(0, 4, [True, 2])}, bytes(4)), "no natural number"),
        (file({"a": tensor(0, 6)}, bytes(6)), "has 6 bytes where its shape and type take 4"),
        (file({"a": tensor(4, 0)}, bytes(4)), "has -4 bytes"),
        (file({"a": tensor(0, 4), "b": tensor(2, 6)}, bytes(6)), "'b' begins at byte 2, the one before it ends at 4"),
        (file({"a": tensor(0, 4), "b": tensor(6, 10)}, bytes(10)), "'b' begins at byte 6"),
        (file({"a": tensor(0, 4)}, bytes(2)), "its tensors end at byte"),
        (file({"a": tensor(0, 4)}, bytes(4) + b"more"), "its tensors end at byte"),
    ],
)
def test_an_unsound_file_is_refused_with_the_reason(content: bytes, sentence: str) -> None:
    with pytest.raises(SafetensorsError, match=sentence):
        look(content)
