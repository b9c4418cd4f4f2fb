"""Class-conditional generators and critics: batch normalisation by class, critics with a projection.

A generator takes (z, y) -> images in [0, 1]; a critic (x, y) -> scores (n,). Two forms of each: the published
residual one (Miyato & Koyama, "cGANs with Projection Discriminator", ICLR 2018), and one that grows out of
the convolutional prior, so that a few minutes of a CPU suffice.

    score(x, y) = a . h + <e_y, h>,   h = the trunk's last map, summed over space
"""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from inversionbench.models.generators import Critic, Generator, stages


class ConditionalNorm(nn.Module):
    """Batch normalisation with a gain and a shift for each class, 1 and 0 at the start."""

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm, classes: int):
        super().__init__()
        self.norm = type(norm)(norm.num_features, affine=False)
        self.gain = nn.Parameter(torch.ones(classes, norm.num_features))
        self.shift = nn.Parameter(torch.zeros(classes, norm.num_features))

    def take(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        """Statistics, and for every class the gain and shift, of an unconditional layer."""
        with torch.no_grad():
            self.gain.copy_(norm.weight.expand_as(self.gain))
            self.shift.copy_(norm.bias.expand_as(self.shift))
        own = self.norm.state_dict()
        self.norm.load_state_dict({name: norm.state_dict()[name] for name in own})

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        form = (*y.shape, -1, *[1] * (x.dim() - 2))
        return self.norm(x) * self.gain[y].view(form) + self.shift[y].view(form)


def in_turn(n: int, classes: int, where: torch.device) -> Tensor:
    """Classes 0, 1, 2, ... for n samples of which nobody said the class."""
    return torch.arange(n, device=where) % classes


class ConditionalGenerator(nn.Module):
    """The convolutional generator with conditional in place of its normalisations."""

    def __init__(self, like: Generator, classes: int):
        super().__init__()
        self.classes, self.shape, self.z_dim = classes, like.shape, like.z_dim
        self.layers = nn.ModuleList()
        for layer in (*like.first, *like.body):
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                made = ConditionalNorm(layer, classes)
                made.take(layer)
                self.layers.append(made)
            else:
                self.layers.append(deepcopy(layer))
        self.reshape_at = len(like.first)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        y = in_turn(len(z), self.classes, z.device) if y is None else y
        h = z
        for i, layer in enumerate(self.layers):
            if i == self.reshape_at:
                h = h.view(-1, *self.shape)
            h = layer(h, y) if isinstance(layer, ConditionalNorm) else layer(h)
        return (torch.tanh(h) + 1) / 2


class ProjectionCritic(Critic):
    """The convolutional critic with spectral norm; `projection` is e_y."""

    def __init__(self, width: int, channels: int, side: int, classes: int):
        super().__init__(width, channels, side, "spectral")
        self.projection = spectral_norm(nn.Embedding(classes, width << (stages(side) - 1)))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        h = self.body[:-1](x * 2 - 1)
        return self.body[-1](h).flatten() + (h.sum((2, 3)) * self.projection(y)).sum(1)


class _Up(nn.Module):
    """Residual block of a generator: doubles the side."""

    def __init__(self, a: int, b: int, classes: int):
        super().__init__()
        self.norms = nn.ModuleList([ConditionalNorm(nn.BatchNorm2d(n), classes) for n in (a, b)])
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, b, 3, padding=1)])
        self.short = nn.Conv2d(a, b, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.convs[0](_double(F.relu(self.norms[0](x, y))))
        h = self.convs[1](F.relu(self.norms[1](h, y)))
        return h + self.short(_double(x))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class ResidualGenerator(nn.Module):
    """Linear to 4 x 4 (7 x 7), a residual block per doubling, width of the last one; the first map has
    width * 2**stages channels."""

    def __init__(self, z_dim: int, width: int, channels: int, side: int, classes: int):
        super().__init__()
        n = stages(side)
        self.z_dim, self.classes = z_dim, classes
        self.shape = (width << n, side >> n, side >> n)
        self.first = nn.Linear(z_dim, self.shape[0] * self.shape[1] ** 2)
        self.blocks = nn.ModuleList([_Up(width << (n - i), width << (n - i - 1), classes) for i in range(n)])
        self.last = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, channels, 1))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        y = in_turn(len(z), self.classes, z.device) if y is None else y
        h = self.first(z).view(-1, *self.shape)
        for block in self.blocks:
            h = block(h, y)
        return (torch.tanh(self.last(h)) + 1) / 2


class _Down(nn.Module):
    """Residual block of a critic: halves the side; the first one of all has no rectifier before it."""

    def __init__(self, a: int, b: int, first: bool):
        super().__init__()
        self.first = first
        self.convs = nn.ModuleList(
            [spectral_norm(nn.Conv2d(a, b, 3, padding=1)), spectral_norm(nn.Conv2d(b, b, 3, padding=1))]
        )
        self.short = spectral_norm(nn.Conv2d(a, b, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.first else F.relu(x)
        h = self.convs[1](F.relu(self.convs[0](h)))
        return F.avg_pool2d(h, 2) + self.short(F.avg_pool2d(x, 2))


class ResidualCritic(nn.Module):
    """Residual blocks of width 1, 2, 4, ... x width, one more than doublings of the generator."""

    def __init__(self, width: int, channels: int, side: int, classes: int):
        super().__init__()
        widths = [channels, *(width << i for i in range(stages(side) + 1))]
        self.body = nn.Sequential(
            *(_Down(a, b, first=i == 0) for i, (a, b) in enumerate(pairwise(widths))), nn.ReLU()
        )
        self.last = spectral_norm(nn.Linear(widths[-1], 1))
        self.projection = spectral_norm(nn.Embedding(classes, widths[-1]))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.body(x * 2 - 1).sum((2, 3))
        return self.last(h)[:, 0] + (h * self.projection(y)).sum(1)
