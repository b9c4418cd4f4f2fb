"""Classifiers by name. Images come in [0, 1]; resizing and normalisation are the model's own first layers.

Every network here is a `Staged`: named blocks in a row, then a pooling to penultimate features, then one
linear layer to logits. `trace` reports all three, so defenses and attacks need no hooks into a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.seeds import draw_seed
from inversionbench.models._own_names import NAME as OWN
from inversionbench.models.base import Trace, channels_last
from inversionbench.models.names import check_model


class Normalise(nn.Module):
    """(x - mean) / sd with one mean and sd for all channels, after resizing to `side` pixels if given."""

    def __init__(self, mean: float = 0.5, sd: float = 0.5, side: int | None = None):
        super().__init__()
        self.mean, self.sd, self.side = mean, sd, side

    def forward(self, x: Tensor) -> Tensor:
        if self.side and x.shape[-1] != self.side:
            size = (self.side, self.side)
            x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        return (x - self.mean) / self.sd


class Staged(nn.Module):
    """blocks: name -> module, applied in a row; pool: last block's output -> features; head: -> logits."""

    def __init__(self, first: nn.Module, blocks: Mapping[str, nn.Module], pool: nn.Module, head: nn.Linear):
        super().__init__()
        self.first = first
        self.blocks = nn.ModuleDict(blocks)
        self.pool = pool
        self.head = head

    def trace(self, x: Tensor) -> Trace:
        h = self.first(x)
        hidden = {}
        for name, block in self.blocks.items():
            h = block(h)
            hidden[name] = h
        features = self.pool(h)
        return Trace(self.head(features), features, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.trace(x).logits


def build(model: Mapping[str, Any], shape: tuple[int, ...], classes: int) -> nn.Module:
    """A freshly initialised classifier.

    model: {"name": one of `names.CLASSIFIERS`, its options}. shape: of one input, (channels, height, width),
    or (columns,) for softmax and mlp. Weights come from the global generator (`fit` seeds it).
    """
    check_model(model, "model")
    options = {k: v for k, v in model.items() if k != "name"}
    name = model["name"]
    if name == OWN:
        from inversionbench.models.own import OwnClassifier, made

        return OwnClassifier(*made(model, shape, classes))
    if name in SMALL:
        return SMALL[name](shape, classes, **options)
    from inversionbench.models.large import LARGE

    return LARGE[name](shape, classes, **options)


def drawn(
    model: Mapping[str, Any], shape: tuple[int, ...], classes: int
) -> Callable[[torch.Generator], nn.Module]:
    """What builds such a classifier with weights from a given generator."""

    def factory(rng: torch.Generator) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(rng))
            return build(model, shape, classes)

    return factory


