"""Shamir's secret sharing: any t of the shares give the secret, fewer say nothing about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from inversionbench.defenses.cryptographic_encryption._stream import Stream

PRIME = 2**521 - 1  # above every 32-byte secret
SHARE = 66  # bytes of one share


def split(secret: bytes, threshold: int, holders: Iterable[int], stream: Stream) -> dict[int, bytes]:
    """Holder -> share: values at holder + 1 of a random polynomial of degree t - 1 whose constant is the secret.

    >>> shares = split(b"k" * 32, 2, range(3), Stream(bytes(32)))
    >>> join({2: shares[2], 0: shares[0]}, 2) == b"k" * 32
    True
    """
    row = [int.from_bytes(secret, "little"), *(stream.below(PRIME) for _ in range(threshold - 1))]
    out = {}
    for holder in holders:
        value = 0
        for coefficient in reversed(row):
            value = (value * (holder + 1) + coefficient) % PRIME
        out[holder] = value.to_bytes(SHARE, "little")
    return out


def join(shares: Mapping[int, bytes], threshold: int, size: int = 32) -> bytes:
    """The secret of `size` bytes, by Lagrange's formula at 0.

    Raises `ValueError` with fewer than `threshold` shares, or with shares that hold no secret of that size.
    """
    if len(shares) < threshold:
        raise ValueError(f"{threshold} shares open this secret, {len(shares)} are here: too many clients dropped out")
    points = sorted(shares.items())[:threshold]
    total = 0
    for holder, share in points:
        top = bottom = 1
        for other, _ in points:
            if other != holder:
                top = top * (other + 1) % PRIME
                bottom = bottom * (other - holder) % PRIME
        total += int.from_bytes(share, "little") * top * pow(bottom, -1, PRIME)
    total %= PRIME
    if total >= 1 << (8 * size):
        raise ValueError("the shares do not belong together")
    return total.to_bytes(size, "little")
