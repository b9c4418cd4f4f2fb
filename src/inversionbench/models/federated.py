"""The networks that federated clients train, by name.

All have one shape: `Normalise`, then a body that ends in the linear layer `head`. Attacks search in the space
behind `Normalise` (about zero mean and unit range) and call `body`; metrics use pixels in [0, 1].

- lenet: three 5x5 convolutions with strides 2, 2, 1, then `head`; the network of DLG (Zhu et al., NeurIPS
  2019). init "uniform": all weights and biases from U(-0.5, 0.5), the state that DLG and iDLG attack.
- convnet: 3x3 convolution, (batch norm,) activation, average pooling by 2, once per width.
- resnet8, resnet20: three stages of one or three basic blocks; resnet18: four stages of two. 32x32 stem.
- mlp: linear layers, the first of them on the pixels.
- vit: a small vision transformer, mean of the tokens before `head`.

Batch normalisation is our own module: what it normalises with is a declared mode, never a side effect of
train() or eval(), and a forward pass never changes its running statistics unless asked to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.models._federated_names import VICTIMS, check_victim
from inversionbench.models._own_names import NAME as OWN
from inversionbench.models.base import Trace

MEAN, STD = 0.5, 0.25  # public constants of every victim: pixels in [0, 1] become values in [-2, 2]
UNIFORM = 0.5  # bound of the "uniform" initialisation
BN_MODES = ("eval_public", "train_private", "train_shared")
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
}


class Normalise(nn.Module):
    """(x - mean) / std. x: (n, c, h, w) in [0, 1]."""

    def __init__(self, mean: float = MEAN, std: float = STD):
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def pixels(self, x: Tensor) -> Tensor:
        """Back to pixels, not clamped."""
        return x * self.std + self.mean

    @property
    def box(self) -> tuple[float, float]:
        """What pixels 0 and 1 become."""
        return (0 - self.mean) / self.std, (1 - self.mean) / self.std


class BatchNorm(nn.Module):
    """Batch normalisation over (batch, height, width) of (n, c, h, w).

    batch: normalise with the statistics of the batch (True) or with the running ones (False). track: update
    the running statistics (the server's public buffers). The statistics of the last batch are kept in `seen`
    as (mean, biased variance) when `record` is on.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.eps, self.momentum = eps, momentum
        self.batch = self.track = self.record = False
        self.seen: tuple[Tensor, Tensor] | None = None

    def mode(self, name: str) -> None:
        """How to normalise while a client computes: one of `BN_MODES`."""
        self.batch, self.record = name != "eval_public", name == "train_shared"

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        if self.batch or self.track or self.record:
            own_var, own_mean = torch.var_mean(x, dim=(0, 2, 3), unbiased=False)
            if self.record:
                self.seen = (own_mean, own_var)
            if self.track:
                n = x.numel() // x.shape[1]
                with torch.no_grad():
                    self.running_mean.lerp_(own_mean, self.momentum)
                    self.running_var.lerp_(own_var * (n / max(1, n - 1)), self.momentum)
            if self.batch:
                mean, var = own_mean, own_var
        scale = self.weight * (var + self.eps).rsqrt()
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]


class LayerNorm(nn.Module):
    """Layer norm over the last axis, in plain operations.

    `torch.nn.LayerNorm` cannot be used: under `torch.func.vmap` its second derivative is wrong (torch 2.13, by
    tens of percent in the input gradient of a gradient, against finite differences).
    """

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        scale = (centred.square().mean(dim=-1, keepdim=True) + self.eps).rsqrt()
        return centred * scale * self.weight + self.bias


class Residual(nn.Module):
    """activation(body(x) + shortcut(x))."""

    def __init__(self, body: nn.Sequential, shortcut: nn.Sequential, activation: nn.Module):
        super().__init__()
        self.body, self.shortcut, self.activation = body, shortcut, activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


