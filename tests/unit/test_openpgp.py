"""Which keys a file holds, by fingerprints calculated from the keys; those here are gpg's own answers."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.bedplate.llm.plugins.module_utils.openpgp import (
    OpenPgpError,
    armor,
    certificates,
    normalised,
    select,
)

KEYS = Path(__file__).with_name("keys")
FIRST, SECOND = (KEYS / "first.asc").read_bytes(), (KEYS / "second.asc").read_bytes()
RSA = "B5E26B1F90B23F235D13564B8F775CC95E61C693"
RSA_SUBKEY = "22FEDE29B361E2D84FB437BCC593BE389F707202"
ED25519 = "7F4B9B05C928722973CBEB847C57F9272CBB6487"


def binary(text: bytes) -> bytes:
    return b"".join(key.content for key in certificates(text))


@pytest.mark.parametrize(("text", "fingerprint"), [(FIRST, RSA), (SECOND, ED25519)])
def test_the_fingerprint_is_gpgs(text, fingerprint):
    for content in (text, binary(text), text.replace(b"\n", b"\r\n")):
        assert [key.fingerprint for key in certificates(content)] == [fingerprint]


def test_subkeys_and_user_ids_belong_to_their_key():
    (key,) = certificates(FIRST)
    assert key.subkeys == (RSA_SUBKEY,)
    assert key.label == f"{RSA} (Mirror (test) <mirror@test.invalid>)"


@pytest.mark.parametrize("content", [FIRST + SECOND, SECOND + b"\n" + FIRST, binary(SECOND) + binary(FIRST)])
def test_of_a_file_with_several_keys_only_the_stated_one_is_taken(content):
    chosen = select(content, RSA)
    assert chosen.content == binary(FIRST)
    assert [key.fingerprint for key in certificates(armor(chosen.content).encode())] == [RSA]


def test_a_wrong_fingerprint_is_refused_with_both():
    with pytest.raises(OpenPgpError, match=rf"stated fingerprint is {ED25519}, and the key found is {RSA} \(Mirror"):
        select(FIRST, ED25519)


def test_the_fingerprint_of_a_subkey_is_refused_with_its_primary_keys():
    with pytest.raises(OpenPgpError, match=rf"{RSA_SUBKEY} is a subkey of {RSA}"):
        select(FIRST, RSA_SUBKEY)


@pytest.mark.parametrize("change", [0, 40, 200])
def test_one_turned_bit_of_the_key_itself_is_another_fingerprint_or_no_key(change):
    content = bytearray(binary(FIRST))
    content[10 + change] ^= 1
    with pytest.raises(OpenPgpError):
        select(bytes(content), RSA)


def damaged(text: bytes) -> bytes:
    lines = text.split(b"\n")
    lines[4] = lines[4][::-1]
    return b"\n".join(lines)


SECRET = bytes([0x80 | 0x40 | 5, 3, 4, 0, 0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no public key"),
        (b"<html>404</html>", "no OpenPGP data"),
        (FIRST[: len(FIRST) // 2], "no complete public key block"),
        (binary(FIRST)[:-5], "ends in the middle"),
        (binary(FIRST)[:2], "ends in the middle"),
        (damaged(FIRST), "checksum is wrong"),
        (FIRST.replace(b"\nmQEN", b"\nm!EN"), "cannot be decoded"),
        (SECRET, "secret key"),
        (binary(FIRST) + SECRET, "secret key"),
        (
            b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n"
            + base64.b64encode(SECRET)
            + b"\n-----END PGP PRIVATE KEY BLOCK-----\n",
            "secret key",
        ),
        (bytes([0x80 | 0x40 | 6, 3, 6, 0, 0]), "version 6"),
        (bytes([0x80 | 0x40 | 6, 0]), "version none"),
        (bytes([0x80 | 0x40 | 6, 224]) + b"x" * 40, "unknown length"),
        (bytes([0x80 | (6 << 2) | 3]) + b"x" * 40, "unknown length"),
    ],
)
def test_what_is_no_usable_key_is_refused_with_the_reason(content, words):
    with pytest.raises(OpenPgpError, match=words):
        certificates(content)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RSA, RSA),
        (RSA.lower(), RSA),
        ("B5E2 6B1F 90B2 3F23 5D13  564B 8F77 5CC9 5E61 C693", RSA),
        ("8F775CC95E61C693", None),
        ("5E61C693", None),
        ("0x" + RSA, None),
        ("", None),
    ],
)
def test_only_a_whole_fingerprint_is_one(text, expected):
    assert normalised(text) == expected


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed")
def test_gpg_reads_what_is_written_here(tmp_path):
    for content in (binary(FIRST + SECOND), armor(binary(FIRST + SECOND)).encode()):
        done = subprocess.run(
            ["gpg", "--homedir", str(tmp_path), "--batch", "--with-colons", "--show-keys"],
            input=content,
            capture_output=True,
            check=True,
        )
        found = [line.split(":")[9] for line in done.stdout.decode().splitlines() if line.startswith("fpr")]
        assert found == [RSA, RSA_SUBKEY, ED25519]
