"""Critics that know classes: C logits l(x) and features phi(x); real and fake by their sum.

With Z = sum_k exp l_k(x) and a fake logit fixed to the value `bias` (0 in the paper), the probability that x
is real is D(x) = Z / (Z + exp bias): the (C + 1)-way classifier of semi-supervised GANs (Salimans et al.,
NeurIPS 2016) with one logit too many taken out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.models.base import Trace, trace
from inversionbench.models.classifiers import build
from inversionbench.models.generators import stages


class SoftCritic(nn.Module):
    """Any classifier that reports features as a critic; images (n, c, h, w) in [0, 1]."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        self.bias = nn.Parameter(torch.zeros(()))

    def trace(self, x: Tensor) -> Trace:
        return trace(self.net, x)

    def realness(self, logits: Tensor) -> Tensor:
        """log Z - bias (n,): D(x) is its sigmoid."""
        return logits.logsumexp(1) - self.bias

    def forward(self, x: Tensor) -> Tensor:
        """log D(x): (n,), at most 0, higher is more real."""
        return F.logsigmoid(self.realness(self.trace(x).logits))


def soft_critic(form: str, width: int, shape: tuple[int, ...], classes: int) -> SoftCritic:
    """form: `minibatch`, the published discriminator, or `classifier`, the small CNN of the targets."""
    if form == "minibatch":
        return SoftCritic(_Published(width, shape, classes))
    if form == "classifier":
        model: Mapping[str, Any] = {"name": "cnn", "width": width}
        return SoftCritic(build(model, shape, classes))
    raise ValueError(f"critic: expected minibatch or classifier, got '{form}'")


class _Published(nn.Module):
    """Stride-2 convolutions of 1, 2, 4, 4 x width channels down to 4 x 4 with instance normalisation, then the
    features beside what `_Minibatch` says of the batch, then logits. One convolution fewer at 32 pixels."""

    def __init__(self, width: int, shape: tuple[int, ...], classes: int):
        super().__init__()
        channels, side = shape[0], shape[-1]
        n = stages(side)
        layers: list[nn.Module] = []
        before = channels
        for i in range(n):
            after = width * min(2**i, 4)
            size = 3 if i == n - 1 else 5
            layers += [nn.Conv2d(before, after, size, 2, size // 2), nn.LeakyReLU(0.2)]
            if i:
                layers.insert(-1, nn.InstanceNorm2d(after, affine=True))
            before = after
        self.body = nn.Sequential(*layers, nn.Flatten())
        features = before * (side >> n) ** 2
        self.batch = _Minibatch(features)
        self.head = nn.Linear(features + self.batch.outputs, classes)

    def trace(self, x: Tensor) -> Trace:
        features = self.body(x * 2 - 1)
        return Trace(self.head(torch.cat([features, self.batch(features)], 1)), features)

    def forward(self, x: Tensor) -> Tensor:
        return self.trace(x).logits


class _Minibatch(nn.Module):
    """Minibatch discrimination (Salimans et al. 2016): how near a sample is to the others of its batch.

    In evaluation mode it says 0: an image is judged alone.
    """

    outputs = 64

    def __init__(self, features: int, kernels: int = 50):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(features, self.outputs, kernels))

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return features.new_zeros(len(features), self.outputs)
        m = torch.einsum("nf,fok->nok", features, self.kernel)
        gaps = (m[:, None] - m[None]).abs().sum(3)  # (n, n, outputs)
        return (-gaps).exp().sum(1) - 1
