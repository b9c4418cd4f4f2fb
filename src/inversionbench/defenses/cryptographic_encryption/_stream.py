"""Random bytes for the protocols: the key stream of ChaCha20.

In a deployment the key comes from the operating system (`Stream.system`). A simulated client takes it from its
own seeded generator (`Stream.seeded`), so that a run can be repeated; the attacker is given neither.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

KEY = 32  # bytes


def key_stream(key: bytes, count: int) -> bytes:
    """`count` bytes of the ChaCha20 key stream of a 32-byte key, nonce and counter 0."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    return Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(count))


def derive(secret: bytes, purpose: bytes) -> bytes:
    """A 32-byte key for one purpose, by HKDF-SHA256."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(hashes.SHA256(), KEY, salt=None, info=purpose).derive(secret)


class Stream:
    """One long key stream, read piece by piece; no byte is given twice."""

    def __init__(self, key: bytes):
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

        self._next: Any = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()

    @classmethod
    def system(cls) -> Stream:
        """Keyed by the operating system."""
        return cls(os.urandom(KEY))

    @classmethod
    def seeded(cls, rng: torch.Generator) -> Stream:
        """Keyed by four words of a generator: the same stream for the same seed."""
        import torch

        words = torch.randint(-(2**63), 2**63 - 1, (4,), generator=rng)
        return cls(words.numpy().tobytes())

    def bytes(self, count: int) -> bytes:
        return self._next.update(bytes(count))

    def child(self) -> Stream:
        """A stream of its own for one participant."""
        return Stream(self.bytes(KEY))

    def uint64(self, *shape: int) -> np.ndarray:
        """Uniform modulo 2^64."""
        return np.frombuffer(self.bytes(8 * int(np.prod(shape))), "<u8").reshape(shape).copy()

    def uniform(self, *shape: int) -> np.ndarray:
        """Float64 in [0, 1), 53 bits."""
        return (self.uint64(*shape) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, *shape: int) -> np.ndarray:
        """Standard normal, from two uniform values each (Box and Muller)."""
        radius = np.sqrt(-2 * np.log1p(-self.uniform(*shape)))
        return radius * np.cos(2 * np.pi * self.uniform(*shape))

    def binomial(self, bits: int, *shape: int) -> np.ndarray:
        """Centred binomial, int64: the difference of two sums of `bits` bits, variance bits / 2; bits <= 32."""
        raw = self.uint64(*shape)
        mask = np.uint64(2**bits - 1)
        return np.bitwise_count(raw & mask).astype(np.int64) - np.bitwise_count((raw >> np.uint64(32)) & mask)

    def below(self, limit: int) -> int:
        """A uniform integer in [0, limit), by rejection."""
        size = (limit.bit_length() + 7) // 8
        spare = 8 * size - limit.bit_length()
        while True:
            value = int.from_bytes(self.bytes(size), "little") >> spare
            if value < limit:
                return value
