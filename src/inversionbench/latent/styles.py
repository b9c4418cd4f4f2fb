"""Inner spaces of a style-based prior as latents of the loop.

A code w (rows, w_dim) serves all layers of an image. A feature stage holds, beside w, the features x that the
blocks before it made, and their colours so far. Images leave a painter in pixels, but not clamped: a search
must feel, and be able to leave, values outside [0, 1]; what is handed over is clamped.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from inversionbench.core.balls import l1_ball
from inversionbench.core.errors import UserError
from inversionbench.core.prior import Prior
from inversionbench.latent.stop import rows_of
from inversionbench.models.style import SLOPE, StyleGenerator, to_pixels
from inversionbench.models.style_prior import StylePrior


def style_prior(prior: Prior) -> StylePrior:
    """The prior, if it is style-based."""
    if not isinstance(prior, StylePrior):
        raise UserError(f"this attack searches the style space of a prior: expected one of recipe 'style', "
                        f"got {type(prior).__name__}")  # fmt: skip
    return prior


@dataclass(frozen=True)
class SynthesisFromW:
    """Codes (n, w_dim) to images (n, c, h, w), about [0, 1]; with psi < 1 the layers before `cutoff` see the
    truncated code, at every call."""

    style: StyleGenerator
    psi: float = 1.0
    cutoff: int | None = None

    def __call__(self, w: Tensor) -> Tensor:
        ws = w[:, None].expand(-1, self.style.num_ws, -1)
        return to_pixels(self.style.synthesis(self.style.truncate(ws, self.psi, self.cutoff)))


def p_space(w: Tensor) -> Tensor:
    """Codes before the last rectifier of the mapping, where each coordinate is close to Gaussian."""
    return torch.where(w < 0, w / SLOPE, w)


def w_space(p: Tensor) -> Tensor:
    """The way back."""
    return torch.where(p < 0, p * SLOPE, p)


def box(prior: StylePrior, kappa: float) -> tuple[Tensor, Tensor]:
    """Smallest and largest code (w_dim,) within `kappa` deviations of the mean in P space. The rectifier is
    monotone, so clipping w to them is clipping p. kappa inf: no bound.
    """
    reach = kappa * prior.p_std if kappa < inf else torch.full_like(prior.p_std, inf)
    return w_space(prior.p_mean - reach), w_space(prior.p_mean + reach)


class SharedW:
    """One code for all layers. w: (rows, w_dim). limits: lowest and highest code (w_dim,). radius: the l1 ball
    around the start that w may not leave.
    """

    def __init__(self, w: Tensor, limits: tuple[Tensor, Tensor] | None = None, radius: float = inf):
        self.w = w.clone().requires_grad_(True)
        self.start, self.limits, self.radius = w, limits, radius
        self.parameters = [self.w]

    def draw(self) -> Tensor:
        return self.w

    @torch.no_grad()
    def project(self) -> None:
        if self.limits:
            self.w.copy_(self.w.clamp(*self.limits))
        if self.radius < inf:
            self.w.copy_(self.start + l1_ball(self.w - self.start, self.radius))

    def keep(self, rows: Tensor) -> None:
        self.w, self.start = rows_of(self.w, rows), self.start[rows]
        self.parameters = [self.w]


class Features:
    """Code and features of one stage, each in its l1 ball around the start of the stage.

    w: (rows, w_dim). x: what block stage - 1 hands on, (rows, channels, side, side). img: the colours of the
    blocks before, or None to drop them. radii: of x and of w. `bound`: share of rows whose features were moved
    back by the last projection.
    """

    def __init__(
        self, style: StyleGenerator, stage: int, w: Tensor, x: Tensor, img: Tensor | None, radii: tuple[float, float]
    ):
        self.style, self.stage, self.img, self.radii = style, stage, img, radii
        self.starts = [w.detach(), x.detach()]
        self.parameters = [t.clone().requires_grad_(True) for t in self.starts]
        self.bound = 0.0

    def draw(self) -> tuple[Tensor, Tensor]:
        return self.parameters[0], self.parameters[1]

    def paint(self, drawn: tuple[Tensor, Tensor]) -> Tensor:
        """The generator of this stage's search."""
        w, x = drawn
        ws = w[:, None].expand(-1, self.style.num_ws, -1)
        return to_pixels(self.style.run_blocks(ws, self.stage, self.style.n_blocks, x, self.img)[1])

    @torch.no_grad()
    def project(self) -> None:
        for p, start, radius in zip(self.parameters, self.starts, self.radii[::-1]):
            moved = (p - start).flatten(1)
            self.bound = float((moved.abs().sum(1) > radius).float().mean())
            p.copy_(start + l1_ball(moved, radius).view_as(p))
