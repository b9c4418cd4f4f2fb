"""A network in two halves: the client's, from inputs to features, and the server's, from features to logits.

    x ── client ──▶ z ── release ──▶ what is sent ── server ──▶ logits

`split_cnn`, for images of any size, which are padded to a multiple of 8; after which stage it is cut is `cut`:

    1: conv w1, conv w1, pool | 2: conv w2, pool | 3: conv w3, pool | linear

Every convolution is 3x3 and followed by a ReLU. `split_decoder`, for token numbers (n, places): embeddings and the
first `cut` blocks of `models.text.Decoder` | the others, norm and head. A defense that changes the architecture changes
the two sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inversionbench.models.base import Trace
from inversionbench.models.classifiers import Normalise
from inversionbench.models.text import Decoder

Release = Callable[[Tensor, "Halves"], Tensor]


class Halves(nn.Module):
    """client, server: sequences of modules. release: what is sent of the client's features, None: the features."""

    def __init__(self, client: nn.Sequential, server: nn.Sequential, release: Release | None = None):
        super().__init__()
        self.client, self.server, self.release = client, server, release

    def send(self, x: Tensor) -> Tensor:
        """What leaves the client for inputs x."""
        z = self.client(x)
        return self.release(z, self) if self.release else z

    def trace(self, x: Tensor) -> Trace:
        """hidden: the client's `features` before the release."""
        z = self.client(x)
        return Trace(self.server(self.release(z, self) if self.release else z), None, {"features": z})

    def forward(self, x: Tensor) -> Tensor:
        return self.trace(x).logits


def split_cnn(
    shape: tuple[int, ...], classes: int, cut: int = 2, widths: tuple[int, ...] = (16, 32, 64),
    release: Release | None = None,
) -> Halves:
    """The network of the module's docstring, freshly initialised. shape: (channels, height, width)."""
    channels, height, width = shape
    first, second, third = widths
    rest = [(-side) % 8 for side in (width, height)]
    pad = (rest[0] // 2, rest[0] - rest[0] // 2, rest[1] // 2, rest[1] - rest[1] // 2)
    stages = [
        [Normalise(), nn.ZeroPad2d(pad), *_conv(channels, first), *_conv(first, first), nn.MaxPool2d(2)],
        [*_conv(first, second), nn.MaxPool2d(2)],
        [*_conv(second, third), nn.MaxPool2d(2)],
        [nn.Flatten(), nn.Linear(third * (-(-height // 8)) * (-(-width // 8)), classes)],
    ]
    client, server = ([m for stage in part for m in stage] for part in (stages[:cut], stages[cut:]))
    return Halves(nn.Sequential(*client), nn.Sequential(*server), release)


def _conv(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]


class Embedded(nn.Module):
    """Token numbers (n, places) -> (n, places, width): embeddings of tokens and places."""

    def __init__(self, token: nn.Embedding, position: nn.Embedding):
        super().__init__()
        self.token, self.position = token, position

    def forward(self, x: Tensor) -> Tensor:
        return self.token(x) + self.position.weight[: x.shape[1]]


class WordsFirst(nn.Module):
    """(n, places, words) -> (n, words, places), as a loss wants logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def split_decoder(words: int, cut: int, release: Release | None = None, **options: Any) -> Halves:
    """A decoder that says the next of `words` words at every place. options: of `models.text.Decoder`, all."""
    whole = Decoder({**options, "task": "language"}, words, 0)
    client = nn.Sequential(Embedded(whole.token, whole.position), *whole.blocks[:cut])
    return Halves(client, nn.Sequential(*whole.blocks[cut:], whole.norm, whole.head, WordsFirst()), release)


def build(
    model: Mapping[str, Any], shape: tuple[int, ...], classes: int, release: Release | None = None
) -> Halves:
    """The halves that a scenario describes. model: {"name": "split_cnn" or "split_decoder", cut, options}. shape: of
    one input. classes: or words."""
    options = {k: v for k, v in model.items() if k != "name"}
    if model["name"] == "split_decoder":
        return split_decoder(classes, release=release, **{**options, "length": shape[0]})
    return split_cnn(shape, classes, release=release, **options)


@torch.no_grad()
def flops(module: nn.Module, x: Tensor) -> int:
    """Floating-point operations of one pass of x through convolutions and linear layers, two for a multiplication and
    its sum. A layer of another kind that computes much says how much by a method `flops(inputs, output)`."""
    counts: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        own: Callable[[Any, Tensor], int] | None = getattr(layer, "flops", None)
        if own:
            counts.append(int(own(inputs, out)))
        elif isinstance(layer, (nn.Conv2d, nn.Linear)):
            counts.append(2 * out.numel() * layer.weight[0].numel())
        elif isinstance(layer, nn.ConvTranspose2d):
            counts.append(2 * inputs[0].numel() * layer.weight[0].numel())

    handles = [layer.register_forward_hook(count) for layer in module.modules()]
    try:
        module(x)
    finally:
        for handle in handles:
            handle.remove()
    return sum(counts)
