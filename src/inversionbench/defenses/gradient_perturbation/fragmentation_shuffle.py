"""Model fragmentation, shuffle and aggregation (survey 4.3; Masuda, Kita, Koizumi, Takemasa, Hasegawa, IEEE LANMAN
2021): reconstruction of the message flow.

1. A public partition, drawn anew each round, cuts the coordinates into F fragments. The weights that enter an output
   never share a fragment with that output's bias: the two together would give the layer's input away.
2. Every client sends each fragment to another peer, so that no peer gets all; messages bear no sender.
3. A peer adds what it got of each fragment. Sums of fewer than `least` clients go on to another peer that holds the
   same fragment, until none is left.
4. The server gets pairs (fragment, sum), without knowing whose, and puts the mean together: exactly that of
   federated averaging in the fixed point that all use.

variant "shares" (not the paper's as far as known, and stronger): the F messages are additive shares of the whole
update modulo 2^32, all but the last uniform, so that a peer reads nothing.

strength: F, the number of fragments (0: off). clients: that exchange fragments; larger rounds are split into such
sessions. least: clients per sum.

What the attacker gets. The server and whoever taps its links: one sum of each fragment, picked at random because
nothing says which holds the victim, over its count (`reads`: "fragments"); or the mean of the session (`reads`:
"mean"). Another client, and the server with it: the victim's fragments that went through this client, as if it
knew their sender, and the mean of the others elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Defense
from inversionbench.core.errors import UserError
from inversionbench.core.exchange import Exchange, Round, Update, dense_size
from inversionbench.core.ranges import Count, Positive

if TYPE_CHECKING:
    import numpy as np
    import torch

HEADER = 8  # bytes of fragment number and weight in every message


@dataclass(frozen=True)
class FragmentationShuffle(Defense):
    """clip, bits: of the fixed point."""

    id = "fragmentation_shuffle"
    hooks = frozenset({"aggregate"})
    federated = True
    places = ("ring", "mask")
    takes = ("dense", "sparse")
    gives = "masked"

    clients: Count = 8
    least: Count = 3
    variant: str = "partition"
    reads: str = "fragments"
    clip: Positive = 8.0
    bits: Count = 20

    def __post_init__(self) -> None:
        if self.strength < 0 or self.strength != int(self.strength):
            raise ValueError(f"fragmentation_shuffle: strength is a number of fragments, got {self.strength}")
        if not 1 <= self.least <= self.clients or self.clients < 3:
            raise ValueError("fragmentation_shuffle: expected 3 clients or more and 1 <= least <= clients, got "
                             f"{self.clients}, {self.least}")  # fmt: skip
        if self.variant not in ("partition", "shares") or self.reads not in ("fragments", "mean"):
            raise ValueError("fragmentation_shuffle: variant is partition or shares, reads is fragments or mean, got "
                             f"{self.variant}, {self.reads}")  # fmt: skip
        if self.clients * self.clip * 2**self.bits >= 2**31:
            raise ValueError("fragmentation_shuffle: the sum leaves the ring of 2^32: fewer bits or a smaller clip")

    @property
    def crowd(self) -> int:
        return self.clients if self.strength else 1

    def aggregate(self, payloads: Sequence[Update], weights: Sequence[float]) -> tuple[Update, Sequence[Update]]:
        """Mean and view of the server, with routes from the operating system's randomness."""
        if self.strength == 0:
            return super().aggregate(payloads, weights)
        import os

        import torch

        rng = torch.Generator().manual_seed(int.from_bytes(os.urandom(7), "big"))
        done = self.exchange(payloads, weights, Round(0, rng, [], "server"))
        return done.mean, done.view

    def exchange(self, payloads: Sequence[Update], weights: Sequence[float], round: Round) -> Exchange:
        if self.strength == 0:
            return super().exchange(payloads, weights, round)
        import numpy as np

        from inversionbench.defenses._fixed_point import decode, encode, sessions, shares_of

        n, like = len(payloads), payloads[0]
        x = np.stack([encode(p, w, self.clip, self.bits)[0] for p, w in zip(payloads, shares_of(weights))])
        owner = partition({name: tuple(t.shape) for name, t in like.items()}, int(self.strength), round.number)
        total = np.zeros_like(x[0])
        seen, up, down, exposed = np.zeros(x.shape), np.zeros(n), np.full(n, float(dense_size(like))), np.zeros(n)
        groups, counts = sessions(n, self.clients), []
        if round.observer and any(len(g) < self.least for g in groups):
            raise UserError(f"fragmentation_shuffle: {n} clients in the round, {self.least} are needed for a sum")
        for members in groups:
            done = _Session(x[members], owner, int(self.strength), self.least, self.variant, round.rng)
            if not np.array_equal(done.total, x[members].sum(0)):
                raise RuntimeError("fragmentation_shuffle: the sum of the fragments is not the sum of the inputs")
            total += done.total
            up[members], down[members] = done.up, down[members] + done.received
            counts += done.counts
            seen[members], exposed[members] = done.view(round.observer, self.reads, round.rng)
        view = [decode(row, like, self.bits) for row in seen]
        return Exchange(decode(total, like, self.bits, n), view, up.tolist(), down.tolist(), {
            "fragments": int(self.strength),
            "clients_per_sum": min(counts),
            "exposed": float(exposed.mean()),
            "groups": groups,
        })  # fmt: skip

    def bytes_sent(self, update: Update) -> int:
        """A client's own messages to peers, without the sums that it passes on."""
        if self.strength == 0:
            return super().bytes_sent(update)
        copies = int(self.strength) if self.variant == "shares" else 1
        return copies * dense_size(update) + HEADER * int(self.strength)

    def public_knowledge(self) -> dict[str, Any]:
        return {"fragments": int(self.strength), "clients": self.clients, "least": self.least, "variant": self.variant}


