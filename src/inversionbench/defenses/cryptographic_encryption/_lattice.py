"""The lattice arithmetic of CAHE, modulo q = 2^64: the identity part with its trapdoor, the user's part, ciphertexts.

    setup       A (n x n) from a public seed; A0 = [Abar | G - Abar R] (n0 x m), R short: the trapdoor
    partial key D_id (m x l) short with A0 D_id = H(id)                                  from the key centre
    user        S, R' short (n x l), P = p R' - A S                                      published: P
    encrypt v   c0 = A0' t + p x0, c1 = e1' A + p e2, c2 = U' t + e1' P + p e3 + v       all errors fresh
    decrypt     c2 - D' c0 + c1 S = v + p (e1' R' + e2' S + e3 - D' x0), centred; modulo p

Both S and D_id are needed: the key centre lacks the first, an outsider who replaced P the second. The preimages D
are sampled as Gaussians with a covariance that does not depend on the trapdoor (Micciancio and Peikert, 2012).
Errors are centred binomial of 21 + 21 bits (sigma 3.24). All randomness comes from a `Stream`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from inversionbench.defenses.cryptographic_encryption._stream import Stream, key_stream

BITS = 21  # of the centred binomial: variance BITS / 2
SIGMA = (BITS / 2) ** 0.5
WIDTH = 64  # log2 q
PARAMETER = 9.0  # r of the bitwise Gaussians: their standard deviation is r / sqrt(2 pi)
ROUNDING = 4.5  # the same of the rounding of perturbations
TAU = (2 * np.pi) ** 0.5


def product(short: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """short (a, n) int64 times wide (n, b) uint64, modulo 2^64, by limbs of 16 bits in float64.

    Exact while |short| 2^16 n < 2^53.
    """
    if int(np.abs(short).max(initial=0)) * 65535 * short.shape[1] >= 2**53:
        raise ValueError("the entries are too large for an exact product")
    left = short.astype(np.float64)
    out = np.zeros((short.shape[0], wide.shape[1]), np.uint64)
    for limb in range(4):
        part = ((wide >> np.uint64(16 * limb)) & np.uint64(0xFFFF)).astype(np.float64)
        out += (left @ part).astype(np.int64).view(np.uint64) << np.uint64(16 * limb)
    return out


def wrap(x: np.ndarray) -> np.ndarray:
    """int64 as residues modulo 2^64."""
    return x.view(np.uint64)


def short(stream: Stream, *shape: int) -> np.ndarray:
    return stream.binomial(BITS, *shape)


def public_matrix(seed: bytes, rows: int, columns: int) -> np.ndarray:
    """Uniform modulo 2^64, the same for everybody who knows the seed."""
    key = hashlib.sha256(seed).digest()
    return np.frombuffer(key_stream(key, 8 * rows * columns), "<u8").reshape(rows, columns)


def hash_identity(identity: str, rows: int, slots: int) -> np.ndarray:
    """H(id): uint64 (rows, slots)."""
    raw = hashlib.shake_256(b"identity/" + identity.encode()).digest(8 * rows * slots)
    return np.frombuffer(raw, "<u8").reshape(rows, slots)


class KeyCentre:
    """The key generation centre: A0, and partial keys for identities. rows: n0; spare: columns of Abar."""

    def __init__(self, rows: int, spare: int, stream: Stream):
        self.rows, self.stream = rows, stream
        bar = stream.uint64(rows, spare)
        self._trapdoor = stream.binomial(2, spare, rows * WIDTH)  # variance 1
        gadget = np.kron(np.eye(rows, dtype=np.uint64), np.uint64(1) << np.arange(WIDTH, dtype=np.uint64))
        self.matrix = np.hstack([bar, gadget - product(self._trapdoor.T.copy(), bar.T.copy()).T])
        bound = np.linalg.norm(self._trapdoor.astype(np.float64), 2)
        self.width = 1.1 * PARAMETER * float(np.sqrt(bound**2 + 1)) + ROUNDING  # s

    @property
    def columns(self) -> int:
        """m."""
        return self.matrix.shape[1]

    def partial_key(self, identity: str, slots: int) -> np.ndarray:
        """D_id: int64 (m, slots), short, with A0 D = H(id)."""
        wanted = hash_identity(identity, self.rows, slots)
        y = self._perturbation(slots)
        v = wanted - product(y.T.copy(), self.matrix.T.copy()).T
        z = self._gadget_preimage(v)
        lifted = np.vstack([self._trapdoor @ z, z])
        return y + lifted

    def _perturbation(self, slots: int) -> np.ndarray:
        """int64 (m, slots) of covariance (s^2 I - r^2 [R; I][R; I]') / 2 pi, so that the sum hides the trapdoor."""
        m, spare = self.columns, len(self._trapdoor)
        basis = np.vstack([self._trapdoor.astype(np.float64), np.eye(m - spare)])
        covariance = (self.width**2 - ROUNDING**2) * np.eye(m) - PARAMETER**2 * basis @ basis.T
        factor = np.linalg.cholesky(covariance)
        centre = factor @ self.stream.normal(m, slots) / TAU
        return _round_at_random(centre, self.stream)

    def _gadget_preimage(self, v: np.ndarray) -> np.ndarray:
        """z short, int64 (rows * 64, slots), with G z = v: bit by bit from the lowest."""
        rows, slots = v.shape
        z = np.empty((rows, WIDTH, slots), np.int64)
        left = v.copy()
        for bit in range(WIDTH):
            z[:, bit] = _coset_gaussian((left & np.uint64(1)).astype(np.int64), self.stream)
            left = (left - wrap(z[:, bit].copy())) >> np.uint64(1)
        return z.reshape(rows * WIDTH, slots)


def accepts(matrix: np.ndarray, key: np.ndarray, identity: str, width: float) -> bool:
    """The user's check of a partial key: it opens H(id), and its columns are no longer than s sqrt(m)."""
    if np.linalg.norm(key.astype(np.float64), axis=0).max() > width * len(key) ** 0.5:
        return False
    opens = product(key.T.copy(), matrix.T.copy()).T
    return np.array_equal(opens, hash_identity(identity, len(matrix), key.shape[1]))


def _coset_gaussian(parity: np.ndarray, stream: Stream) -> np.ndarray:
    """Gaussian of parameter r over the even (parity 0) or odd integers, by inversion."""
    reach = int(np.ceil(6 * PARAMETER / TAU / 2)) * 2
    tables = []
    for offset in (0, 1):
        points = np.arange(-reach, reach + 1, 2) + offset
        weights = np.exp(-np.pi * points**2 / PARAMETER**2)
        tables.append((points, np.cumsum(weights) / weights.sum()))
    u = stream.uniform(*parity.shape)
    even, odd = (points[np.minimum(np.searchsorted(c, u), len(points) - 1)] for points, c in tables)
    return np.where(parity == 1, odd, even)


def _round_at_random(centre: np.ndarray, stream: Stream) -> np.ndarray:
    """A discrete Gaussian of parameter `ROUNDING` around every real, by rejection."""
    out = np.empty(centre.shape, np.int64)
    todo = np.ones(centre.shape, bool)
    reach = int(np.ceil(6 * ROUNDING / TAU))
    while todo.any():
        at = centre[todo]
        base = np.floor(at).astype(np.int64)
        draw = base + (stream.uint64(len(at)) % np.uint64(2 * reach + 2)).astype(np.int64) - reach
        kept = stream.uniform(len(at)) < np.exp(-np.pi * (draw - at) ** 2 / ROUNDING**2)
        places = np.flatnonzero(todo.ravel())
        out.ravel()[places[kept]] = draw[kept]
        todo.ravel()[places[kept]] = False
    return out


@dataclass
class User:
    """The participants' common user secret S and public key P."""

    secret: np.ndarray
    public: np.ndarray

    @classmethod
    def make(cls, matrix: np.ndarray, slots: int, p: int, stream: Stream) -> User:
        n = matrix.shape[1]
        secret, noise = short(stream, n, slots), short(stream, n, slots)
        product_as = product(secret.T.copy(), np.ascontiguousarray(matrix.T)).T
        return cls(secret, np.uint64(p) * wrap(noise) - product_as)


@dataclass
class Cipher:
    """Ciphertexts, one per row: c0 (k, m), c1 (k, n), c2 (k, slots), uint64."""

    c0: np.ndarray
    c1: np.ndarray
    c2: np.ndarray

    def __add__(self, other: Cipher) -> Cipher:
        return Cipher(self.c0 + other.c0, self.c1 + other.c1, self.c2 + other.c2)

    @property
    def size(self) -> int:
        return self.c0.nbytes + self.c1.nbytes + self.c2.nbytes


def encrypt(
    values: np.ndarray, matrix: np.ndarray, public: np.ndarray, centre: np.ndarray, identity: str, p: int,
    stream: Stream,
) -> Cipher:
    """values: int64 (k, slots) in [0, p). centre: A0."""
    k, slots = values.shape
    n, (rows, m) = len(matrix), centre.shape
    e1, e2, e3 = short(stream, k, n), short(stream, k, n), short(stream, k, slots)
    t, x0 = short(stream, k, rows), short(stream, k, m)
    scale = np.uint64(p)
    c0 = product(t, centre) + scale * wrap(x0)
    c1 = product(e1, matrix) + scale * wrap(e2)
    c2 = product(t, hash_identity(identity, rows, slots)) + product(e1, public) + scale * wrap(e3) + wrap(values)
    return Cipher(c0, c1, c2)


def opened(cipher: Cipher, secret: np.ndarray | None, key: np.ndarray | None) -> np.ndarray:
    """int64 (k, slots): the message plus p times its noise. Without `secret` or `key` (None) that term is left out."""
    y = cipher.c2.copy()
    if key is not None:
        y -= product(key.T.copy(), np.ascontiguousarray(cipher.c0.T)).T
    if secret is not None:
        y += product(secret.T.copy(), np.ascontiguousarray(cipher.c1.T)).T
    return y.view(np.int64)


def decrypt(cipher: Cipher, secret: np.ndarray | None, key: np.ndarray | None, p: int) -> np.ndarray:
    """int64 (k, slots) in [0, p): the message, or noise where a secret is missing."""
    return opened(cipher, secret, key) % p


def noise(n: int, m: int, width: float) -> float:
    """Standard deviation of the noise, in units of p, of one ciphertext and slot."""
    user = SIGMA**2 * (2 * n) ** 0.5
    identity = width / TAU * SIGMA * m**0.5
    return float(np.sqrt(user**2 + SIGMA**2 + identity**2))


def largest_plain(n: int, m: int, width: float, clients: int) -> int:
    """log2 of the largest plaintext modulus (2^k + 1) that ten deviations of the sum's noise leave room for."""
    k = int(np.floor(np.log2(2.0**63 / (10 * clients**0.5 * noise(n, m, width) + 1))))
    return k - 1
