"""Synthetic data: the network is trained on images that were generated, and perturbed, never on a private one.

Survey 4.1. Slokom, de Wolf, Larson, "Exploring Privacy-Preserving Techniques on Synthetic Data as a Defense Against
Model Inversion Attacks", ISC 2023: synthesis, then a privacy-preserving technique on what came out. The paper has
tables; this is its form for images of people: reconstruction.

    public part: mean m, leading directions U (k, pixels), and the covariance W within a person, in these directions
    each private image: a = U (x - m), clipped to length R, a quantile of the public lengths
    1. synthesis     per class: mean of its a + N(0, (2 R sigma / n)^2 I) = c;    images m + U^T (c + N(0, W))
    2. perturbation  labels of the synthetic images by PRAM: kept with probability `keep`, else another, all alike

As many images of each class as the private part has, and these numbers are public. strength: sigma (0: the private
images themselves). Guarantee: (epsilon, delta) for replacing one image of a class by any other, exact for one Gaussian
release (a class's mean moves by 2 R / n at most, every image is in one class; all that follows is post-processing). It
speaks for a record: what the class looks like in general is what the network must learn, and is not hidden.

Fidelity ends with k directions: low strengths lose accuracy to the generator, not to the noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from inversionbench.core.defense import Defense
from inversionbench.core.ranges import Count, PositiveShare, Probability

if TYPE_CHECKING:
    from torch import nn

    from inversionbench.data.base import Dataset, Part

LOOKED_AT = 1500  # public images that directions are computed from
RELATION = "replace one image of a class"


@dataclass(frozen=True)
class SyntheticData(Defense):
    """strength: noise multiplier sigma. directions: k. length: quantile of the public lengths that R is. keep: of PRAM.
    delta: of the guarantee.
    """

    id: ClassVar[str] = "synthetic_data"
    hooks: ClassVar[frozenset[str]] = frozenset({"training_set"})
    inputs: ClassVar[tuple[str, ...]] = ("image",)

    directions: Count = 48
    length: PositiveShare = 0.9
    keep: PositiveShare = 0.95
    delta: Probability = 1e-5

    def prepare(self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator) -> Defense:
        from inversionbench.defenses.feature_perturbation._local import with_notes

        if self.strength == 0:
            return self
        return with_notes(self, space=Space.of(data.public, self.directions, self.length, rng), classes=data.classes)

    def training_set(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.strength == 0:
            return x, y
        if "space" not in self.__dict__:
            raise ValueError("synthetic_data: call prepare() before training_set()")
        space, own = self.__dict__["space"], y.cpu()
        images = x.cpu().float() / 255 if x.dtype == torch.uint8 else x.cpu()
        codes = torch.empty(len(own), len(space.basis))
        for c in own.unique().tolist():
            rows = (own == c).nonzero()[:, 0]
            codes[rows] = space.sample(self.released_mean(space.codes(images[rows]), space.radius, rng), len(rows), rng)
        made = space.images(codes, images.shape[1:])
        made = (made * 255).round().byte() if x.dtype == torch.uint8 else made
        return made.to(x.device), pram(own, self.__dict__["classes"], self.keep, rng).to(y.device)

    def released_mean(self, codes: Tensor, radius: float, rng: torch.Generator) -> Tensor:
        """The noisy mean (k,) of one class. codes: (n, k), none longer than `radius`."""
        noise = torch.randn(codes.shape[1], generator=rng)
        return codes.mean(0) + 2 * radius * self.strength / len(codes) * noise

    def guarantee(self, rate: float, steps: int) -> dict[str, float]:
        """Of the one release; rate and steps of the training cost nothing more."""
        if self.strength == 0:
            return {}
        from inversionbench.defenses.differential_privacy._accounting import epsilon_exact

        total = epsilon_exact(self.strength, self.delta)
        return {"epsilon_total": total, "epsilon_round": total, "delta": self.delta, "private": float(total <= 10)}

    def statements(self, rate: float, steps: int, parameters: int, rounds: int) -> tuple[str, ...]:
        if self.strength == 0:
            return ()
        from inversionbench.defenses.differential_privacy._accounting import in_words

        spans = ("the whole training", "the one release")
        how = "exact for one Gaussian release; labels of synthetic images by PRAM come on top"
        return (in_words(self.guarantee(rate, steps), spans, "image", RELATION, how),)

    def public_knowledge(self) -> dict[str, Any]:
        return {"directions": self.directions, "multiplier": self.strength, "keep": self.keep} if self.strength else {}


@dataclass(frozen=True)
class Space:
    """What public images say. mean: (pixels,); basis: (k, pixels), orthonormal rows; factor: (k, k), factor factor^T
    the covariance within a person; radius: the longest code that is kept."""

    mean: Tensor
    basis: Tensor
    factor: Tensor
    radius: float

    @classmethod
    def of(cls, public: Part, k: int, length: float, rng: torch.Generator) -> Space:
        chosen = torch.randperm(len(public), generator=rng)[:LOOKED_AT].sort().values
        flat = public.images(chosen.numpy()).flatten(1)
        mean = flat.mean(0)
        values, vectors = torch.linalg.eigh(((flat - mean) @ (flat - mean).T).double())
        k = min(k, len(flat) - 1)
        top = (vectors[:, -k:] / values[-k:].clamp_min(1e-9).sqrt()).float()
        basis = (top.T @ (flat - mean)).flip(0)
        codes = (flat - mean) @ basis.T
        who = torch.from_numpy(public.extra.get("identity", public.y)[chosen.numpy()]).long()
        within = codes - torch.stack([codes[who == w].mean(0) for w in who.tolist()])
        spread = within.T @ within / max(1, len(within) - len(who.unique())) + 1e-6 * torch.eye(k)
        return cls(mean, basis, torch.linalg.cholesky(spread), float(codes.norm(dim=1).quantile(length)))

    def codes(self, x: Tensor) -> Tensor:
        """Images (n, ...) in [0, 1] -> (n, k), no longer than `radius`."""
        a = (x.flatten(1) - self.mean) @ self.basis.T
        return a * (self.radius / a.norm(dim=1, keepdim=True).clamp_min(1e-9)).clamp_max(1)

    def sample(self, centre: Tensor, n: int, rng: torch.Generator) -> Tensor:
        """Codes (n, k) of photographs of a person whose mean is `centre` (k,)."""
        return centre + torch.randn(n, len(centre), generator=rng) @ self.factor.T

    def images(self, codes: Tensor, shape: tuple[int, ...]) -> Tensor:
        return (self.mean + codes @ self.basis).clamp(0, 1).view(-1, *shape)


def pram(y: Tensor, classes: int, keep: float, rng: torch.Generator) -> Tensor:
    """Post-randomised classes (n,): kept with probability `keep`, else one of the others, each as likely.

    >>> pram(torch.arange(4), 4, 1.0, torch.Generator())
    tensor([0, 1, 2, 3])
    """
    moved = torch.rand(len(y), generator=rng) >= keep
    return torch.where(moved, (y + torch.randint(1, max(2, classes), y.shape, generator=rng)) % classes, y)
