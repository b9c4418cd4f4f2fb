"""Style-based generator and critic (Karras et al., CVPR 2020), small enough to train on a CPU.

    z (n, z_dim) ── mapping ──▶ ws (n, num_ws, w_dim) ── truncate ──▶ ws ── synthesis ──▶ image, about [-1, 1]

Block 0 starts from a learned constant and has one modulated convolution; every later block doubles the
resolution and has two. Each ends in a layer to colours, and the image is the sum of the upsampled colours of
all blocks (skip form), so between two blocks the state is a pair (features x, image so far). A convolution
reads one of the ws; the colour layer of a block reads the same one as the first convolution after it.

Attacks that search hidden features start in the middle: `run_blocks(ws, i, n_blocks, x, img)`. With the img
that block i - 1 left, the composition is exact; with None the colours of all blocks before i are dropped, as
the released codes of such attacks do, and the image jumps.

Modulation scales the channels at the input, demodulation those at the output, which equals scaling the
weights of every sample. Upsampling is bilinear (the [1, 3, 3, 1] filter, edges repeated).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.models.generators import stages

SLOPE = 0.2  # of the leaky rectifiers; the search in P space of some attacks inverts the last one
GAIN = 2**0.5  # keeps the variance behind a leaky rectifier
EPS = 1e-8
NOISE_MODES = ("const", "random", "none")
Noises = Sequence[Tensor | None]


class EqualLinear(nn.Module):
    """Linear layer with weights of unit variance, scaled when used: every weight learns at the same pace.

    rate: factor on the learning rate of this layer. bias: its value at the start.
    """

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, rate: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate = rate / inputs**0.5, rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class EqualConv(nn.Module):
    """The same for a k x k convolution that keeps the size."""

    def __init__(self, inputs: int, outputs: int, k: int, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, k, k))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale, self.padding = (inputs * k * k) ** -0.5, k // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE) * GAIN


class Modulated(nn.Module):
    """Convolution whose weights W'_oikl = s_i W_oikl depend on w through s = affine(w); demodulated to
    W'' = W' / sqrt(sum_ikl W'^2 + eps). x: (n, inputs, h, w), w: (n, w_dim).
    """

    def __init__(self, inputs: int, outputs: int, k: int, w_dim: int, demodulate: bool = True):
        super().__init__()
        self.affine = EqualLinear(w_dim, inputs, bias=1.0)
        self.conv = EqualConv(inputs, outputs, k, bias=False)
        self.demodulate = demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        y, scale = self.parts(x, w)
        return y if scale is None else y * scale[:, :, None, None]

    def parts(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """The convolution (n, outputs, h, w) and the demodulating factors (n, outputs) still to be applied."""
        s = self.affine(w)
        y = self.conv(x * s[:, :, None, None])
        if not self.demodulate:
            return y, None
        energy = (self.conv.weight * self.conv.scale).square().sum((2, 3))
        return y, (s.square() @ energy.T + EPS).rsqrt()


class Layer(nn.Module):
    """Modulated 3 x 3 convolution, noise of a learned strength, bias, leaky rectifier."""

    def __init__(self, inputs: int, outputs: int, w_dim: int):
        super().__init__()
        self.conv = Modulated(inputs, outputs, 3, w_dim)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """leaky(scale * y + noise + bias); its gain, positive, is taken inside: fewer passes over the pixels."""
        y, scale = self.conv.parts(x, w)
        assert scale is not None
        scale, bias = GAIN * scale[:, :, None, None], (GAIN * self.bias)[:, None, None]
        y = y * scale if noise is None else torch.addcmul((GAIN * self.strength) * noise, y, scale)
        return F.leaky_relu(y + bias, SLOPE)


class Block(nn.Module):
    """One resolution: (x, img) of half of it -> (x, img); without `before` it starts from a constant."""

    def __init__(self, before: int | None, channels: int, side: int, w_dim: int, colours: int):
        super().__init__()
        if before is None:
            self.start = nn.Parameter(torch.randn(channels, side, side))
        widths = [channels] if before is None else [before, channels]
        self.first = before is None
        self.layers = nn.ModuleList(Layer(a, channels, w_dim) for a in widths)
        self.colour = Modulated(channels, colours, 1, w_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(colours))

    def forward(
        self, x: Tensor | None, img: Tensor | None, ws: Tensor, noises: Noises
    ) -> tuple[Tensor, Tensor]:
        """ws: (n, layers + 1, w_dim). x and img None: the constant, and no colours before."""
        if self.first:
            h = self.start.expand(len(ws), *self.start.shape)
        else:
            assert x is not None
            h = upsample(x)
        for i, layer in enumerate(self.layers):
            h = layer(h, ws[:, i], noises[i])
        rgb = self.colour(h, ws[:, len(self.layers)]) + self.bias[:, None, None]
        return h, rgb if img is None else upsample(img) + rgb


def upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class StyleGenerator(nn.Module):
    """The generator and the interface of the attacks that search its inner spaces.

    channels: features of each block, from the coarsest; colours, side: of the image. `w_mean`: (w_dim,), the
    mean of the mapping, to which truncation pulls. Attributes z_dim, w_dim, num_ws, n_blocks, resolution,
    block_resolutions.
    """

    def __init__(self, z_dim: int, w_dim: int, channels: Sequence[int], colours: int, side: int, depth: int = 2):
        super().__init__()
        doublings = stages(side)
        if len(channels) != doublings + 1:
            raise ValueError(f"channels: {side} pixels need {doublings + 1} blocks, got widths {tuple(channels)}")
        self.z_dim, self.w_dim, self.resolution, self.colours = z_dim, w_dim, side, colours
        self.block_resolutions = [side >> (doublings - i) for i in range(doublings + 1)]
        self.n_blocks = len(channels)
        self.num_ws = 2 * self.n_blocks
        self.channels = tuple(channels)
        sizes = [z_dim, *[w_dim] * depth]
        self.map = nn.ModuleList(EqualLinear(a, b, rate=0.01) for a, b in pairwise(sizes))
        self.blocks = nn.ModuleList(
            Block(None if i == 0 else channels[i - 1], channels[i], r, w_dim, colours)
            for i, r in enumerate(self.block_resolutions)
        )
        self.register_buffer("w_mean", torch.zeros(w_dim))
        self.w_mean: Tensor
        for i, shape in enumerate(self.noise_shapes):
            self.register_buffer(f"noise{i}", torch.randn(1, *shape))

    @property
    def noise_shapes(self) -> list[tuple[int, int, int]]:
        """(1, side, side) of the noise of each convolution."""
        return [(1, r, r) for i, r in enumerate(self.block_resolutions) for _ in range(1 + (i > 0))]

    @property
    def feature_shapes(self) -> list[tuple[int, int, int]]:
        """(channels, side, side) of f_i, what block i - 1 hands to block i; i = 1 .. n_blocks - 1."""
        return [(c, r, r) for c, r in zip(self.channels[:-1], self.block_resolutions[:-1])]

    @property
    def noises(self) -> list[Tensor]:
        """The fixed noise maps, each (1, 1, side, side)."""
        return [getattr(self, f"noise{i}") for i in range(2 * self.n_blocks - 1)]

    def style(self, z: Tensor) -> Tensor:
        """z (n, z_dim), brought to unit mean square, to w (n, w_dim)."""
        h = z * (z.square().mean(1, keepdim=True) + EPS).rsqrt()
        for layer in self.map:
            h = leaky(layer(h))
        return h

    def mapping(self, z: Tensor, truncation_psi: float = 1.0, truncation_cutoff: int | None = None) -> Tensor:
        """z (n, z_dim) to ws (n, num_ws, w_dim): one w for all layers, truncated."""
        return self.truncate(self.style(z)[:, None].expand(-1, self.num_ws, -1), truncation_psi, truncation_cutoff)

    def truncate(self, ws: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
        """w_mean + psi (w - w_mean) for the layers before `cutoff` (None: all)."""
        if psi == 1:
            return ws
        near = torch.lerp(self.w_mean, ws, psi)
        return near if cutoff is None else torch.cat([near[:, :cutoff], ws[:, cutoff:]], dim=1)

    def synthesis(self, ws: Tensor, noise_mode: str = "const", rng: torch.Generator | None = None) -> Tensor:
        """ws (n, num_ws, w_dim) to images (n, colours, side, side), about [-1, 1], not clamped.

        noise_mode: const (the fixed maps: the same ws give the same image), random (fresh, from rng), none.
        """
        if noise_mode not in NOISE_MODES:
            raise ValueError(f"noise_mode: expected one of {', '.join(NOISE_MODES)}, got '{noise_mode}'")
        noises: Noises | None = None
        if noise_mode == "none":
            noises = [None] * len(self.noise_shapes)
        elif noise_mode == "random":
            noises = [torch.randn(len(ws), *s, generator=rng).to(ws.device) for s in self.noise_shapes]
        return self.run_blocks(ws, 0, self.n_blocks, noises=noises)[1]

    def run_blocks(
        self,
        ws: Tensor,
        start: int,
        stop: int,
        x: Tensor | None = None,
        img: Tensor | None = None,
        noises: Noises | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Blocks start to stop - 1 from the state (x, img) that block start - 1 left; returns the next state.

        ws: all of them, (n, num_ws, w_dim). noises: all of them, each (1 or n, 1, side, side); None: the fixed
        ones. img None at start > 0 drops the colours of the earlier blocks. Differentiable in all arguments.
        """
        if not 0 <= start < stop <= self.n_blocks or (start > 0) != (x is not None):
            raise ValueError(f"run_blocks: 0 <= start < stop <= {self.n_blocks}, x where start > 0; got {start} {stop}")
        maps = self.noises if noises is None else noises
        for i in range(start, stop):
            k, count = max(0, 2 * i - 1), 1 + (i > 0)
            x, img = self.blocks[i](x, img, ws[:, k : k + count + 1], maps[k : k + count])
        assert x is not None
        assert img is not None
        return x, img

    def forward(self, z: Tensor) -> Tensor:
        """z (n, z_dim) to images (n, colours, side, side) in [0, 1]."""
        return to_pixels(self.synthesis(self.mapping(z))).clamp(0, 1)


