# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's model: a few megabytes in the shape of the R1 distils, the same bytes on every machine.

Qwen2ForCausalLM with grouped-query attention, untied embeddings and a byte-level BPE tokenizer whose merges are learned
from a text of this repository.  Its weights are noise, so its answers are; the engine that loads it is real.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from array import array
from typing import Any, Dict, List, Tuple

from ansible_collections.bedplate.llm.plugins.module_utils.tiny_model_text import TEXT

SEED = "bedplate tiny-r1-qwen2 1"
LAYERS, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS = 4, 128, 352, 4, 2
HEAD_DIM = HIDDEN // HEADS
MERGES = 500
BOS, EOS, USER, ASSISTANT = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"
SPECIAL = [BOS, EOS, USER, ASSISTANT, "<think>", "</think>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '" + USER + "' + message['content'] }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '" + ASSISTANT + "' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '" + ASSISTANT + "<think>\\n' }}{% endif %}"
)


def byte_alphabet() -> Dict[int, str]:
    """GPT-2's printable stand-ins for the 256 bytes, which the ByteLevel pre-tokenizer of Hugging Face uses."""
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    alphabet = {value: chr(value) for value in printable}
    for value in range(256):
        if value not in alphabet:
            alphabet[value] = chr(256 + len(alphabet) - len(printable))
    return alphabet


def learn_merges(text: str, count: int) -> List[Tuple[str, str]]:
    """Byte-pair merges by frequency; ties go to the pair that sorts first, so that the result never varies."""
    alphabet = byte_alphabet()
    words: Dict[Tuple[str, ...], int] = {}
    for position, word in enumerate(text.split()):
        symbols = tuple(alphabet[value] for value in ((" " if position else "") + word).encode("utf-8"))
        words[symbols] = words.get(symbols, 0) + 1
    merges: List[Tuple[str, str]] = []
    while len(merges) < count:
        pairs: Dict[Tuple[str, str], int] = {}
        for symbols, times in words.items():
            for position in range(len(symbols) - 1):
                pair = (symbols[position], symbols[position + 1])
                pairs[pair] = pairs.get(pair, 0) + times
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged: Dict[Tuple[str, ...], int] = {}
        for symbols, times in words.items():
            joined: List[str] = []
            for symbol in symbols:
                if joined and (joined[-1], symbol) == best:
                    joined[-1] += symbol
                else:
                    joined.append(symbol)
            merged[tuple(joined)] = merged.get(tuple(joined), 0) + times
        words = merged
    return merges


def vocabulary(merges: List[Tuple[str, str]]) -> Dict[str, int]:
    alphabet = byte_alphabet()
    tokens = [alphabet[value] for value in range(256)]
    for left, right in merges:
        if left + right not in tokens:
            tokens.append(left + right)
    return {token: number for number, token in enumerate(tokens)}


def tensors(vocabulary_size: int) -> List[Tuple[str, Tuple[int, ...]]]:
    """Names and shapes as transformers' Qwen2ForCausalLM stores them."""
    shapes: List[Tuple[str, Tuple[int, ...]]] = [("model.embed_tokens.weight", (vocabulary_size, HIDDEN))]
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        for name, width in (("q", HEADS * HEAD_DIM), ("k", KV_HEADS * HEAD_DIM), ("v", KV_HEADS * HEAD_DIM)):
            shapes.append((f"{prefix}self_attn.{name}_proj.weight", (width, HIDDEN)))
            shapes.append((f"{prefix}self_attn.{name}_proj.bias", (width,)))
        shapes.append((f"{prefix}self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD_DIM)))
        for name in ("gate", "up"):
            shapes.append((f"{prefix}mlp.{name}_proj.weight", (INTERMEDIATE, HIDDEN)))
        shapes.append((f"{prefix}mlp.down_proj.weight", (HIDDEN, INTERMEDIATE)))
        shapes.append((f"{prefix}input_layernorm.weight", (HIDDEN,)))
        shapes.append((f"{prefix}post_attention_layernorm.weight", (HIDDEN,)))
    shapes.append(("model.norm.weight", (HIDDEN,)))
    shapes.append(("lm_head.weight", (vocabulary_size, HIDDEN)))
    return shapes


def _bfloat16(value: float) -> int:
    """The upper half of the float32: bfloat16 by truncation."""
    return int(struct.unpack(">I", struct.pack(">f", value))[0]) >> 16


def _noise_table(scale: float) -> List[int]:
    """A bfloat16 for each byte, evenly between -scale and scale."""
    return [_bfloat16((value - 127.5) / 127.5 * scale) for value in range(256)]


def tensor_bytes(name: str, shape: Tuple[int, ...]) -> bytes:
    count = 1
    for length in shape:
        count *= length
    if "norm" in name:
        values = array("H", [_bfloat16(1.0)]) * count
    else:
        # The output layer is louder than the others: otherwise all tokens are as likely as each other.
        table = _noise_table(0.5 if name == "lm_head.weight" else 0.08)
        stream = hashlib.shake_256(f"{SEED} {name}".encode()).digest(count)
        values = array("H", [table[value] for value in stream])
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        values.byteswap()
    return values.tobytes()


def write_safetensors(path: str, vocabulary_size: int) -> None:
    header: Dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blocks: List[bytes] = []
    offset = 0
    for name, shape in tensors(vocabulary_size):
        block = tensor_bytes(name, shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + len(block)]}
        offset += len(block)
        blocks.append(block)
    encoded = json.dumps(header, separators=(",", ":")).encode("utf-8")
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as handle:
        handle.write(struct.pack("<Q", len(encoded)) + encoded)
        handle.writelines(blocks)


def documents() -> Dict[str, Any]:
    """The JSON files, by name."""
    merges = learn_merges(TEXT, MERGES)
    vocab = vocabulary(merges)
    special = {token: len(vocab) + number for number, token in enumerate(SPECIAL)}
    size = -(-(len(vocab) + len(special)) // 64) * 64
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "config.json": {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_size": HIDDEN,
            "intermediate_size": INTERMEDIATE,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "vocab_size": size,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-06,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_sliding_window": False,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "bos_token_id": special[BOS],
            "eos_token_id": special[EOS],
        },
        "generation_config.json": {
            "do_sample": True,
            "temperature": 0.6,
            "top_p": 0.95,
            "bos_token_id": special[BOS],
            "eos_token_id": special[EOS],
        },
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": number, "content": token, **flags} for token, number in special.items()],
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": vocab,
                "merges": [[left, right] for left, right in merges],
            },
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "pad_token": EOS,
            "model_max_length": 4096,
            "clean_up_tokenization_spaces": False,
            "chat_template": TEMPLATE,
        },
    }


def write(directory: str) -> None:
    """Write the model's files into an existing directory."""
    made = documents()
    for name, content in made.items():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as handle:
            json.dump(content, handle, ensure_ascii=False, indent=1, sort_keys=True)
            handle.write("\n")
    write_safetensors(os.path.join(directory, "model.safetensors"), made["config.json"]["vocab_size"])
