"""Class-level and subclass-level differential privacy: hide a whole class, or a cluster of it, not one record.

Survey 4.4. Zhang, Ma, Xiao, Lou, Xiong, "Broadening Differential Privacy for Deep Learning Against Model Inversion
Attacks", IEEE Big Data 2020. The abstract gives the notions; the algorithm, DP-SGD whose unit is a group, is ours:
reconstruction. With G groups (classes, or `subclasses` clusters of each), clip C, noise multiplier sigma:

    lot: every group enters on its own with probability q; of it, `images` of its records at random
    u_k = mean gradient of the group's images     u_k <- u_k min(1, C / ||u_k||)     one vector for each group
    g   = (1 / (q G)) (sum_k u_k + N(0, sigma^2 C^2 I))

strength: sigma (0: ordinary training, no clipping). Neighbours: add or remove all records of one group; the number of
classes is public. Guarantee: the accountant of the sampled Gaussian mechanism at rate q over all steps; the rate of
records plays no part. A class of K clusters is protected by K times the printed epsilon at most.

Clusters: a record goes to the nearest of `subclasses` centroids of public images (a coarse 4 x 4 picture, k-means), so
no group's records move another group's. Networks without batch norm only (`norm: group`): statistics of a batch carry
other groups. The noise of one step is sigma C / (q G) in each coordinate: with few classes it drowns the gradient;
that is the price of this notion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.defense import Defense, Step
from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, Positive, PositiveShare, Probability

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from inversionbench.data.base import Dataset

ROUNDS = 10  # of k-means


@dataclass(frozen=True)
class ClassLevelDp(Defense):
    """strength: sigma. rate: q. clip: C. images: of each group in a step. subclasses: groups of each class. delta: of
    the guarantee.
    """

    id: ClassVar[str] = "class_level_dp"
    hooks: ClassVar[frozenset[str]] = frozenset({"gradient"})
    inputs: ClassVar[tuple[str, ...]] = ("image",)
    poisson: ClassVar[bool] = True

    rate: PositiveShare = 0.2
    clip: Positive = 1.0
    images: Count = 8
    subclasses: Count = 1
    delta: Probability = 1e-5

    def prepare(self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator) -> Defense:
        from inversionbench.defenses.feature_perturbation._local import with_notes

        y = data.private.labels()
        groups = y
        if self.subclasses > 1:
            centroids = k_means(coarse(data.public.images()), self.subclasses, rng)
            nearest = (coarse(data.private.images())[:, None] - centroids).square().sum(2).argmin(1)
            groups = y * self.subclasses + nearest
        return with_notes(self, groups=groups, count=data.classes * self.subclasses)

    @property
    def groups(self) -> Tensor:
        """The group of every training sample (n,)."""
        if "groups" not in self.__dict__:
            raise ValueError("class_level_dp: call prepare() before the training")
        return self.__dict__["groups"]

    def lot(self, y: Tensor, rate: float, rng: torch.Generator) -> Tensor:
        import torch

        if self.strength == 0:
            return super().lot(y, rate, rng)
        if len(y) != len(self.groups):
            raise UserError("class_level_dp: trained on a part of the private images (clients, halves), whose groups "
                            "would not be whole: train on all of them")  # fmt: skip
        drawn = (torch.rand(self.__dict__["count"], generator=rng) < self.rate).nonzero()[:, 0].tolist()
        rows = [(self.groups == k).nonzero()[:, 0] for k in drawn]
        chosen = [r[torch.randperm(len(r), generator=rng)[: self.images]] for r in rows]
        return torch.cat([torch.zeros(0, dtype=torch.long), *chosen]).to(y.device)

    def gradient(self, gradients: dict[str, Tensor], ctx: Step) -> dict[str, Tensor]:
        if self.strength == 0:
            return gradients
        from inversionbench.defenses.differential_privacy.dp_sgd import private_mean

        return private_mean(self.by_group(ctx), self.clip, self.strength, self.rate * self.__dict__["count"], ctx.rng)

    def by_group(self, ctx: Step) -> dict[str, Tensor]:
        """Name -> (groups of the lot, *shape): each group's mean gradient, not clipped."""
        import torch
        from torch.nn import functional as F

        from inversionbench.defenses.differential_privacy._per_sample import check

        check(ctx.model)
        named = {name: p for name, p in ctx.model.named_parameters() if p.requires_grad}
        of = self.groups[ctx.rows.cpu()].to(ctx.y.device)  # type: ignore[union-attr]
        found = [
            torch.autograd.grad(F.cross_entropy(ctx.model(ctx.x[of == k]), ctx.y[of == k]), list(named.values()))
            for k in of.unique()
        ]
        if not found:
            return {name: p.new_zeros(0, *p.shape) for name, p in named.items()}
        return {name: torch.stack(parts) for name, parts in zip(named, zip(*found), strict=True)}

    def guarantee(self, rate: float, steps: int) -> dict[str, float]:
        """Of `steps` steps; the sampling rate of records, `rate`, does not enter."""
        if self.strength == 0:
            return {}
        from inversionbench.defenses.differential_privacy._accounting import epsilon_exact
        from inversionbench.defenses.differential_privacy.dp_sgd import MEANINGFUL, epsilon

        total = epsilon(self.rate, self.strength, steps, self.delta)
        return {"epsilon_round": epsilon_exact(self.strength, self.delta), "epsilon_total": total,
                "delta": self.delta, "sampling_rate": self.rate, "private": float(total <= MEANINGFUL)}  # fmt: skip

    @property
    def unit(self) -> str:
        return "class" if self.subclasses == 1 else "subclass"

    def statements(self, rate: float, steps: int, parameters: int, rounds: int) -> tuple[str, ...]:
        if self.strength == 0:
            return ()
        from inversionbench.defenses.differential_privacy._accounting import in_words

        how = f"Opacus RDP at group sampling rate {self.rate:.3g}, one step exact without sampling"
        relation = f"add or remove all records of one {self.unit}"
        return (in_words(self.guarantee(rate, steps), (f"{steps} steps", "one"), self.unit, relation, how),)

    def public_knowledge(self) -> dict[str, Any]:
        return {"clip": self.clip, "multiplier": self.strength, "unit": self.unit, "delta": self.delta}


def coarse(x: Tensor) -> Tensor:
    """Images (n, c, h, w) -> (n, 16 c): means of 4 x 4 fields."""
    from torch.nn import functional as F

    return F.adaptive_avg_pool2d(x, 4).flatten(1)


def k_means(x: Tensor, k: int, rng: torch.Generator) -> Tensor:
    """Centroids (k, d) of x (n, d), Lloyd's iterations from k of its rows; an empty cluster keeps its centroid."""
    import torch

    centres = x[torch.randperm(len(x), generator=rng)[:k]].clone()
    for _ in range(ROUNDS):
        nearest = torch.cdist(x, centres).argmin(1)
        for c in nearest.unique().tolist():
            centres[c] = x[nearest == c].mean(0)
    return centres
