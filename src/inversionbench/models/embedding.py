"""The verifier's network: from an image to a direction, so that images of one person point the same way.

Built after LightCNN (Wu, He, Sun, Tan: A Light CNN for Deep Face Representation with Noisy Labels, TIFS 2018): every
activation is a maximum over two halves of the channels (max-feature-map). No classifier here has it, so that what
fools a target or an evaluator need not fool the verifier.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.models.base import Trace
from inversionbench.models.classifiers import Normalise, conv


class MaxFeature(nn.Module):
    """Convolution to twice the channels, batch normalisation, maximum of the two halves."""

    def __init__(self, a: int, b: int, size: int = 3, stride: int = 1):
        super().__init__()
        self.body = nn.Sequential(conv(a, 2 * b, size, stride), nn.BatchNorm2d(2 * b))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.body(x).chunk(2, 1)
        return torch.maximum(first, second)


class Embedding(nn.Module):
    """`forward`: unit embeddings (batch, features) of images (batch, channels, height, width) in [0, 1]. `trace`: these
    as features, and logits (batch, people) of the people it is taught with."""

    def __init__(self, channels: int, people: int, width: int, features: int):
        super().__init__()
        self.blocks = nn.Sequential(
            Normalise(), nn.AvgPool2d(2),
            MaxFeature(channels, width, 5),
            MaxFeature(width, 2 * width), nn.MaxPool2d(2),
            MaxFeature(2 * width, 3 * width), nn.MaxPool2d(2),
            MaxFeature(3 * width, 4 * width), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.1),
            nn.Linear(64 * width, features, bias=False), nn.BatchNorm1d(features, affine=False),
        )  # fmt: skip
        self.people = nn.Linear(features, people, bias=False)

    def trace(self, x: Tensor) -> Trace:
        features = self.blocks(x)
        return Trace(self.people(features), F.normalize(features))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.blocks(x))
