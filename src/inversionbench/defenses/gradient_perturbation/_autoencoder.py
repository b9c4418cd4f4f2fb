"""A small convolutional autoencoder of vectors: every level halves the length."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SEED = 0  # of the public initial weights


class Autoencoder(nn.Module):
    """Codes of 1 / ratio of the input's length. ratio: a power of two; 1 keeps the length."""

    def __init__(self, ratio: int, channels: int):
        super().__init__()
        levels = max(1, ratio.bit_length() - 1)
        stride = 1 if ratio == 1 else 2
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            self.down = nn.ModuleList(
                nn.Conv1d(a, b, 5, stride, 2) for a, b in zip([1, *[channels] * (levels - 1)], [channels] * levels)
            )
            self.inner = nn.Conv1d(channels, 1, 3, 1, 1)
            self.outer = nn.Conv1d(1, channels, 3, 1, 1)
            self.up = nn.ModuleList(
                nn.ConvTranspose1d(channels, b, 5, stride, 2, stride - 1) for b in [*[channels] * (levels - 1), 1]
            )

    def encode_with_gradient(self, x: Tensor) -> Tensor:
        h = x[:, None]
        for layer in self.down:
            h = F.leaky_relu(layer(h), 0.2)
        return self.inner(h)[:, 0]

    def decode_with_gradient(self, z: Tensor) -> Tensor:
        h = F.leaky_relu(self.outer(z[:, None]), 0.2)
        for layer in self.up[:-1]:  # type: ignore[index]
            h = F.leaky_relu(layer(h), 0.2)
        return self.up[-1](h)[:, 0]

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """x: (chunks, length) -> (chunks, length / ratio)."""
        return self.encode_with_gradient(x)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Codes back to (chunks, length)."""
        return self.decode_with_gradient(z)

    def train_on(self, x: Tensor, steps: int, rate: float) -> None:
        """Adam on the mean squared error, all chunks in every step."""
        optimiser = torch.optim.Adam(self.parameters(), lr=rate)
        with torch.enable_grad():
            for _ in range(steps):
                optimiser.zero_grad()
                F.mse_loss(self.decode_with_gradient(self.encode_with_gradient(x)), x).backward()
                optimiser.step()

    def _decoder(self) -> list[Tensor]:
        return [*self.outer.parameters(), *self.up.parameters()]

    @property
    def decoder_bytes(self) -> int:
        return sum(4 * p.numel() for p in self._decoder())

    def decoder_state(self) -> bytes:
        """The decoder's parameters as float32."""
        return b"".join(p.detach().cpu().numpy().tobytes() for p in self._decoder())

    @torch.no_grad()
    def load_decoder(self, raw: bytes) -> None:
        at = 0
        for p in self._decoder():
            values = np.frombuffer(raw, np.float32, p.numel(), at)
            p.copy_(torch.from_numpy(values.copy()).view_as(p))
            at += 4 * p.numel()
