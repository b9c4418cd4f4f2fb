"""IF-GMI: PPA's search, continued into the features between the generator's blocks, inside l1 balls.

Survey 3.2 (generative). Qiu, Fang, Yu, Chen, Qiu, Xia, "A Closer Look at GAN Priors: Exploiting Intermediate
Features for Enhanced Model Inversion Attacks", ECCV 2024.

Stage 0: each class begins at its `restarts` best samples and searches their codes w as PPA does (hyperbolic
distance, one random crop per step, Adam with betas (0.1, 0.1)). Stage i >= 1: the features f_i that block
i - 1 made with the codes found so far, and w, are searched together through the remaining blocks, with a new
Adam. After every step each moves back into the l1 ball around its value at the start of the stage, row by row.

steps: of each stage; their number is how deep the search goes (published for faces: 70 and seven times 25, or
50 and seven times 10, in 9 blocks). style_radii, radii: mean absolute change allowed per element of w in stage
0, 1, ... and of f_1, f_2, ...: the published radii (1000, 2000, 3000, ...) divided by the published sizes (512
for w; 8192, 32768, 131072, ... for features). The answer is the last stage's image, so the depth is fixed
beforehand; the released script reports the stage that its evaluation model likes best, which no attacker can
know. Every stage is a checkpoint. carry_rgb: keep the colours of the earlier blocks; the released code drops
them, so its image jumps at each stage.

rate is that of stage 0, feature_rate that of all later ones (published: 0.005 for both, with codes of 512
dimensions; smaller codes want a larger rate, features do not). candidates: of each class, of which PPA's choice
(`transforms` strong crops) keeps `restarts` at the end; 0, as published: no choice. With candidates and one
stage this is PPA, so that the two differ in the features alone.

Deviations: carry_rgb by default. Noise inputs stay fixed.
The notes hold the target's mean loss at the first and last step of each stage, and the share of rows whose
features were held back by their ball at the end of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch

from inversionbench.core.attack import Attack, Identity, Knowledge, Reconstruction
from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, NonNegative, Positive, PositiveShare, Whole
from inversionbench.core.seeds import draw_seed
from inversionbench.latent.crops import Crop, Cropped
from inversionbench.latent.losses import IDENTITY
from inversionbench.latent.rows import passes_per_answer, rows
from inversionbench.latent.search import Search, in_blocks, rows_per_block
from inversionbench.latent.styles import Features, SharedW, SynthesisFromW, style_prior
from inversionbench.tracks.classifier.attacks.ppa import BETAS, choose, curve, start

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.models.style_prior import StylePrior
    from inversionbench.oracle.base import Oracle
    from inversionbench.oracle.classifier import WhiteBox


@dataclass(frozen=True)
class IfGmi(Attack):
    """Parameters as in the module and in PPA."""

    id: ClassVar[str] = "if_gmi"
    level: ClassVar[str] = "WB"
    prior: ClassVar[str] = "style"
    budget: ClassVar[tuple[str, ...]] = ("steps",)

    samples: Count = 5000
    psi: NonNegative = 0.5
    restarts: Count = 50
    steps: tuple[Count, ...] = (70, 25, 25, 25)
    rate: Positive = 0.005
    feature_rate: Positive = 0.005
    candidates: Whole = 0
    transforms: Count = 100
    style_radii: tuple[NonNegative, ...] = (1.95, 3.91, 5.86, 7.81)
    radii: tuple[NonNegative, ...] = (0.244, 0.0916, 0.0305)
    crop: tuple[PositiveShare, PositiveShare] = (0.9, 1.0)
    identity: Identity = "poincare"
    carry_rgb: bool = True

    def __post_init__(self) -> None:
        stages = len(self.steps)
        if min(self.steps, default=0) < 1:
            raise ValueError(f"steps: expected at least one step in every stage, got {self.steps}")
        if len(self.style_radii) < stages or len(self.radii) < stages - 1:
            raise ValueError(f"steps: {stages} stages need {stages} style_radii and {stages - 1} radii, got "
                             f"{len(self.style_radii)} and {len(self.radii)}")  # fmt: skip
        if self.candidates and self.candidates < self.restarts:
            raise ValueError(f"candidates: expected 0 or at least the {self.restarts} restarts, got {self.candidates}")

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        prior = style_prior(knowledge.prior)
        if len(self.steps) > prior.style.n_blocks:
            raise UserError(f"if_gmi.steps: the prior has {prior.style.n_blocks} blocks, so at most that many stages; "
                            f"got {len(self.steps)}")  # fmt: skip
        target = oracle.module().to(prior.p_mean.device)
        each = self.candidates or self.restarts
        w, begun = start(prior, target, knowledge.targets, self.samples, self.psi, each, rng)
        y = rows(knowledge.targets, each)
        walk = _Walk(self, prior, target, draw_seed(rng))
        classes, block = len(knowledge.targets), rows_per_block(each, prior.style.resolution)
        shared = passes_per_answer(oracle, classes * self.restarts)
        images, stages = in_blocks(y, lambda part, labels: walk.run(w[part], labels.to(w.device)), block)
        path = curve(stages, shared, passes_per_answer(oracle, classes * self.restarts), classes, each, self.restarts)
        if not self.candidates:
            return Reconstruction(images, y, checkpoints=path, notes={**begun, **walk.notes()})
        answer = choose(oracle, target, images, y, each, self.restarts, self.transforms, rng)
        answer.checkpoints = [*path[:-1], *answer.checkpoints]
        answer.notes |= {**begun, **walk.notes()}
        return answer


@dataclass
class _Walk:
    """All stages for one block of rows after another. seed: of the crops."""

    attack: IfGmi
    prior: StylePrior
    target: WhiteBox
    seed: int
    tracks: list[list[tuple[float, float, float]]] = field(default_factory=list)  # per block and stage

    def run(self, w: Tensor, y: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Images (rows, c, h, w) of the last stage, and of every stage by the steps done so far."""
        a, style = self.attack, self.prior.style
        code = SharedW(w, radius=a.style_radii[0] * w.shape[1])
        views, track, kept = Cropped(Crop(a.crop), self.seed), [], {}
        image, losses = self._search(code, SynthesisFromW(style), a.steps[0], y, views, a.rate)
        w, x, img, done = code.w.detach(), None, None, a.steps[0]
        track.append((*losses, 0.0))
        kept[done] = image
        for stage in range(1, len(a.steps)):
            ws = w[:, None].expand(-1, style.num_ws, -1)
            with torch.no_grad():
                x, img = style.run_blocks(ws, stage - 1, stage, x, img)
            radii = a.radii[stage - 1] * x[0].numel(), a.style_radii[stage] * w.shape[1]
            img = img if a.carry_rgb else None
            features = Features(style, stage, w, x, img, radii)
            image, losses = self._search(features, features.paint, a.steps[stage], y, views, a.feature_rate)
            w, x = (p.detach() for p in features.draw())
            track.append((*losses, features.bound))
            done += a.steps[stage]
            kept[done] = image
        self.tracks.append(track)
        return image, kept

    def _search(self, latent, paint, steps, y, views, rate) -> tuple[Tensor, tuple[float, float]]:  # type: ignore[no-untyped-def]
        """Clamped images after one stage, and the mean loss at its first and last step."""
        seen: list[float] = []

        def identity(logits: Tensor, labels: Tensor) -> Tensor:
            loss = IDENTITY[self.attack.identity](logits, labels)
            seen.append(float(loss.detach().mean()))
            return loss

        search = Search(
            generator=paint, target=self.target, identity=identity,
            optimiser=partial(torch.optim.Adam, lr=rate, betas=BETAS), iterations=steps, views=views,
        )  # fmt: skip
        image = search.run(latent, y)[0].clamp(0, 1)
        return image, (seen[0], seen[-1])

    def notes(self) -> dict[str, list[float]]:
        """Means over blocks, stage by stage."""
        stages = [torch.tensor(t).mean(0).tolist() for t in zip(*self.tracks)]
        names = ("loss_at_start", "loss_at_end", "held_share")
        return {name: [stage[i] for stage in stages] for i, name in enumerate(names)}
