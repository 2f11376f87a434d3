# Copyright: the bedplate developers
# Apache License 2.0 (see LICENSE) or, at your choice, GNU General Public License v3.0+
# (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read public OpenPGP keys: which ones a file holds, by the fingerprint that is calculated from the key itself.

So that a key can be checked before it is written anywhere, also where there is no gpg: Debian needs only gpgv for its
package sources, Debian 13 not even that.  Signatures are not verified here; that is the package manager's part, and it
does so with the key that was chosen here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Iterator, List, Optional, Tuple

_SIGNATURE, _SECRET_KEY, _PUBLIC_KEY, _SECRET_SUBKEY, _USER_ID, _PUBLIC_SUBKEY, _USER_ATTRIBUTE = 2, 5, 6, 7, 13, 14, 17
_OF_A_CERTIFICATE = (_SIGNATURE, _PUBLIC_KEY, _USER_ID, _PUBLIC_SUBKEY, _USER_ATTRIBUTE)
_BLOCK = re.compile(
    rb"^-----BEGIN PGP (PUBLIC|PRIVATE) KEY BLOCK-----[ \t]*\r?\n(.*?)^-----END PGP \1 KEY BLOCK-----",
    re.DOTALL | re.MULTILINE,
)


class OpenPgpError(ValueError):
    """These are no public keys that can be used; the message is one sentence without a full stop."""


@dataclass(frozen=True)
class Certificate:
    """One primary key with what belongs to it; fingerprints in capital hexadecimal digits."""

    fingerprint: str
    subkeys: Tuple[str, ...]
    user_ids: Tuple[str, ...]
    content: bytes

    @property
    def label(self) -> str:
        return f"{self.fingerprint} ({self.user_ids[0]})" if self.user_ids else self.fingerprint


def certificates(content: bytes) -> List[Certificate]:
    """All public keys of a file, armored or binary."""
    found: List[Certificate] = []
    for tag, body, raw in _packets(_binary(content)):
        if tag in (_SECRET_KEY, _SECRET_SUBKEY):
            raise OpenPgpError(
                "it holds a secret key; export the public one (gpg --export --armor), and keep that away"
            )
        if tag == _PUBLIC_KEY:
            found.append(Certificate(_fingerprint(body), (), (), raw))
        elif not found or tag not in _OF_A_CERTIFICATE:
            continue
        else:
            last = found[-1]
            found[-1] = Certificate(
                last.fingerprint,
                (*last.subkeys, _fingerprint(body)) if tag == _PUBLIC_SUBKEY else last.subkeys,
                (*last.user_ids, _printable(body)) if tag == _USER_ID else last.user_ids,
                last.content + raw,
            )
    if not found:
        raise OpenPgpError("it holds no public key")
    return found


def select(content: bytes, fingerprint: str) -> Certificate:
    """The one key of that fingerprint and nothing else of the file; a wrong fingerprint is refused with both."""
    found = certificates(content)
    for certificate in found:
        if certificate.fingerprint == fingerprint:
            return certificate
    for certificate in found:
        if fingerprint in certificate.subkeys:
            raise OpenPgpError(
                f"{fingerprint} is a subkey of {certificate.label}; state the fingerprint of that primary key"
            )
    there = ", ".join(certificate.label for certificate in found)
    raise OpenPgpError(f"the stated fingerprint is {fingerprint}, and the key found is {there}")


def armor(content: bytes) -> str:
    """As text, as RPM wants it."""
    lines = base64.encodebytes(content).decode("ascii").replace("\n", "")
    wrapped = "\n".join(lines[start : start + 64] for start in range(0, len(lines), 64))
    checksum = base64.b64encode(_crc24(content).to_bytes(3, "big")).decode("ascii")
    return f"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{wrapped}\n={checksum}\n-----END PGP PUBLIC KEY BLOCK-----\n"