def conv(a: int, b: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """Without bias: a normalisation follows."""
    return nn.Conv2d(a, b, size, stride, size // 2, bias=False)


def flat_pool(side: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(side), nn.Flatten())


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of six channels, or of the nearest smaller number that divides them."""
    return nn.GroupNorm(channels // max(d for d in range(1, 7) if channels % d == 0), channels)


def softmax(shape: tuple[int, ...], classes: int) -> Staged:
    """Softmax regression on raw inputs; no hidden block, the features are the input itself."""
    return Staged(nn.Flatten(), {}, nn.Identity(), nn.Linear(math.prod(shape), classes))


def mlp(shape: tuple[int, ...], classes: int, hidden: int = 3000, activation: str = "sigmoid") -> Staged:
    """One hidden layer, as in the first face attack (3000 sigmoid units); activation: sigmoid | relu."""
    kinds: dict[str, Callable[[], nn.Module]] = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}
    layer = nn.Sequential(nn.Linear(math.prod(shape), hidden), kinds[activation]())
    return Staged(nn.Flatten(), {"hidden": layer}, nn.Identity(), nn.Linear(hidden, classes))


def cnn(shape: tuple[int, ...], classes: int, width: int = 24, norm: str = "batch") -> Staged:
    """Four convolutions of 1, 2, 3, 4 x width channels; 148 k parameters at width 24 and 50 classes. norm: batch |
    group (in groups of about six channels: no image sees another one, which private training needs)."""
    planes: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "group": group_norm}
    rows: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm1d, "group": group_norm}
    widths = [width, 2 * width, 3 * width, 4 * width]
    blocks: dict[str, nn.Module] = {}
    before = shape[0]
    for i, after in enumerate(widths):
        layer = conv(before, after, 5, 2) if i == 0 else conv(before, after)
        steps = [layer, planes[norm](after), nn.ReLU()]
        blocks[f"block{i + 1}"] = nn.Sequential(*steps, *([nn.MaxPool2d(2)] if i else []))
        before = after
    narrow = nn.Linear(4 * before, before, bias=False)
    pool = nn.Sequential(flat_pool(2), narrow, rows[norm](before), nn.ReLU())
    return Staged(Normalise(), blocks, pool, nn.Linear(before, classes))


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut; halves the resolution where stride is 2."""

    def __init__(self, a: int, b: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            conv(a, b, 3, stride), nn.BatchNorm2d(b), nn.ReLU(), conv(b, b), nn.BatchNorm2d(b)
        )
        same = a == b and stride == 1
        shortcut = nn.Sequential(conv(a, b, 1, stride), nn.BatchNorm2d(b))
        self.short: nn.Module = nn.Identity() if same else shortcut

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.short(x))


def resnet(shape: tuple[int, ...], classes: int, width: int = 20, features: int = 128) -> Staged:
    """Three residual blocks of 1, 2, 4 x width channels, batch normalisation."""
    blocks: dict[str, nn.Module] = {
        "stem": nn.Sequential(conv(shape[0], width), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2))
    }
    before = width
    for i, (after, stride) in enumerate([(width, 1), (2 * width, 2), (4 * width, 2)]):
        blocks[f"block{i + 1}"] = Residual(before, after, stride)
        before = after
    pool = nn.Sequential(flat_pool(2), nn.Linear(4 * before, features), nn.ReLU())
    return Staged(Normalise(), blocks, pool, nn.Linear(features, classes))


def plain(shape: tuple[int, ...], classes: int, width: int = 24, features: int = 128) -> Staged:
    """Pairs of convolutions with SiLU and mean pooling: no shortcut, no ReLU, no maximum, so its blind spots
    are not those of `cnn` and `resnet`."""
    blocks: dict[str, nn.Module] = {}
    before = shape[0]
    for i, after in enumerate([width, 2 * width, 4 * width]):
        first = conv(before, after, 3, 2 if i == 0 else 1)
        blocks[f"block{i + 1}"] = nn.Sequential(
            first, nn.BatchNorm2d(after), nn.SiLU(), conv(after, after), nn.BatchNorm2d(after), nn.SiLU(),
            *([nn.AvgPool2d(2)] if i < 2 else []),
        )
        before = after
    pool = nn.Sequential(flat_pool(2), nn.Linear(4 * before, features), nn.SiLU())
    return Staged(Normalise(), blocks, pool, nn.Linear(features, classes))


SMALL: dict[str, Callable[..., nn.Module]] = {
    "softmax": softmax, "mlp": mlp, "cnn": cnn, "resnet": resnet, "plain": plain,
}


def freeze(model: nn.Module) -> nn.Module:
    """Evaluation mode, no gradients to the parameters (a third of the work saved), convolutions stored
    channels last (faster on a CPU)."""
    return channels_last(model.eval().requires_grad_(False))


def load(
    model: Mapping[str, Any], shape: tuple[int, ...], classes: int, state: Mapping[str, Tensor]
) -> nn.Module:
    """A trained classifier from its state, frozen."""
    with torch.random.fork_rng(devices=[]):
        net = build(model, shape, classes)
    net.load_state_dict(dict(state))
    return freeze(net)
