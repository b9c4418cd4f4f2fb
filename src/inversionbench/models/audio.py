"""Sound as log-mel patches, networks that recognise speakers by them, and back to sound for the ear.

A clip becomes 40 mel bands (60 to 3800 Hz) in frames of 32 ms every 10 ms, in decibels; each band's mean over the
clip is taken away, and with it the recording channel and the mean of the voice; 80 dB become [0, 1] around 0.5.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from inversionbench.models.base import Trace

RATE, WINDOW, HOP, BANDS, LOW, HIGH = 8000, 256, 80, 40, 60.0, 3800.0
FRAMES = 24  # of the window that a network looks at, a quarter of a second
SPAN = 80.0  # decibels in [0, 1]
ROUNDS = 30  # of Griffin and Lim


@cache
def filters() -> Tensor:
    """Triangles on the mel scale, (BANDS, WINDOW // 2 + 1)."""
    def mel(f: Tensor) -> Tensor:
        return 2595 * (1 + f / 700).log10()

    edges = torch.linspace(float(mel(torch.tensor(LOW))), float(mel(torch.tensor(HIGH))), BANDS + 2)
    corners = 700 * (10 ** (edges / 2595) - 1)
    f = torch.arange(WINDOW // 2 + 1) * RATE / WINDOW
    rise = (f - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    fall = (corners[2:, None] - f) / (corners[2:] - corners[1:-1])[:, None]
    triangles = torch.minimum(rise, fall).clamp_min(0)
    narrow = triangles.sum(1) == 0  # a band between two frequencies takes the nearer one
    nearest = (corners[1:-1] * WINDOW / RATE).round().long()
    triangles[narrow, nearest[narrow]] = 1.0
    return triangles / triangles.sum(1, keepdim=True)


def decibels(sound: Tensor) -> Tensor:
    """(n, samples) -> mel bands (n, BANDS, frames), in decibels below the clip's loudest, at most SPAN below."""
    spectrum = torch.stft(sound, WINDOW, HOP, window=torch.hann_window(WINDOW), center=False, return_complex=True)
    level = 10 * (filters() @ spectrum.abs().square()).clamp_min(1e-12).log10()
    return level.sub(level.amax((1, 2), keepdim=True)).clamp_min(-SPAN)


def patches(sound: Tensor, lengths: Tensor) -> list[Tensor]:
    """Clips (n, samples), of `lengths` (n,) samples each, as patches (BANDS, frames) in [0, 1]."""
    out = []
    for clip, length in zip(sound, lengths.tolist()):
        level = decibels(clip[None, : max(length, WINDOW + HOP * (FRAMES - 1))])[0]
        out.append(((level - level.mean(1, keepdim=True)) / SPAN + 0.5).clamp(0, 1))
    return out


def windows(patch: Tensor, hop: int = FRAMES // 2) -> Tensor:
    """(..., BANDS, frames) -> (..., windows, BANDS, FRAMES), one every `hop` frames.

    >>> windows(torch.zeros(3, BANDS, 72)).shape
    torch.Size([3, 5, 40, 24])
    """
    return patch.unfold(-1, FRAMES, hop).movedim(-2, -3)


class SpeakerNet(nn.Module):
    """Convolutions with batch norms, then a mean over time alone ("time": every pitch keeps its place) or mean and
    maximum over both ("global"), then a linear layer. x: (n, 1, BANDS, frames) in [0, 1] -> logits (n, classes)."""

    def __init__(self, width: int, pooling: str, classes: int):
        super().__init__()
        widths = [1, width, 2 * width, 4 * width]
        self.blocks = nn.Sequential(*(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.AvgPool2d(2))
            for a, b in pairwise(widths)
        ))
        self.pooling = pooling
        self.fc = nn.Linear(4 * width * (BANDS // 8 if pooling == "time" else 2), classes)

    def trace(self, x: Tensor) -> Trace:
        hidden, h = {}, 8 * (x - 0.5)
        for i, block in enumerate(self.blocks):
            h = hidden[f"block{i}"] = block(h)
        whole = self.pooling == "global"
        features = torch.cat([h.mean((2, 3)), h.amax((2, 3))], 1) if whole else h.mean(3).flatten(1)
        return Trace(self.fc(features), features, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.trace(x).logits


def pitch(sound: Tensor, low: float = 70.0, high: float = 320.0) -> Tensor:
    """Median f0 of clips (n, samples) in Hz, (n,): the highest peak of the autocorrelation of frames of 64 ms, over the
    half of the frames that repeat best."""
    frames = sound.unfold(1, 512, 160)
    frames = frames - frames.mean(2, keepdim=True)
    power = torch.fft.rfft(frames, 1024).abs().square()
    repeat = torch.fft.irfft(power)[..., :512]
    repeat = repeat / (repeat[..., :1] + 1e-9) * (512 / (512 - torch.arange(512.0)))
    first, last = int(RATE / high), int(RATE / low)
    best = repeat[..., first : last + 1].max(2)
    steady = best.values >= best.values.median(1, keepdim=True).values
    return torch.stack([RATE / (first + lag[keep].float()).median() for lag, keep in zip(best.indices, steady)])


def audible(patch: Tensor, level: Tensor, rng: torch.Generator) -> Tensor:
    """Sound (n, samples) in [-1, 1] of patches (n, BANDS, frames) in [0, 1]: phases by Griffin and Lim (1984).
    level: decibels (BANDS,) that stand for the mean that was taken away."""
    power = 10 ** (((patch - 0.5) * SPAN + level[:, None]) / 10)
    magnitude = (torch.linalg.pinv(filters()) @ power).clamp_min(1e-10).sqrt()
    window, length = torch.hann_window(WINDOW), WINDOW + HOP * (patch.shape[2] - 1)
    angle = 2 * torch.pi * torch.rand(magnitude.shape, generator=rng)
    options: dict[str, Any] = {"n_fft": WINDOW, "hop_length": HOP, "window": window}
    padded = nn.functional.pad(magnitude, (2, 2))  # frames that reach over the ends
    spectrum = torch.polar(padded, nn.functional.pad(angle, (2, 2)))
    for _ in range(ROUNDS):
        sound = torch.istft(spectrum, **options, center=True, length=HOP * (padded.shape[2] - 1))
        again = torch.stft(sound, **options, center=True, return_complex=True)
        spectrum = torch.polar(padded, again.angle())
    sound = torch.istft(spectrum, **options, center=True, length=HOP * (padded.shape[2] - 1))[:, :length]
    return sound / sound.abs().amax(1, keepdim=True).clamp_min(1e-9)
