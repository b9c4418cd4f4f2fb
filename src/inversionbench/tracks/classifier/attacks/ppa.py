"""PPA: any style-based prior, a search of its codes from well-chosen starts, and a choice that survives crops.

Survey 3.2 (generative). Struppek, Hintersdorf, Correia, Adler, Kersting, "Plug & Play Attacks: Towards Robust
and Flexible Model Inversion Attacks", ICML 2022. The prior knows nothing of the target: one serves all targets.

1. `samples` codes of the prior, truncated (psi), scored by the target on image and mirror image; each class
   begins at the `candidates` best for it.
2. For each, minimise the hyperbolic distance between the target's scaled logits on a random crop and the class
   (`_losses.poincare`), by Adam on the code, which serves all layers. With betas (0.1, 0.1) a step moves every
   coordinate by about `rate`, so that the search stays near its start.
3. Keep the `restarts` of each class with the highest mean score under `transforms` strong random crops.

Parameters as published for faces (CelebA: 70 steps, 5000 samples; FaceScrub 50 and 2000). rate: for 512
dimensions; smaller spaces want 0.01 and more. identity: poincare, or another loss for comparison. realism:
weight of softplus(-D(x)), 0 as published. select: "robust", or "all" candidates without a choice. goal: a class
leaves the search once the target scores all its candidates' views at least so high (0: never, as published).
keep_at: steps whose images are kept for curves: those of the candidates that began best, nothing being chosen yet.

Deviations: all layers of the samples are truncated, not the first 8 of 18 (the published code then takes the
code of the first layer for all layers, which is the same); one crop per step for all images, as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch.nn import functional as F

from inversionbench.core.attack import Attack, Identity, Knowledge, Reconstruction
from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, NonNegative, Positive, PositiveShare, Share
from inversionbench.core.seeds import draw_seed
from inversionbench.latent.candidates import best_for, best_rows, by_passes, codes, robustness, scores_of
from inversionbench.latent.crops import Crop, Cropped
from inversionbench.latent.losses import IDENTITY
from inversionbench.latent.rows import first_of_class, passes_per_answer, rows
from inversionbench.latent.search import Search, in_blocks, rows_per_block
from inversionbench.latent.stop import Stop
from inversionbench.latent.styles import SharedW, SynthesisFromW, style_prior

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.models.base import Trace
    from inversionbench.models.style_prior import StylePrior
    from inversionbench.oracle.base import Oracle
    from inversionbench.oracle.classifier import WhiteBox

BETAS = (0.1, 0.1)
STRONG = Crop((0.5, 0.9), (0.8, 1.2), 0.5)  # of the final choice


@dataclass(frozen=True)
class Ppa(Attack):
    id: ClassVar[str] = "ppa"
    level: ClassVar[str] = "WB"
    prior: ClassVar[str] = "style"
    budget: ClassVar[tuple[str, ...]] = ("candidates", "steps")

    samples: Count = 5000
    psi: NonNegative = 0.5
    candidates: Count = 200
    steps: Count = 70
    rate: Positive = 0.005
    crop: tuple[PositiveShare, PositiveShare] = (0.9, 1.0)
    identity: Identity = "poincare"
    realism: NonNegative = 0.0
    restarts: Count = 50
    transforms: Count = 100
    select: Literal["robust", "all"] = "robust"
    goal: Share = 0.0
    keep_at: tuple[Count, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.restarts <= self.candidates:
            raise ValueError(f"restarts: expected 1 to the {self.candidates} candidates, got {self.restarts}")

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        prior = style_prior(knowledge.prior)
        target = oracle.module().to(prior.p_mean.device)
        w, notes = start(prior, target, knowledge.targets, self.samples, self.psi, self.candidates, rng)
        y = rows(knowledge.targets, self.candidates)
        keep = self.candidates if self.select == "all" else self.restarts
        begun, seed = passes_per_answer(oracle, len(knowledge.targets) * keep), draw_seed(rng)

        def block(part: slice, labels: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
            return self.search(prior, target, seed).run(SharedW(w[part]), labels.to(w.device))

        images, kept = in_blocks(y, block, rows_per_block(self.candidates, prior.style.resolution))
        end = passes_per_answer(oracle, len(knowledge.targets) * keep)
        path = curve(kept, begun, end, len(knowledge.targets), self.candidates, keep)
        if self.select == "all":
            images = images.clamp(0, 1)
            return Reconstruction(images, y, checkpoints=[*path, (end, images)], notes=notes)
        answer = choose(oracle, target, images, y, self.candidates, keep, self.transforms, rng)
        answer.checkpoints = [*path, *answer.checkpoints]
        answer.notes |= notes
        return answer

    def search(self, prior: StylePrior, target: WhiteBox, seed: int) -> Search:
        """This attack's setting of the common loop. seed: of the crops."""
        if self.realism and prior.critic is None:
            raise UserError("ppa.realism: this prior has no critic; set realism to 0")

        def realism(x: Tensor, seen: Trace) -> Tensor:
            assert prior.critic is not None
            return self.realism * F.softplus(-prior.critic(x))

        return Search(
            generator=SynthesisFromW(prior.style), target=target, identity=IDENTITY[self.identity],
            optimiser=partial(torch.optim.Adam, lr=self.rate, betas=BETAS), iterations=self.steps,
            terms=(realism,) if self.realism else (), views=Cropped(Crop(self.crop), seed),
            keep_at=[i for i in self.keep_at if i < self.steps], stop=Stop(goal=self.goal),
        )  # fmt: skip


def start(
    prior: StylePrior, target: WhiteBox, targets: Tensor, samples: int, psi: float, each: int, rng: torch.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Step 1: codes (classes * each, w_dim), class by class, and the mean score with which they start."""
    target.phase = "init"
    with torch.no_grad():
        w = codes(prior, samples, rng, psi)
    scores = scores_of(SynthesisFromW(prior.style), w, by_passes(target), mirrored=True)
    target.phase = "search"
    chosen = best_for(scores, targets, each)
    own = scores.T[targets.to(scores.device)].gather(1, chosen)
    return w[chosen.flatten()], {"score_of_starts": float(own.mean())}


def curve(
    kept: list[tuple[int, Tensor]], begun: int, end: int, classes: int, each: int, keep: int
) -> list[tuple[int, Tensor]]:
    """What the search would answer if stopped at the kept steps, at passes per answer: the candidates that began
    best, for nothing has been chosen yet. begun, end: passes per answer before the first step and after the last."""
    first = first_of_class(classes, each, keep)
    return [(min(begun + round(step * each / keep), end), x[first].clamp(0, 1)) for step, x in kept]


def choose(
    oracle: Oracle, target: WhiteBox, x: Tensor, y: Tensor, each: int, keep: int, times: int, rng: torch.Generator
) -> Reconstruction:
    """Step 3: of the `each` candidates x of every class the `keep` that crops change least."""
    target.phase = "select"
    x.clamp_(0, 1)  # in place: all candidates of all classes
    score = robustness(target, x, y, STRONG, times, rng)
    best = best_rows(score, each, keep)
    notes = {"score_of_all": float(score.mean()), "score_of_kept": float(score[best].mean())}
    path = [(passes_per_answer(oracle, len(best)), x[best])]
    return Reconstruction(x[best], y[best], scores=score[best][:, None], checkpoints=path, notes=notes)
