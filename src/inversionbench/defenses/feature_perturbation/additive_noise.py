"""Additive noise on the features that a client sends, with NoPeek as its companion.

Survey 4.1. Titcombe, Hall, Papadopoulos, Romanini, "Practical Defences Against Model Inversion Attacks for Split Neural
Networks", ICLR workshop DPML 2021; NoPeek: Vepakomma, Singh, Gupta, Raskar, ICDM workshop 2020.

    H3  z = tanh(client(x))                       bounded, so that noise of one scale means the same everywhere
    H8  sent = z + n, n_i ~ Laplace(0, b)         or a Gaussian of the same standard deviation, sqrt(2) b
    H4  L = CE + alpha DCor(x, z)                 NoPeek: distance correlation on the batch

strength: b; for kind `nopeek`, which draws no noise and bounds nothing, alpha itself. Noise is added in training and at
inference; `when: inference` trains without it. draw: fresh for each release, or memoised: one draw for one input, which
leaves nothing to average. unit: absolute, or in standard deviations of what is sent (for states of a language
model, with `bounded` off: a tanh that was not trained would spoil them).

Guarantee: |z_i| < 1, so releasing one value is 2/b-locally differentially private, all d of them 2 d / b; at any d
worth sending that guarantees nothing, and the record says so.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from inversionbench.core.defense import Defense
from inversionbench.core.ranges import NonNegative
from inversionbench.latent.dependence import distance_correlation

if TYPE_CHECKING:
    from inversionbench.core.defense import Sending, Step
    from inversionbench.models.split import Halves


@dataclass(frozen=True)
class AdditiveNoise(Defense):
    """strength: scale b of the noise, or weight of NoPeek. alpha: weight of NoPeek beside noise."""

    id: ClassVar[str] = "additive_noise"
    hooks: ClassVar[frozenset[str]] = frozenset({"build_model", "loss", "release_features"})
    inputs: ClassVar[tuple[str, ...]] = ("image", "text")

    strength: NonNegative = 0.0
    kind: Literal["laplace", "gaussian", "nopeek"] = "laplace"
    alpha: NonNegative = 0.0
    when: Literal["always", "inference"] = "always"
    draw: Literal["fresh", "memoised"] = "fresh"
    bounded: bool = True
    unit: Literal["absolute", "sd"] = "absolute"

    @property
    def scale(self) -> float:
        """b."""
        return 0.0 if self.kind == "nopeek" else self.strength

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        halves: Halves = factory()  # type: ignore[assignment]
        if self.scale and self.bounded:
            halves.client.append(nn.Tanh())
        return halves

    def loss(self, ctx: Step) -> Tensor:
        weight = self.strength if self.kind == "nopeek" else self.alpha
        plain = super().loss(ctx)
        if self.strength == 0 or weight == 0:
            return plain
        return plain + weight * distance_correlation(ctx.x, ctx.hidden["features"])

    def release_features(self, z: Tensor, ctx: Sending) -> Tensor:
        if self.scale == 0 or (ctx.training and self.when == "inference"):
            return z
        fresh = self.draw == "fresh" or ctx.training
        noise = self.noise(z.shape, ctx.rng) if fresh else torch.stack([self._of(row, ctx.rng) for row in z.cpu()])
        unit = z.detach().std() if self.unit == "sd" else 1.0
        return z + unit * noise.to(z)

    def noise(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """Independent draws: Laplace of scale b, the difference of two exponential ones, or a Gaussian."""
        if self.kind == "gaussian":
            return math.sqrt(2) * self.scale * torch.randn(shape, generator=rng)
        one, other = (1 - torch.rand(2, *shape, generator=rng)).log()
        return self.scale * (one - other)

    def _of(self, row: Tensor, rng: torch.Generator) -> Tensor:
        """The one draw of an input, keyed by what is sent of it and by the client's seed."""
        digest = hashlib.sha256(row.contiguous().numpy().tobytes() + str(rng.initial_seed()).encode()).digest()
        return self.noise(row.shape, torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")))

    def public_knowledge(self) -> dict[str, Any]:
        return {"noise": self.kind, "scale": self.scale, "alpha": self.alpha, "draw": self.draw}

    def statements(self, rate: float, steps: int, parameters: int, rounds: int) -> tuple[str, ...]:
        if self.kind != "laplace" or not self.scale or not self.bounded or self.unit == "sd":
            return ()
        return (f"local DP: epsilon {2 / self.scale:g} for one value, {2 * parameters / self.scale:g} for the "
                f"{parameters} of an input: no meaningful guarantee",)  # fmt: skip