class GlobalAverage(nn.Module):
    """(n, c, h, w) -> (n, c): the mean over all positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class Patches(nn.Module):
    """(n, c, h, w) -> tokens (n, patches, width), with learned positions."""

    def __init__(self, channels: int, size: int, patch: int, width: int):
        super().__init__()
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.position = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(x).flatten(2).transpose(1, 2) + self.position


class Block(nn.Module):
    """One pre-norm transformer block on (n, tokens, width)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, w = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) * (w // self.heads) ** -0.5).softmax(dim=-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(n, t, w))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class MeanToken(nn.Module):
    """(n, tokens, width) -> (n, width), after a layer norm."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x).mean(dim=1)


class Victim(nn.Module):
    """`front` (Normalise), then `body`, a sequence whose last module is the linear `head`.

    forward: (n, c, h, w) in [0, 1] -> logits (n, classes).
    """

    def __init__(self, body: nn.Sequential, shape: tuple[int, int, int], classes: int):
        super().__init__()
        self.front, self.body = Normalise(), body
        self.shape, self.classes = shape, classes

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.front(x))

    def trace(self, x: Tensor) -> Trace:
        hidden: dict[str, Tensor] = {}
        features = self.front(x)
        for name, module in list(self.body.named_children())[:-1]:
            features = hidden[f"body.{name}"] = module(features)
        return Trace(self.head(features), features, hidden)

    def features(self, x: Tensor) -> Tensor:
        """What the head reads, (n, width); x in normalised space."""
        return self.body[:-1](x)

    @property
    def head(self) -> nn.Linear:
        return self.body[-1]  # type: ignore[return-value]

    @property
    def head_names(self) -> tuple[str, str]:
        """Names of the head's weight (classes, width) and bias (classes,) among the parameters."""
        last = f"body.{list(self.body._modules)[-1]}"
        return f"{last}.weight", f"{last}.bias"

    def batch_norms(self) -> list[BatchNorm]:
        return [m for m in self.modules() if isinstance(m, BatchNorm)]

    def bn_mode(self, mode: str) -> Victim:
        """Set how batch norms normalise while a client computes: see `BN_MODES`."""
        if mode not in BN_MODES:
            raise ValueError(f"bn: expected one of {', '.join(BN_MODES)}, got '{mode}'")
        for norm in self.batch_norms():
            norm.mode(mode)
        return self


def build(
    model: Mapping[str, Any], shape: tuple[int, int, int], classes: int, rng: torch.Generator
) -> Victim:
    """A network by name, freshly initialised from `rng` (the global generator is left as it was).

    model: {"name": ..., options of `VICTIMS`}. shape: (channels, height, width). Unknown names and options
    are `UserError`s.
    """
    check_victim(model, "model")
    if model["name"] == OWN:
        return _own(model, shape, classes, rng)
    options = {**VICTIMS[model["name"]], **{k: v for k, v in model.items() if k != "name"}}
    state = torch.get_rng_state()
    torch.manual_seed(int(torch.randint(2**31, (1,), generator=rng)))
    try:
        layers = _LAYERS[model["name"]](options, shape)
        width = nn.Sequential(*layers)(torch.zeros(1, *shape)).shape[1]
        victim = Victim(nn.Sequential(*layers, nn.Linear(width, classes)), shape, classes)
        if options["init"] == "uniform":
            for parameter in victim.parameters():
                nn.init.uniform_(parameter, -UNIFORM, UNIFORM)
    finally:
        torch.set_rng_state(state)
    return victim.eval()


def _own(model: Mapping[str, Any], shape: tuple[int, int, int], classes: int, rng: torch.Generator) -> Victim:
    from inversionbench.models.own import OwnVictim, made

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=rng)))
        net, inputs = made(model, shape, classes)
    return OwnVictim(net, shape, inputs).eval()


def _lenet(o: Mapping[str, Any], shape: tuple[int, int, int]) -> list[nn.Module]:
    act, c = ACTIVATIONS[o["activation"]], o["channels"]
    layers: list[nn.Module] = []
    for inputs, stride in ((shape[0], 2), (c, 2), (c, 1)):
        layers += [nn.Conv2d(inputs, c, 5, stride=stride, padding=2), act()]
    return [*layers, nn.Flatten()]


def _convnet(o: Mapping[str, Any], shape: tuple[int, int, int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    inputs = shape[0]
    for width in o["widths"]:
        layers += [nn.Conv2d(inputs, width, 3, padding=1), *_norm(o, width)]
        layers += [ACTIVATIONS[o["activation"]](), nn.AvgPool2d(2)]
        inputs = width
    return [*layers, nn.Flatten()]


def _mlp(o: Mapping[str, Any], shape: tuple[int, int, int]) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = shape[0] * shape[1] * shape[2]
    for width in o["widths"]:
        layers += [nn.Linear(inputs, width), ACTIVATIONS[o["activation"]]()]
        inputs = width
    return layers


def _resnet(blocks: tuple[int, ...]) -> Any:
    def layers(o: Mapping[str, Any], shape: tuple[int, int, int]) -> list[nn.Module]:
        act, width = ACTIVATIONS[o["activation"]], o["width"]
        out: list[nn.Module] = [nn.Conv2d(shape[0], width, 3, padding=1, bias=False), *_norm(o, width), act()]
        inputs = width
        for stage, count in enumerate(blocks):
            for i in range(count):
                stride, outputs = 2 if stage and not i else 1, width * 2**stage
                out.append(_basic(o, inputs, outputs, stride))
                inputs = outputs
        return [*out, GlobalAverage()]

    return layers


def _basic(o: Mapping[str, Any], inputs: int, outputs: int, stride: int) -> Residual:
    act = ACTIVATIONS[o["activation"]]
    body = nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), *_norm(o, outputs), act(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), *_norm(o, outputs),
    )  # fmt: skip
    shortcut = nn.Sequential()
    if stride > 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), *_norm(o, outputs))
    return Residual(body, shortcut, act())


def _vit(o: Mapping[str, Any], shape: tuple[int, int, int]) -> list[nn.Module]:
    blocks = [Block(o["width"], o["heads"]) for _ in range(o["depth"])]
    return [Patches(shape[0], shape[1], o["patch"], o["width"]), *blocks, MeanToken(o["width"])]


def _norm(o: Mapping[str, Any], channels: int) -> list[nn.Module]:
    return [BatchNorm(channels)] if o["norm"] == "batch" else []


_LAYERS: dict[str, Any] = {
    "lenet": _lenet,
    "convnet": _convnet,
    "mlp": _mlp,
    "resnet8": _resnet((1, 1, 1)),
    "resnet18": _resnet((2, 2, 2, 2)),
    "resnet20": _resnet((3, 3, 3)),
    "vit": _vit,
}