def to_pixels(img: Tensor) -> Tensor:
    """The generator's range to pixels, not clamped."""
    return (img + 1) / 2


class StyleCritic(nn.Module):
    """Residual critic with the standard deviation over the batch as a last feature: images in [0, 1] -> (n,).

    channels: of each resolution, from the finest.
    """

    def __init__(self, channels: Sequence[int], colours: int, side: int, group: int = 4):
        super().__init__()
        self.group = group
        self.inputs = EqualConv(colours, channels[0], 1)
        self.first = nn.ModuleList(EqualConv(a, a, 3) for a in channels[:-1])
        self.second = nn.ModuleList(EqualConv(a, b, 3) for a, b in pairwise(channels))
        self.short = nn.ModuleList(EqualConv(a, b, 1, bias=False) for a, b in pairwise(channels))
        last, low = channels[-1], side >> (len(channels) - 1)
        self.mix = EqualConv(last + 1, last, 3)
        self.hidden, self.out = EqualLinear(last * low * low, last), EqualLinear(last, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = leaky(self.inputs(x * 2 - 1))
        for first, second, short in zip(self.first, self.second, self.short):
            deep = leaky(second(F.avg_pool2d(leaky(first(h)), 2)))
            h = (deep + short(F.avg_pool2d(h, 2))) / GAIN
        h = leaky(self.mix(torch.cat([h, self._spread(h)], dim=1)))
        return self.out(leaky(self.hidden(h.flatten(1)))).flatten()

    def _spread(self, h: Tensor) -> Tensor:
        """Mean over features of the deviation inside groups of images: (n, 1, side, side)."""
        n = len(h)
        size = self.group if n % self.group == 0 else n
        rows = h.view(size, n // size, *h.shape[1:])
        spread = (rows.var(dim=0, unbiased=False) + EPS).sqrt().mean(dim=(1, 2, 3))
        return spread.repeat(size)[:, None, None, None].expand(n, 1, *h.shape[2:])