def normalised(fingerprint: str) -> Optional[str]:
    """40 capital hexadecimal digits, however they were grouped; None for anything else, such as a short key id."""
    plain = re.sub(r"[\s:]", "", fingerprint).upper()
    return plain if re.fullmatch(r"[0-9A-F]{40}", plain) else None


def _printable(body: bytes) -> str:
    """A user id for a message: whoever made the key wrote it, so no control characters."""
    return "".join(char if char.isprintable() else "?" for char in body.decode("utf-8", "replace"))[:200]


# --- the format -----------------------------------------------------------------------------------------------------


def _fingerprint(body: bytes) -> str:
    if body[:1] != b"\x04":
        version = body[0] if body else "none"
        raise OpenPgpError(f"it holds a key of version {version}; only version 4, with 40 digits, is understood here")
    # Not a digest for security: the format names a key by it.
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest().upper()


def _binary(content: bytes) -> bytes:
    """Armored blocks are decoded, several one after the other; anything else is taken as binary."""
    if b"-----BEGIN PGP" not in content:
        return content
    blocks = _BLOCK.findall(content)
    if not blocks:
        raise OpenPgpError("it is no complete public key block")
    return b"".join(_dearmored(block) for _kind, block in blocks)


def _dearmored(block: bytes) -> bytes:
    lines = block.replace(b"\r", b"").split(b"\n")
    # Headers such as "Version:" end with an empty line; some tools leave both out.
    while lines and (not lines[0].strip() or b": " in lines[0]):
        lines.pop(0)
    body = [line.strip() for line in lines if line.strip()]
    checksum = body.pop()[1:] if body and body[-1].startswith(b"=") and len(body[-1]) == 5 else None
    try:
        content = base64.b64decode(b"".join(body), validate=True)
        expected = base64.b64decode(checksum, validate=True) if checksum else None
    except binascii.Error as error:
        raise OpenPgpError(f"its text cannot be decoded ({error})") from error
    if expected is not None and _crc24(content).to_bytes(3, "big") != expected:
        raise OpenPgpError("its checksum is wrong: it was damaged on its way")
    return content


def _crc24(content: bytes) -> int:
    value = 0xB704CE
    for byte in content:
        value ^= byte << 16
        for _bit in range(8):
            value = (value << 1) ^ 0x1864CFB if value & 0x800000 else value << 1
    return value & 0xFFFFFF


def _packets(content: bytes) -> Iterator[Tuple[int, bytes, bytes]]:
    """(tag, body, the packet as it stands) of each packet."""
    position = 0
    while position < len(content):
        start, first = position, content[position]
        if not first & 0x80:
            raise OpenPgpError("it is no OpenPGP data")
        if first & 0x40:
            tag, (length, header) = first & 0x3F, _new_length(content, position + 1)
        else:
            tag, (length, header) = (first >> 2) & 0x0F, _old_length(content, position + 1, first & 0x03)
        position += 1 + header + length
        if position > len(content):
            raise OpenPgpError("it ends in the middle of a key")
        yield tag, content[start + 1 + header : position], content[start:position]


def _number(content: bytes, start: int, octets: int) -> int:
    if start + octets > len(content):
        raise OpenPgpError("it ends in the middle of a key")
    return int.from_bytes(content[start : start + octets], "big")


def _new_length(content: bytes, start: int) -> Tuple[int, int]:
    first = _number(content, start, 1)
    if first < 192:
        return first, 1
    if first < 224:
        return ((first - 192) << 8) + _number(content, start + 1, 1) + 192, 2
    if first == 255:
        return _number(content, start + 1, 4), 5
    raise OpenPgpError("it has a packet of unknown length, which no key has")


def _old_length(content: bytes, start: int, kind: int) -> Tuple[int, int]:
    if kind == 3:
        raise OpenPgpError("it has a packet of unknown length, which no key has")
    octets = 1 << kind
    return _number(content, start, octets), octets
