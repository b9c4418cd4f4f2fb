"""Block-wise image scrambling (learnable image encryption; Tanaka, ICCE-TW 2018), exact on uint8.

An image is cut into blocks of `block` x `block` pixels; the d = channels * block^2 bytes of a block become 2 d nibbles,
first the low ones, then the high ones. The key is a permutation pi of 0 .. 2d - 1, R the places j with pi_j >= d:

    n_j <- 15 - n_j for j in R;   n <- n[pi];   n_j <- 15 - n_j for j in R;   byte_i = n_i + 16 n_{d + i}

All blocks of an image share the key. shuffle: the blocks of all images change their places in one secret way, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scrambler:
    """keys: int64 (keys, 2 d); places: int64 (blocks,), where the block at each place comes from; block: its side."""

    keys: Tensor
    places: Tensor
    block: int

    @classmethod
    def drawn(
        cls, shape: tuple[int, int, int], block: int, keys: int, shuffle: bool, rng: torch.Generator
    ) -> Scrambler:
        """Secret keys for images of a shape (channels, height, width), whose sides are multiples of `block`."""
        channels, height, width = shape
        nibbles, blocks = 2 * channels * block**2, height * width // block**2
        drawn = torch.stack([torch.randperm(nibbles, generator=rng) for _ in range(keys)])
        return cls(drawn, torch.randperm(blocks, generator=rng) if shuffle else torch.arange(blocks), block)

    def scramble(self, x: Tensor, which: Tensor) -> Tensor:
        """x: uint8 (n, channels, height, width). which: int64 (n,), the key of each image."""
        n = self._nibbles(x)[:, self.places]
        key, mask = self._of(which, n)
        return self._image(_complement(_complement(n, mask).gather(2, key), mask), x.shape)

    def descramble(self, x: Tensor, which: Tensor) -> Tensor:
        """The opposite, with the keys."""
        n = self._nibbles(x)
        key, mask = self._of(which, n)
        n = _complement(_complement(n, mask).gather(2, key.argsort(dim=2)), mask)
        return self._image(n[:, self.places.argsort()], x.shape)

    def _of(self, which: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
        """(key, R) of every block, each (n, blocks, 2 d)."""
        key = self.keys[which][:, None].expand_as(n)
        return key, key >= n.shape[2] // 2

    def _nibbles(self, x: Tensor) -> Tensor:
        """int64 (n, blocks, 2 d)."""
        size = self.block
        count, channels, height, width = x.shape
        parts = x.long().view(count, channels, height // size, size, width // size, size)
        byte = parts.permute(0, 2, 4, 1, 3, 5).reshape(count, -1, channels * size**2)
        return torch.cat([byte % 16, byte // 16], dim=2)

    def _image(self, n: Tensor, shape: torch.Size) -> Tensor:
        """The opposite of `_nibbles`."""
        size = self.block
        count, channels, height, width = shape
        low, high = n.chunk(2, dim=2)
        parts = (low + 16 * high).view(count, height // size, width // size, channels, size, size)
        return parts.permute(0, 3, 1, 4, 2, 5).reshape(shape).to(torch.uint8)


def _complement(n: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, 15 - n, n)
