"""Where a search starts: (trials, batch, c, h, w) in normalised space."""

from __future__ import annotations

import torch
from torch import Tensor

from inversionbench.core.errors import UserError, suggest

INITS = ("randn", "rand", "zeros", "patterned")
TILE = 4  # side of the repeated tile of "patterned"


def start(kind: str, shape: tuple[int, ...], rng: torch.Generator, where: torch.device | None = None) -> Tensor:
    """randn: N(0, 1). rand: U(-1, 1). zeros: grey (slots of equal labels then stay equal: batch 1 only).
    patterned: one random 4 x 4 tile of N(0, 1) per image, repeated. Drawn on the CPU, then moved to `where`.

    Raises `UserError` for another kind.
    """
    return _drawn(kind, shape, rng).to(where or "cpu")


def _drawn(kind: str, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    if kind == "randn":
        return torch.randn(shape, generator=rng)
    if kind == "rand":
        return 2 * torch.rand(shape, generator=rng) - 1
    if kind == "zeros":
        return torch.zeros(shape)
    if kind == "patterned":
        h, w = shape[-2:]
        tile = torch.randn(*shape[:-2], TILE, TILE, generator=rng)
        repeats = [1] * (len(shape) - 2) + [-(-h // TILE), -(-w // TILE)]
        return tile.repeat(repeats)[..., :h, :w].contiguous()
    raise UserError(f"init: unknown '{kind}': {suggest(kind, INITS)}")
