"""Sums under pairwise masks: the four rounds of secure aggregation (Bonawitz et al., CCS 2017; sparse graph as in
Bell et al., CCS 2020), over the ring of integers modulo 2^32.

    0 keys      every client makes two X25519 pairs; the server relays the public halves
    1 shares    of the seed b_u of its self mask and of its secret key s_u, to its neighbours, sealed
    2 masked    Y_u = X_u + PRG(b_u) + sum_{v > u} PRG(s_uv) - sum_{v < u} PRG(s_uv)   over its neighbours v
    3 unmask    shares of b_u for those who sent, of s_u for those who dropped out: never both for one client

s_uv is derived (HKDF-SHA256) from the pair's X25519 secret and the round's number, PRG is the ChaCha20 key stream
over the whole vector, shares travel under ChaCha20-Poly1305. Public keys are taken as authentic: a server that
could replace them would read everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from inversionbench.defenses.cryptographic_encryption import _shamir
from inversionbench.defenses.cryptographic_encryption._stream import Stream, derive, key_stream

PUBLIC = 32  # bytes of one public key
TAG, NONCE = 16, 12
BOX = 2 * _shamir.SHARE + TAG + NONCE  # one sealed pair of shares


def neighbours(count: int, degree: int, order: Sequence[int]) -> list[set[int]]:
    """Of every client: all others, or `degree` (even) in a ring whose public random order is `order`.

    A ring in which everyone knows the degree / 2 next on each side stays connected while fewer than degree / 2
    neighbours in a row drop out.
    """
    if degree <= 0 or degree >= count - 1:
        return [set(range(count)) - {u} for u in range(count)]
    if degree % 2:
        raise ValueError(f"the number of neighbours must be even, got {degree}")
    out: list[set[int]] = [set() for _ in range(count)]
    for place, u in enumerate(order):
        for step in range(1, degree // 2 + 1):
            v = order[(place + step) % count]
            out[u].add(v)
            out[v].add(u)
    return out


def mask(key: bytes, size: int) -> np.ndarray:
    """PRG: uint32 (size,) from a 32-byte key."""
    return np.frombuffer(key_stream(key, 4 * size), "<u4")


def pair_key(secret: Any, public: bytes, purpose: str, round: int, u: int, v: int) -> bytes:
    """The key that u and v alone can derive, for one purpose and one round."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    shared = secret.exchange(X25519PublicKey.from_public_bytes(public))
    return derive(shared, f"{purpose}/{round}/{min(u, v)}/{max(u, v)}".encode())


def _secret(raw: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(raw)


class Participant:
    """One client. `agreements` counts its key agreements for masks, `sent` the bytes that it sent."""

    def __init__(self, number: int, round: int, stream: Stream):
        self.number, self.round, self.stream = number, round, stream
        self._channel_raw, self._mask_raw, self._seed = stream.bytes(32), stream.bytes(32), stream.bytes(32)
        self._channel, self._mask = _secret(self._channel_raw), _secret(self._mask_raw)
        self._boxes: dict[int, tuple[bytes, bytes]] = {}
        self._told: dict[int, str] = {}
        self.agreements, self.sent = 0, 2 * PUBLIC
        self.public = tuple(k.public_key().public_bytes_raw() for k in (self._channel, self._mask))

    def share(self, directory: Mapping[int, Sequence[bytes]], threshold: int) -> dict[int, bytes]:
        """Round 1: neighbour -> sealed shares of (b_u, s_u). directory: the public keys of the neighbours."""
        self.directory = dict(directory)
        holders = sorted([*directory, self.number])
        parts = [_shamir.split(s, threshold, holders, self.stream) for s in (self._seed, self._mask_raw)]
        self._boxes[self.number] = (parts[0][self.number], parts[1][self.number])
        boxes = {v: self._cipher(v).encrypt(self._nonce(self.number, v), parts[0][v] + parts[1][v], None)
                 for v in directory}  # fmt: skip
        boxes = {v: self._nonce(self.number, v) + box for v, box in boxes.items()}
        self.sent += sum(map(len, boxes.values()))
        return boxes

    def receive(self, boxes: Mapping[int, bytes]) -> None:
        """Open the neighbours' boxes; a changed box raises `cryptography.exceptions.InvalidTag`."""
        for v, box in boxes.items():
            opened = self._cipher(v).decrypt(box[:NONCE], box[NONCE:], None)
            self._boxes[v] = (opened[: _shamir.SHARE], opened[_shamir.SHARE :])

    def masked(self, x: np.ndarray, self_mask: bool = True) -> np.ndarray:
        """Round 2: Y_u. x: uint32 (d,). self_mask: False only to show in tests what happens without."""
        y = x.astype(np.uint32).copy()
        if self_mask:
            y += mask(self._seed, len(x))
        for v, keys in self.directory.items():
            own = mask(pair_key(self._mask, keys[1], "mask", self.round, self.number, v), len(x))
            y = y + own if self.number < v else y - own
            self.agreements += 1
        self.sent += y.nbytes
        return y

    def reveal(self, survivors: set[int], dropped: set[int]) -> dict[int, bytes]:
        """Round 3: client -> its share of b (of survivors) or of the secret key (of those who dropped out).

        Raises `ValueError` when it was already asked for the other secret of a client: both would open its input.
        """
        out = {}
        for u, (seed, secret) in self._boxes.items():
            kind = "seed" if u in survivors else "key" if u in dropped else ""
            if (u in survivors and u in dropped) or self._told.get(u, kind) != kind:
                raise ValueError(f"client {self.number} was asked for both secrets of client {u}, it gives one")
            if kind:
                self._told[u] = kind
                out[u] = seed if kind == "seed" else secret
        self.sent += sum(map(len, out.values()))
        return out

    def _cipher(self, v: int) -> Any:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        key = pair_key(self._channel, self.directory[v][0], "shares", self.round, self.number, v)
        return ChaCha20Poly1305(key)

    @staticmethod
    def _nonce(sender: int, receiver: int) -> bytes:
        """Different in the two directions of one key, which seals one box each way."""
        return int(sender > receiver).to_bytes(NONCE, "little")


def unmask(
    masked: Mapping[int, np.ndarray], told: Mapping[int, Mapping[int, bytes]], directory: Sequence[Sequence[bytes]],
    graph: Sequence[set[int]], thresholds: Sequence[int], round: int,
) -> np.ndarray:
    """Round 3 at the server: the sum of the survivors' inputs modulo 2^32.

    masked: survivor -> Y. told: survivor -> what `reveal` gave. `ValueError` where too few shares are left.
    """
    total = np.zeros_like(next(iter(masked.values())))
    for y in masked.values():
        total = total + y
    missing = {v for u in masked for v in graph[u]} - set(masked)

    def secret(u: int) -> bytes:
        return _shamir.join({holder: shares[u] for holder, shares in told.items() if u in shares}, thresholds[u])

    for u in masked:
        total = total - mask(secret(u), len(total))
    for v in missing:
        own = _secret(secret(v))
        for u in graph[v] & set(masked):
            left = mask(pair_key(own, directory[u][1], "mask", round, u, v), len(total))
            total = total - left if u < v else total + left
    return total
