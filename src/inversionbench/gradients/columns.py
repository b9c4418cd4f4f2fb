"""Windows of images as matrices, and back: the memory side of convolutions as matrix products.

Images are (batch, trials, channels, h, w); matrices have the trial first.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]


def flat(d: Tensor) -> Tensor:
    """(batch, trials, o, h, w) -> (trials, o, batch*h*w); a view for a batch of one."""
    b, t, o = d.shape[:3]
    return d.view(b, t, o, -1).permute(1, 2, 0, 3).reshape(t, o, -1)


def image(y: Tensor, batch: int, size: Pair) -> Tensor:
    """The inverse of `flat`."""
    t, o = y.shape[:2]
    return y.view(t, o, batch, *size).permute(2, 0, 1, 3, 4).contiguous()


class Columns:
    """All k x k windows of an image as the columns of a matrix.

    With `rows`, the matrix is (trials, batch*oh*ow, k*k*c) and memory is copied in runs of k*c values; else
    (trials, c*k*k, batch*oh*ow) in runs of ow values. The longer runs win: short ones cost several times more.
    """

    def __init__(self, c: int, size: Pair, k: int, stride: int, low: int, high: Pair):
        self.c, self.size, self.k, self.stride, self.low, self.high = c, size, k, stride, low, high
        self.padded = (size[0] + low + high[0], size[1] + low + high[1])
        self.out = ((self.padded[0] - k) // stride + 1, (self.padded[1] - k) // stride + 1)
        self.rows = k * c * stride > 1.25 * self.out[1]

    def __call__(self, a: Tensor) -> Tensor:
        b, t, c, h, w = a.shape
        (hp, wp), (oh, ow), k, s, low = self.padded, self.out, self.k, self.stride, self.low
        if not self.rows:
            p = F.pad(a, [low, self.high[1], low, self.high[0]])
            strides = (c * hp * wp, hp * wp, wp, 1, t * c * hp * wp, s * wp, s)
            return p.as_strided((t, c, k, k, b, oh, ow), strides).reshape(t, c * k * k, b * oh * ow)
        p = a.new_zeros(b, t, hp, wp, c)
        p[:, :, low : low + h, low : low + w] = a.permute(0, 1, 3, 4, 2)
        runs = (hp * wp * c, t * hp * wp * c, s * wp * c, s * c, wp * c, 1)
        return p.as_strided((t, b, oh, ow, k, k * c), runs).reshape(t, b * oh * ow, k * k * c)

    def times(self, kernel: Tensor, columns: Tensor, add: Tensor | None = None) -> Tensor:
        """kernel (trials, o, q) times the windows, plus `add`: (trials, o, batch*oh*ow)."""
        m = columns.transpose(1, 2) if self.rows else columns
        return torch.bmm(kernel, m) if add is None else torch.baddbmm(add, kernel, m)

    def outer(self, d: Tensor, columns: Tensor, add: Tensor | None = None) -> Tensor:
        """d (trials, o, batch*oh*ow) times the windows, transposed, plus `add`: (trials, o, q)."""
        m = columns if self.rows else columns.transpose(1, 2)
        return torch.bmm(d, m) if add is None else torch.baddbmm(add, d, m)


class Phases:
    """The input gradient of a convolution as a convolution of the output gradient d.

    At position s i + r (stride s, phase r) it sums d[i + j] w[r + padding - s j] over j: one kernel of m x m
    taps per phase, all applied to the same windows of d.
    """

    def __init__(self, c: int, o: int, k: int, stride: int, padding: int, size: Pair, out: Pair, rows: bool):
        self.c, self.o, self.k, self.stride, self.size, self.kernel_rows = c, o, k, stride, size, rows
        last = (stride - 1 + padding) // stride
        self.offset = stride * last - padding
        m = self.m = -(-(self.offset + k) // stride)
        cells = [-(-n // stride) for n in size]
        high = (cells[0] - 1 + last - (out[0] - 1), cells[1] - 1 + last - (out[1] - 1))
        self.columns = Columns(o, out, m, 1, m - 1 - last, high)

    def kernel(self, w: Tensor) -> Tensor:
        """Flat kernels (trials, o, q) of the convolution as (trials, s*s*c, m*m*o)."""
        t, k, s, m = len(w), self.k, self.stride, self.m
        if self.kernel_rows:
            w = w.reshape(t, self.o, k, k, self.c).permute(0, 4, 1, 2, 3)
        else:
            w = w.reshape(t, self.o, self.c, k, k).transpose(1, 2)
        if m * s > k:
            end = m * s - self.offset - k
            w = F.pad(w, [self.offset, end, self.offset, end])
        w = w.reshape(t, self.c, self.o, m, s, m, s).flip(3, 5)  # t, c, o, j down, r down, j across, r across
        order = (0, 4, 6, 1, 3, 5, 2) if self.columns.rows else (0, 4, 6, 1, 2, 3, 5)
        return w.permute(order).reshape(t, s * s * self.c, -1)

    def image(self, y: Tensor, batch: int) -> Tensor:
        """(trials, s*s*c, batch*cells) -> (batch, trials, c, h, w)."""
        t, s, (h, w) = len(y), self.stride, self.size
        ch, cw = self.columns.out
        if s == 1:
            out = image(y, batch, (ch, cw))
        else:
            y = y.view(t, s, s, self.c, batch, ch, cw).permute(4, 0, 3, 5, 1, 6, 2)
            out = y.reshape(batch, t, self.c, ch * s, cw * s)
        return out if out.shape[3:] == (h, w) else out[..., :h, :w].contiguous()


def fold(y: Tensor, c: int, k: int, padding: int, batch: int, size: Pair) -> Tensor:
    """Sum of overlapping windows, stride 1: (trials, c*k*k, batch*h*w) -> (batch, trials, c, h, w).

    Same-size convolutions only (2 padding = k - 1). First across, then down: 2 k sums, not k^2.
    """
    t, (h, w) = len(y), size
    v = y.view(t, c, k, k, batch, h, w)
    across = v[:, :, :, padding].clone()
    for j in range(k):
        if move := j - padding:
            ours, theirs = _shift(w, move)
            across[..., ours] += v[:, :, :, j][..., theirs]
    down = across[:, :, padding].clone()
    for i in range(k):
        if move := i - padding:
            ours, theirs = _shift(h, move)
            down[..., ours, :] += across[:, :, i][..., theirs, :]
    return down.permute(2, 0, 1, 3, 4).contiguous()


def _shift(n: int, move: int) -> tuple[slice, slice]:
    """Where output index = input index + move, both in [0, n)."""
    return slice(max(0, move), n + min(0, move)), slice(max(0, -move), n - max(0, move))
