"""XTS as IEEE Std 1619 has it, over a block cipher of OpenSSL: to judge the kernel's by."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher, modes

BLOCK = 16


class Xts:
    def __init__(self, cipher: type[BlockCipherAlgorithm], key: bytes) -> None:
        half = len(key) // 2
        self._data = Cipher(cipher(key[:half]), modes.ECB())  # type: ignore[call-arg]
        self._tweak = Cipher(cipher(key[half:]), modes.ECB())  # type: ignore[call-arg]

    def _masks(self, sector: int, length: int) -> bytes:
        """E(sector number), and for each next block that value times x in GF(2^128), lowest byte first."""
        value = int.from_bytes(self._tweak.encryptor().update(sector.to_bytes(BLOCK, "little")), "little")
        masks = []
        for _block in range(length // BLOCK):
            masks.append(value.to_bytes(BLOCK, "little"))
            value <<= 1
            if value >> 128:
                value = (value & (1 << 128) - 1) ^ 0x87
        return b"".join(masks)

    def encrypt(self, sector: int, text: bytes) -> bytes:
        masks = self._masks(sector, len(text))
        return _xor(self._data.encryptor().update(_xor(text, masks)), masks)

    def decrypt(self, sector: int, stored: bytes) -> bytes:
        masks = self._masks(sector, len(stored))
        return _xor(self._data.decryptor().update(_xor(stored, masks)), masks)


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def encrypt(cipher: type[BlockCipherAlgorithm], key: bytes, sector: int, text: bytes) -> bytes:
    return Xts(cipher, key).encrypt(sector, text)
