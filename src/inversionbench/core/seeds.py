"""Generators that are seeded by others, so that every draw hangs on the seed of its cell."""

from __future__ import annotations

import hashlib

import torch


def draw_seed(rng: torch.Generator) -> int:
    return int(torch.randint(2**62, (1,), generator=rng))


def spawn(rng: torch.Generator) -> torch.Generator:
    """A new generator, seeded by the next draw of `rng`."""
    return torch.Generator().manual_seed(draw_seed(rng))


def stream(seed: int, *names: object) -> torch.Generator:
    """A generator of its own for each purpose, so that a defense's draws move nobody else's."""
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
