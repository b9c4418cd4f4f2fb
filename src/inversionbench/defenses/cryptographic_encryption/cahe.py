"""CAHE, certificateless additively homomorphic encryption from lattices, with partial sharing of the update (survey
4.5; Antwi-Boasiako, Zhou, Liao, Dong, J. Information Security and Applications 2023): reconstruction.

The paper's equations were not available. This is a scheme with the same interface, complete and checkable: additive
encryption of Lindner and Peikert as used by Aono et al. for the user's part, dual Regev with a Gentry-Peikert-
Vaikuntanathan key for the identity's part; both secrets are needed to decrypt. See `_lattice`.

All participants of a session share one identity and one user secret; the server has neither and adds ciphertexts.
Values are fixed-point integers, several to a slot, with room for the carries of the sum; the plaintext modulus is
the largest that ten deviations of the sum's noise leave room for, and a wrong sum is an error, never a result.

share, select: partial sharing. A share of the coordinates is sent, chosen at random by the public round number, or
"top": the union of every client's largest; then the indices travel in the open and the server learns them.

strength: 1 encrypts, 0 is off. clients: of a session. dimension: n of the user's part; its security is computed and
reported with every result (`security`), INSECURE below 128 bits. identity: n0 of the identity's part, which at these
sizes is a demonstration and no claim: at 128 bits its preimages are too large to sample like this.

What the attacker gets. Server and eavesdropper: ciphertexts, read without any key. Another client: the mean of the
others. The server in collusion with a client: everything, as that client's key opens every ciphertext.

Rounds that are not attacked do the integers' arithmetic without encryption: the sums are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Defense
from inversionbench.core.exchange import Exchange, Round, Update, of_others
from inversionbench.core.ranges import Count, Positive, PositiveShare

if TYPE_CHECKING:
    import numpy as np

    from inversionbench.defenses.cryptographic_encryption._lattice import Cipher
    from inversionbench.defenses.cryptographic_encryption._stream import Stream

SPARE = 64  # columns of the trapdoor's uniform part


@dataclass(frozen=True)
class Cahe(Defense):
    """clip, bits: of the fixed point, bits behind the point. slots: of one ciphertext."""

    id = "cahe"
    hooks = frozenset({"aggregate"})
    federated = True
    places = ("ring", "mask")
    takes = ("dense", "sparse")
    gives = "masked"

    clients: Count = 4
    share: PositiveShare = 1.0
    select: str = "random"
    clip: Positive = 2.0
    bits: Count = 14
    dimension: Count = 2560
    identity: Count = 32
    slots: Count = 1024

    def __post_init__(self) -> None:
        if self.strength not in (0, 1):
            raise ValueError(f"cahe: strength is 1 (encrypted) or 0 (off), got {self.strength}")
        if not 0 < self.share <= 1 or self.select not in ("random", "top") or self.clients < 1:
            raise ValueError("cahe: expected 0 < share <= 1, select random or top, clients >= 1, got "
                             f"{self.share}, {self.select}, {self.clients}")  # fmt: skip

    @property
    def crowd(self) -> int:
        return self.clients if self.strength else 1

    @property
    def offset(self) -> int:
        """What makes every value non-negative."""
        return int(self.clip * 2**self.bits)

    def aggregate(self, payloads: Sequence[Update], weights: Sequence[float]) -> tuple[Update, Sequence[Update]]:
        """Mean and view of the server, with keys from the operating system."""
        if self.strength == 0:
            return super().aggregate(payloads, weights)
        from inversionbench.defenses.cryptographic_encryption._stream import Stream

        done = self._run(payloads, weights, 0, "server", Stream.system())
        return done.mean, done.view

    def exchange(self, payloads: Sequence[Update], weights: Sequence[float], round: Round) -> Exchange:
        if self.strength == 0:
            return super().exchange(payloads, weights, round)
        from inversionbench.defenses.cryptographic_encryption._stream import Stream

        stream = Stream.seeded(round.rng) if round.attacked else None
        return self._run(payloads, weights, round.number, round.observer, stream)

    def _run(
        self, payloads: Sequence[Update], weights: Sequence[float], number: int, observer: str | None,
        stream: Stream | None,
    ) -> Exchange:
        """All sessions of a round; stream None: the arithmetic alone."""
        import numpy as np

        from inversionbench.defenses._fixed_point import decode, encode, sessions, shares_of

        n, like, relative = len(payloads), payloads[0], shares_of(weights)
        encoded = [encode(p, w, self.clip, self.bits) for p, w in zip(payloads, relative)]
        x = np.stack([values for values, _ in encoded]).clip(-self.offset, self.offset - 1)
        groups = sessions(n, self.clients)
        total, shared, rows = np.zeros(x.shape[1], np.int64), np.zeros_like(x), np.zeros(x.shape)
        size = np.zeros(n)
        for members in groups:
            index = self.chosen(x[members], number)
            inputs, where = x[members][:, index], (np.array(members)[:, None], index)
            added = inputs.sum(0)
            if stream is not None:
                keys = Keys.make(self, len(members), stream)
                added, ciphers = keys.sum(inputs)
                if not np.array_equal(added, inputs.sum(0)):
                    raise RuntimeError("cahe: the decrypted sum is not the sum of the inputs")
                rows[where] = [keys.read(c, len(index)) for c in ciphers]
            size[members] = self._size(len(index), len(members), x.shape[1])
            shared[where] = inputs
            total[index] += added
        view: Sequence[Update] = [decode(row, like, self.bits) for row in rows]
        if observer in ("client", "collusion"):  # who holds the participants' key reads what was shared, no more
            view = [decode(row, like, self.bits, w) for row, w in zip(shared, relative)]
        if observer == "client":
            view = of_others(Defense(), view, weights)
        clipped = sum(c for _, c in encoded) / x.size
        return Exchange(decode(total, like, self.bits, n), view, size.tolist(), size.tolist(), {
            "clipped": clipped, "groups": groups, **self.security(),
        })  # fmt: skip

    def chosen(self, x: np.ndarray, number: int) -> np.ndarray:
        """Indices of the coordinates that are shared. x: int64 (clients, d)."""
        import numpy as np

        d = x.shape[1]
        count = int(np.ceil(self.share * d))
        if count == d:
            return np.arange(d)
        if self.select == "random":
            return np.sort(np.random.default_rng([number, d]).permutation(d)[:count])
        return np.unique(np.argpartition(-np.abs(x), count - 1, axis=1)[:, :count])

    def security(self) -> dict[str, Any]:
        """Bits of the user's part by the primal attack, and the words that stand beside every result."""
        from inversionbench.defenses.cryptographic_encryption._lattice import SIGMA, WIDTH
        from inversionbench.defenses.cryptographic_encryption._lwe_security import label, primal

        bits, core = primal(self.dimension, WIDTH, SIGMA)
        words = f"{label(bits, core)}; identity part of dimension {self.identity}: demonstration, no claim"
        return {"security": words, "security_bits": bits, "security_core": core}

    def statements(self, rate: float, steps: int, parameters: int, rounds: int) -> tuple[str, ...]:
        return (f"LWE of dimension {self.dimension}: {self.security()['security']}",) if self.strength else ()

    def _size(self, values: int, clients: int, d: int) -> float:
        """Bytes of one client's ciphertexts, and of the indices that travel with them."""
        from inversionbench.defenses.cryptographic_encryption._lattice import WIDTH

        _, per_slot = self.room(clients)
        ciphers = -(-values // (per_slot * self.slots))
        columns = SPARE + self.identity * WIDTH
        open_indices = 4 * values if self.select == "top" and values < d else 0
        return float(8 * ciphers * (columns + self.dimension + self.slots) + open_indices)

    def room(self, clients: int) -> tuple[int, int]:
        """(log2 of the plaintext modulus, values in one slot) for a sum of so many clients."""
        from inversionbench.defenses.cryptographic_encryption._lattice import WIDTH, largest_plain

        columns = SPARE + self.identity * WIDTH
        bits = largest_plain(self.dimension, columns, _width_bound(self.identity), clients)
        per_slot = bits // field(self.offset, clients)
        if per_slot < 1:
            raise ValueError(f"cahe: {bits} bits of plaintext hold no value of {field(self.offset, clients)} bits: "
                             "fewer bits, a smaller clip or fewer clients")  # fmt: skip
        return bits, per_slot

    def bytes_sent(self, update: Update) -> int:
        """All ciphertexts of one upload; with `select` "top" at least, as the union may be larger."""
        if self.strength == 0:
            return super().bytes_sent(update)
        import math

        d = sum(t.numel() for t in update.values())
        return int(self._size(math.ceil(self.share * d), self.clients, d))

    def public_knowledge(self) -> dict[str, Any]:
        return {"clients": self.clients, "share": self.share, "select": self.select} | (
            self.security() if self.strength else {}
        )


def field(offset: int, clients: int) -> int:
    """Bits of a value in a slot, with the carries of the sum."""
    return (2 * offset - 1).bit_length() + (clients - 1).bit_length()


def _width_bound(rows: int) -> float:
    """An upper bound of the key centre's Gaussian width s, before its trapdoor is drawn."""
    from inversionbench.defenses.cryptographic_encryption._lattice import PARAMETER, ROUNDING, WIDTH

    norm = SPARE**0.5 + (rows * WIDTH) ** 0.5 + 6
    return 1.1 * PARAMETER * (norm**2 + 1) ** 0.5 + ROUNDING


@dataclass
class Keys:
    """One session: a key centre, the participants' common secrets, and how values are packed."""

    matrix: np.ndarray
    centre: np.ndarray
    partial: np.ndarray
    secret: np.ndarray
    public: np.ndarray
    modulus: int
    per_slot: int
    field: int
    offset: int
    clients: Count
    stream: Stream

    NAME = "participants"

    @classmethod
    def make(cls, settings: Cahe, clients: int, stream: Stream) -> Keys:
        """Set-up, partial key, the user's check of it, user key. `RuntimeError` where the check fails."""
        from inversionbench.defenses.cryptographic_encryption import _lattice as lattice

        centre = lattice.KeyCentre(settings.identity, SPARE, stream.child())
        if centre.width > _width_bound(settings.identity):
            raise RuntimeError("cahe: the trapdoor is longer than its bound; take another seed")
        partial = centre.partial_key(cls.NAME, settings.slots)
        if not lattice.accepts(centre.matrix, partial, cls.NAME, centre.width):
            raise RuntimeError("cahe: the key centre's partial key does not open the identity")
        bits, per_slot = settings.room(clients)
        modulus = 2**bits + 1
        matrix = lattice.public_matrix(b"cahe", settings.dimension, settings.dimension)
        user = lattice.User.make(matrix, settings.slots, modulus, stream.child())
        return cls(matrix, centre.matrix, partial, user.secret, user.public, modulus, per_slot,
                   field(settings.offset, clients), settings.offset, clients, stream)  # fmt: skip

    def sum(self, inputs: np.ndarray) -> tuple[np.ndarray, list[Cipher]]:
        """(decrypted sum int64 (d,), every client's ciphertexts) of inputs int64 (clients, d)."""
        ciphers = [self.encrypt(row) for row in inputs]
        total = ciphers[0]
        for other in ciphers[1:]:
            total = total + other
        return self.decrypt(total, inputs.shape[1], len(inputs)), ciphers

    def encrypt(self, values: np.ndarray) -> Cipher:
        from inversionbench.defenses.cryptographic_encryption import _lattice as lattice

        packed = pack(values + self.offset, self.per_slot, self.field, self.public.shape[1])
        return lattice.encrypt(packed, self.matrix, self.public, self.centre, self.NAME, self.modulus,
                               self.stream.child())  # fmt: skip

    def decrypt(self, cipher: Cipher, count: int, added: int) -> np.ndarray:
        """int64 (count,): the sum of `added` inputs."""
        from inversionbench.defenses.cryptographic_encryption import _lattice as lattice

        plain = lattice.decrypt(cipher, self.secret, self.partial, self.modulus)
        return unpack(plain, count, self.per_slot, self.field) - added * self.offset

    def read(self, cipher: Cipher, count: int) -> np.ndarray:
        """What somebody without keys reads of one client's ciphertexts: int64 (count,)."""
        from inversionbench.defenses.cryptographic_encryption import _lattice as lattice

        plain = lattice.decrypt(cipher, None, None, self.modulus)
        return unpack(plain, count, self.per_slot, self.field) - self.offset


def pack(values: np.ndarray, per_slot: int, width: int, slots: int) -> np.ndarray:
    """int64 (d,) in [0, 2^width) to (ciphertexts, slots), `per_slot` values beside each other.

    >>> import numpy as np
    >>> pack(np.array([1, 2, 3]), 2, 4, 2).tolist(), unpack(pack(np.array([1, 2, 3]), 2, 4, 2), 3, 2, 4).tolist()
    ([[33, 3]], [1, 2, 3])
    """
    import numpy as np

    ciphers = -(-len(values) // (per_slot * slots))
    table = np.zeros(ciphers * slots * per_slot, np.int64)
    table[: len(values)] = values
    return (table.reshape(ciphers, slots, per_slot) << (width * np.arange(per_slot))).sum(2)


def unpack(packed: np.ndarray, count: int, per_slot: int, width: int) -> np.ndarray:
    """What `pack` was given, or a sum of such: int64 (count,)."""
    import numpy as np

    fields = (packed[..., None] >> (width * np.arange(per_slot))) & (2**width - 1)
    return fields.reshape(-1)[:count]
