"""DeepInversion: pixels that the target classifies and whose batch statistics are those it stores. No data.

Survey 3.4 (miscellaneous). Yin, Molchanov, Alvarez, Li, Mallya, Hoiem, Jha, Kautz, "Dreaming to Distill:
Data-free Knowledge Transfer via DeepInversion", CVPR 2020. Weights and schedules from the released code.

A whole batch u (rows, c, h, w), in normalised space (image = (u + 1) / 2), is optimised jointly by Adam from
N(0, I). Each step sees it rolled by up to `jitter` pixels and, with probability 1/2, mirrored:

    L = mean CE(T(x), y) + statistics * R_BN + tv * R_tv + l2 * mean_i |u_i|_2

R_BN: module `_statistics`, with factor `first` on the first layer. R_tv: sum of four Frobenius norms over the
whole batch, of differences to the right, lower and both diagonal neighbours. The answer is the batch of the
lowest total loss of the last phase (cloned: the released CIFAR script keeps an alias of the running one).

Batches are balanced over *all* classes of the target, because the stored statistics are means over all: each
non-attacked class has `others` rows beside the `restarts` of each attacked one, which are optimised, paid
for and not handed in. More rows than `batch` are dealt into several batches, each over all classes.

access: WB, or WB-noBN, where the statistics cannot be read. statistics 0 is the declared variant without
R_BN (DeepDream with total variation); with statistics > 0 a target that shows none ends as "denied".

Defaults: the CIFAR-10 run (256 images, 2000 steps, rate 0.1, weights 10 and 2.5e-5). The ImageNet script:
batch 84, coarse 2000 (first phase on images pooled 2x), iterations 1000, rate 0.25, betas (0.5, 0.9),
schedule cosine with warm_up 100, statistics 0.01, first 10, tv 1e-4, l2 1e-5, jitter 30, flip and clamp.

Deviations: normalisations of vectors (BatchNorm1d) are watched too, where a target has them (the released code
watches BatchNorm2d alone); no adaptive variant (no competing student); pooled images of the first phase are enlarged
again, since small targets take one size. Answers are typical of a class, not training samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.device import device
from inversionbench.core.ranges import Count, NonNegative, Positive, Share, Whole
from inversionbench.latent.rows import rows
from inversionbench.latent.statistics import NormStatistics
from inversionbench.training.loop import rate_factor

if TYPE_CHECKING:
    from inversionbench.oracle.base import Oracle
    from inversionbench.oracle.classifier import WhiteBox


@dataclass(frozen=True)
class DeepInversion(Attack):
    id: ClassVar[str] = "deepinversion"
    level: ClassVar[tuple[str, ...]] = ("WB", "WB-noBN")
    budget: ClassVar[tuple[str, ...]] = ("iterations",)

    access: Literal["WB", "WB-noBN"] = "WB"
    batch: Count = 256
    restarts: Count = 4
    others: Whole = 1
    iterations: Count = 2000
    coarse: Whole = 0
    rate: Positive = 0.1
    betas: tuple[Share, Share] = (0.9, 0.999)
    schedule: Literal["constant", "cosine"] = "constant"
    warm_up: Whole = 0
    statistics: NonNegative = 10.0
    first: NonNegative = 1.0
    tv: NonNegative = 2.5e-5
    l2: NonNegative = 0.0
    jitter: Whole = 2
    flip: bool = False
    clamp: bool = False
    keep_at: tuple[Count, ...] = ()

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        where = device()
        target = oracle.module().to(where)
        watch = NormStatistics(target, self.first) if self.statistics else None
        wanted = rows(knowledge.targets, self.restarts)
        y = torch.cat([wanted, self._companions(knowledge.targets, oracle.num_classes or 0)])
        parts = -(-len(y) // self.batch)
        images = torch.empty(len(y), *knowledge.shape)
        kept = {step: torch.empty_like(images) for step in self.keep_at if step < self.iterations}
        ends = []
        for first in range(parts):
            mine = torch.arange(len(y))[first::parts]  # every batch holds all classes
            images[mine], at, gap = self.dream(target, watch, y[mine].to(where), knowledge.shape, rng)
            ends.append(gap)
            for step in kept:
                kept[step][mine] = at[step]
        n = len(wanted)
        kept[self.iterations] = images
        passes = len(y) / n  # for each answer and step, those of the companions with them
        checkpoints = [(round(passes * (self.coarse + step)), kept[step][:n]) for step in sorted(kept)]
        notes = {"bn_distance": sum(ends) / parts} if watch else {}
        return Reconstruction(images[:n], wanted, checkpoints=checkpoints, notes=notes)

    def dream(
        self, target: WhiteBox, watch: NormStatistics | None, y: Tensor, shape: tuple[int, ...], rng: torch.Generator
    ) -> tuple[Tensor, dict[int, Tensor], float]:
        """One batch: images (rows, c, h, w) in [0, 1], those of the best batch so far at `keep_at`, and R_BN
        of the best batch."""
        u = torch.randn(len(y), *shape, generator=rng).to(y.device).requires_grad_(True)
        kept: dict[int, Tensor] = {}
        best, gap = u.detach().clone(), 0.0
        for steps, pooled in ((self.coarse, 2), (self.iterations, 1)):
            optimiser = torch.optim.Adam([u], self.rate, self.betas)
            lowest = float("inf")
            for step in range(steps):
                optimiser.param_groups[0]["lr"] = self.rate * self._factor(step, steps)
                loss, distance = self.loss(target, watch, u, y, pooled, rng)
                if loss.item() < lowest:
                    lowest, gap, best = loss.item(), distance, u.detach().clone()
                (u.grad,) = torch.autograd.grad(loss, [u])
                optimiser.step()
                if self.clamp:
                    with torch.no_grad():
                        u.clamp_(-1, 1)
                if pooled == 1 and step + 1 in self.keep_at:
                    kept[step + 1] = _pixels(best)
        return _pixels(best), kept, gap

    def loss(
        self, target: WhiteBox, watch: NormStatistics | None, u: Tensor, y: Tensor, pooled: int, rng: torch.Generator
    ) -> tuple[Tensor, float]:
        """The total loss of a batch as one step sees it, and R_BN in it."""
        dy, dx = torch.randint(-self.jitter, self.jitter + 1, (2,), generator=rng).tolist()
        mirrored = self.flip and bool(torch.rand((), generator=rng) < 0.5)
        seen = F.interpolate(F.avg_pool2d(u, pooled), u.shape[2:], mode="nearest") if pooled > 1 else u
        seen = seen.roll((dy, dx), (2, 3))
        if mirrored:
            seen = seen.flip(3)
        total = F.cross_entropy(target((seen + 1) / 2), y)
        distance = watch.take() if watch else torch.zeros(())
        if watch:
            total = total + self.statistics * distance
        if self.tv:
            total = total + self.tv * variation(seen)
        if self.l2:
            total = total + self.l2 * seen.flatten(1).norm(dim=1).mean()
        return total, float(distance.detach())

    def _companions(self, targets: Tensor, classes: int) -> Tensor:
        """Classes of the rows that only balance the batch."""
        attacked = set(targets.tolist())
        left = torch.tensor([c for c in range(classes) if c not in attacked], dtype=torch.int64)
        return left.repeat_interleave(self.others)

    def _factor(self, step: int, steps: int) -> float:
        """The learning rate divided by the highest one."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        return rate_factor(self.schedule, (step - self.warm_up) / max(steps - self.warm_up, 1))


def _pixels(u: Tensor) -> Tensor:
    """Normalised values as images in [0, 1], on the CPU."""
    return ((u + 1) / 2).clamp(0, 1).cpu()


def variation(x: Tensor) -> Tensor:
    """R_tv of a batch (n, c, h, w): four Frobenius norms of neighbour differences, a scalar.

    >>> variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))
    tensor(3.4142)
    """
    differences = (
        x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :],
        x[..., 1:, 1:] - x[..., :-1, :-1], x[..., 1:, :-1] - x[..., :-1, 1:],
    )  # fmt: skip
    return torch.stack([d.norm() for d in differences]).sum()
