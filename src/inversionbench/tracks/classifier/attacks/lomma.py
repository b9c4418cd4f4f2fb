"""LOMMA: another attack with its identity loss replaced by raw logits, averaged over the target and copies.

Survey 3.1 and 3.3 as listed; it never sees a gradient of training and is a white-box generative attack. Nguyen,
Chandrasegaran, Abdollahzadeh, Cheung, "Re-thinking Model Inversion Attacks Against Deep Neural Networks", CVPR
2023. The host `base` (gmi, kedmi or plg_mi) keeps its prior, latents, realism term and optimiser; with target T,
students S_1..S_N (prior entry `students`) and f the target's penultimate features, the identity loss becomes

    L(x) = 1/(N + 1) sum over M in {T, S_i} of main(M, x) + feature * mean_d (f_d(x) - mean_d)^2

main = -o_y (identity: logit), where cross entropy would be -o_y + log sum_j exp o_j, whose second part mostly
pushes other classes down. The features' mean over public images holds the logit, which has no bound.

The paper's variants: identity `logit` or `cross_entropy` (or another of `_losses`) with augment on or off.
Fields shared with the hosts mean what they mean there; defaults are those of the released code (kedmi: samples
clamped to [-1, 1]); views is plg_mi's, log_variance and answer are kedmi's. images: public images for the mean
features, one pass each. Students are the attacker's own: their passes are counted apart (`student_passes`).

Deviations: f is pulled to the mean itself (the released code draws from a normal distribution around it and
then overwrites the draw); with several views the features are those of the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from inversionbench.core.attack import Attack, Identity, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, Whole
from inversionbench.latent.losses import IDENTITY, over_models
from inversionbench.latent.rows import device_of
from inversionbench.latent.search import Search
from inversionbench.models.base import Trace
from inversionbench.tracks.classifier.attacks.gmi import Gmi
from inversionbench.tracks.classifier.attacks.kedmi import Kedmi
from inversionbench.tracks.classifier.attacks.plg_mi import PlgMi

if TYPE_CHECKING:
    from inversionbench.oracle.base import Oracle
    from inversionbench.oracle.classifier import WhiteBox


class Ensemble:
    """The target with its students. Logits: (rows, 1 + students, classes); features: the target's."""

    def __init__(self, target: WhiteBox, students: Sequence[nn.Module]):
        self.target, self.students, self.passes = target, students, 0

    def trace(self, x: Tensor) -> Trace:
        own = self.target.trace(x)
        self.passes += len(x) * len(self.students)
        logits = torch.stack([own.logits, *(student(x) for student in self.students)], 1)
        return Trace(logits, own.features)


@dataclass(frozen=True)
class Lomma(Attack):
    id: ClassVar[str] = "lomma"
    level: ClassVar[str] = "WB"
    prior: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "gmi": ("dcgan", "students"), "kedmi": ("kedmi_gan", "students"), "plg_mi": ("plg_gan", "students"),
    }
    budget: ClassVar[tuple[str, ...]] = ("iterations",)

    base: Literal["gmi", "kedmi", "plg_mi"] = "kedmi"
    identity: Identity = "logit"
    augment: bool = True
    feature: NonNegative = 1.0
    images: Count = 5000
    iterations: Count = 2400
    rate: Positive = 0.02
    identity_weight: NonNegative = 100.0
    realism: NonNegative = 1.0
    box: NonNegative = 1.0
    restarts: Count = 5
    views: Whole = 2
    log_variance: float = 1.0
    answer: Literal["draws", "mean"] = "draws"
    keep_at: tuple[Count, ...] = ()

    @property
    def host(self) -> Gmi | Kedmi | PlgMi:
        """The attack underneath."""
        shared: dict[str, Any] = {
            "iterations": self.iterations, "rate": self.rate, "box": self.box, "restarts": self.restarts,
            "keep_at": self.keep_at,
        }
        if self.base == "plg_mi":
            return PlgMi(**shared, views=self.views)
        shared |= {"identity_weight": self.identity_weight, "realism": self.realism}
        if self.base == "gmi":
            return Gmi(**shared)
        return Kedmi(**shared, log_variance=self.log_variance, answer=self.answer)

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        prior = knowledge.prior
        target = oracle.module().to(device_of(prior))
        students = knowledge.priors["students"].nets if self.augment else ()
        ensemble = Ensemble(target, students)
        search = self.changed(self.host.search(prior, target), ensemble, self.mean_features(target, knowledge, rng))
        begun = oracle.ledger.passes
        answer = self.host.solve(search, prior, knowledge.targets, rng)
        shared = -(-begun // len(answer.data))
        answer.checkpoints = [(shared + at, x) for at, x in answer.checkpoints]
        answer.cost["student_passes"] = ensemble.passes
        return answer

    def changed(self, search: Search, ensemble: Ensemble, mean: Tensor) -> Search:
        """The host's search with the identity loss of this attack. mean: (features,)."""
        def far(x: Tensor, seen: Trace) -> Tensor:
            assert seen.features is not None
            return search.weight * self.feature * (seen.features - mean).square().mean(1)

        terms = (*search.terms, far) if self.feature else search.terms
        identity = over_models(IDENTITY[self.identity])
        return replace(search, target=ensemble, identity=identity, terms=terms)  # type: ignore[arg-type]

    @torch.no_grad()
    def mean_features(self, target: WhiteBox, knowledge: Knowledge, rng: torch.Generator) -> Tensor:
        """The target's mean penultimate features over public images: (features,)."""
        where = next(target.parameters()).device
        if not self.feature:
            return torch.zeros((), device=where)
        index = torch.randperm(len(knowledge.public), generator=rng)[: self.images]
        before, target.phase = target.phase, "init"
        parts = []
        for some in index.split(256):
            features = target.trace(knowledge.public.images(some.numpy()).to(where)).features
            if features is None:
                raise ValueError("this target reports no features: set feature to 0")
            parts.append(features)
        target.phase = before
        return torch.cat(parts).mean(0)
