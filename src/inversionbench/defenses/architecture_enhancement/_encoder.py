"""The encoder that a client of RVE-PFL keeps for itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inversionbench.defenses.architecture_enhancement.rve_pfl import BOUND

CELL = 4  # the second convolution's maps are averaged over cells of this side


class Encoder(nn.Module):
    """Images (n, c, h, w) in [0, 1] to mean and log variance of a code, both (n, c, h, w)."""

    def __init__(self, shape: tuple[int, ...], width: int, hidden: int):
        super().__init__()
        c, h, w = shape
        self.shape = shape
        self.body = nn.Sequential(
            nn.Conv2d(c, width, 3), nn.ReLU(), nn.Conv2d(width, 2 * width, 3), nn.ReLU(),
            nn.AvgPool2d(CELL), nn.Flatten(),
        )  # fmt: skip
        inner = 2 * width * ((h - 4) // CELL) * ((w - 4) // CELL)
        self.hidden = nn.Linear(inner, hidden)
        self.mean, self.log_var = nn.Linear(hidden, c * h * w), nn.Linear(hidden, c * h * w)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = self.hidden(self.body(x))
        mean, log_var = (head(a).unflatten(1, self.shape) for head in (self.mean, self.log_var))
        return mean, torch.clamp(log_var, -BOUND, BOUND)
