"""Groups of a client's images, of at least a given size, and sums over them: all that a learner may see."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Statistics:
    """Per group. means: (groups, c, h, w). labels: mean one-hot labels (groups, classes). taught: mean softened answer
    of the teacher (groups, classes). sizes: (groups,). place: content of an image -> its group; found: content of a
    mean -> its group.
    """

    means: Tensor
    labels: Tensor
    taught: Tensor
    sizes: Tensor
    place: dict[bytes, int]
    found: dict[bytes, int]

    def groups_of(self, x: Tensor) -> list[int]:
        """The group of each image of the client; `ValueError` for others."""
        try:
            return [self.place[content(one)] for one in x]
        except KeyError:
            raise ValueError("statistical_features_kd: an image that is not in the client's local set") from None

    def groups_behind(self, means: Tensor) -> list[int]:
        """The groups whose means these are; `ValueError` for others."""
        try:
            return [self.found[content(one)] for one in means]
        except KeyError:
            raise ValueError("statistical_features_kd: its loss sees no group means: something changed them") from None


def content(image: Tensor) -> bytes:
    return image.detach().contiguous().numpy().tobytes()


def groups(y: Tensor, least: int, rng: torch.Generator) -> list[Tensor]:
    """Indices of each group: inside one class where it has `least` images; what is left of small classes is pooled,
    and joins the last group where even together it is too small.

    >>> sorted(len(g) for g in groups(torch.tensor([0] * 7 + [1] * 4 + [2]), 3, torch.Generator()))
    [3, 4, 5]
    """
    out: list[Tensor] = []
    left = []
    for c in y.unique():
        own = (y == c).nonzero()[:, 0]
        own = own[torch.randperm(len(own), generator=rng)]
        if len(own) >= least:
            out += list(own.tensor_split(len(own) // least))
        else:
            left.append(own)
    if left:
        rest = torch.cat(left)
        if len(rest) >= least or not out:
            out += list(rest.tensor_split(max(1, len(rest) // least)))
        else:
            out[-1] = torch.cat([out[-1], rest])
    return out


def statistics(
    x: Tensor, y: Tensor, answers: Tensor, classes: int, least: int, rng: torch.Generator
) -> Statistics:
    """Sums over groups. x: (n, c, h, w), y: (n,), answers: the teacher's probabilities (n, classes)."""
    parts = groups(y, least, rng)
    hot = F.one_hot(y, classes).float()
    means, labels, taught = (torch.stack([t[g].mean(dim=0) for g in parts]) for t in (x, hot, answers))
    place = {content(x[i]): k for k, g in enumerate(parts) for i in g.tolist()}
    found = {content(one): k for k, one in enumerate(means)}
    return Statistics(means, labels, taught, torch.tensor([len(g) for g in parts]), place, found)