def partition(shapes: Mapping[str, tuple[int, ...]], fragments: int, round: int) -> np.ndarray:
    """Fragment of every coordinate, int64 (d,), from the public number of the round.

    With more than one fragment no weight of an output is in the fragment of that output's bias.
    """
    import numpy as np

    rng = np.random.default_rng([round, fragments])
    out: dict[str, np.ndarray] = {name: rng.integers(0, fragments, shape) for name, shape in shapes.items()}
    for name, shape in shapes.items():
        bias = name.removesuffix("weight") + "bias"
        if name.endswith("weight") and bias in shapes and shapes[bias] == shape[:1] and fragments > 1:
            of_bias = out[bias].reshape(-1, *[1] * (len(shape) - 1))
            out[name] = (of_bias + 1 + rng.integers(0, fragments - 1, shape)) % fragments
    return np.concatenate([values.ravel() for values in out.values()])


def routes(clients: int, fragments: int, rng: torch.Generator) -> np.ndarray:
    """The peer that each client sends each fragment to, (clients, fragments): never itself, and all others in turn
    before one comes again."""
    import numpy as np
    import torch

    table = np.empty((clients, fragments), np.int64)
    for i in range(clients):
        others = np.array([j for j in range(clients) if j != i])
        turns = -(-fragments // (clients - 1))
        row = [others[torch.randperm(clients - 1, generator=rng).numpy()] for _ in range(turns)]
        table[i] = np.concatenate(row)[:fragments]
    return table


class _Session:
    """One exchange of fragments. x: int64 (clients, d). sums: per fragment, (peer, members, values of the fragment)."""

    def __init__(
        self, x: np.ndarray, owner: np.ndarray, fragments: int, least: int, variant: str, rng: torch.Generator
    ):
        import numpy as np

        self.x, self.owner, self.fragments, self.variant = x, owner, fragments, variant
        n, d = x.shape
        self.routes = routes(n, fragments, rng)
        self.size = np.full(fragments, d) if variant == "shares" else np.bincount(owner, minlength=fragments)
        messages = self._shares(rng) if variant == "shares" else None
        self.up = np.full(n, 4.0 * self.size.sum() + HEADER * fragments)
        self.received = np.zeros(n)
        self.sums: list[list[tuple[int, list[int], np.ndarray]]] = []
        for f in range(fragments):
            held = [(int(j), np.flatnonzero(self.routes[:, f] == j).tolist()) for j in np.unique(self.routes[:, f])]
            for j, members in held:
                self.received[j] += len(members) * (4.0 * self.size[f] + HEADER)
            held = self._forward(held, f, least, rng)
            part = x[:, owner == f] if messages is None else messages[:, f]
            self.sums.append([(j, members, part[members].sum(0)) for j, members in held])
            for j, _ in held:
                self.up[j] += 4.0 * self.size[f] + HEADER
        self.counts = [len(members) for held in self.sums for _, members, _ in held]
        self.total = self._total()

    def _shares(self, rng: torch.Generator) -> np.ndarray:
        """Additive shares modulo 2^32 of every client's values, int64 (clients, fragments, d)."""
        import numpy as np

        from inversionbench.defenses.cryptographic_encryption._stream import Stream

        n, d = self.x.shape
        raw = np.frombuffer(Stream.seeded(rng).bytes(4 * n * self.fragments * d), "<u4")
        out = raw.reshape(n, self.fragments, d).astype(np.int64)
        out[:, -1] = (self.x - out[:, :-1].sum(1)) % 2**32
        return out

    def _forward(
        self, held: list[tuple[int, list[int]]], f: int, least: int, rng: torch.Generator
    ) -> list[tuple[int, list[int]]]:
        """Small sums go on to another holder of the fragment until every sum has `least` clients."""
        import torch

        while len(held) > 1 and min(len(m) for _, m in held) < least:
            small = min(range(len(held)), key=lambda k: len(held[k][1]))
            peer, members = held.pop(small)
            goal = int(torch.randint(len(held), (1,), generator=rng))
            held[goal] = (held[goal][0], held[goal][1] + members)
            self.up[peer] += 4.0 * self.size[f] + HEADER
            self.received[held[goal][0]] += 4.0 * self.size[f] + HEADER
        return held

    def _total(self) -> np.ndarray:
        """What the server puts together: the sum of all clients."""
        import numpy as np

        from inversionbench.defenses._fixed_point import centred

        if self.variant == "shares":
            return centred(np.sum([s for held in self.sums for _, _, s in held], axis=0) % 2**32)
        out = np.zeros(self.x.shape[1], np.int64)
        for f, held in enumerate(self.sums):
            out[self.owner == f] = sum(s for _, _, s in held)
        return out

    def view(self, observer: str | None, reads: str, rng: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The observer's row for every client, (clients, d), and the share of its coordinates seen alone."""
        import numpy as np
        import torch

        n, d = self.x.shape
        if observer in ("client", "collusion"):
            partner = (np.arange(n) + 1) % n
            rows = (self.total - self.x[partner]) / (n - 1)
            alone = np.zeros((n, d), bool)
            if self.variant == "partition":
                alone = (self.routes == partner[:, None])[:, self.owner]
            return np.where(alone, self.x, rows), alone.mean(1)
        if reads == "mean" or self.variant == "shares" or observer is None:
            return np.tile(self.total / n, (n, 1)), np.zeros(n)
        rows = np.empty((n, d))
        for i in range(n):
            for f, held in enumerate(self.sums):
                pick = int(torch.randint(len(held), (1,), generator=rng))
                rows[i, self.owner == f] = held[pick][2] / len(held[pick][1])
        return rows, np.zeros(n)
