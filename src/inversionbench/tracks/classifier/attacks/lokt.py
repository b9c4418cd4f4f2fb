"""LOKT: what a target's labels have taught a GAN and its surrogates is attacked in the target's place, white-box.

Survey 3.2 (generative). Nguyen, Chandrasegaran, Abdollahzadeh, Cheung, "Label-Only Model Inversion Attacks via
Knowledge Transfer", NeurIPS 2023. All queries are those of the prior `tacgan`, for all classes together; the search
asks nothing. For each row, by the search of PLG-MI under the conditional generator of that prior, from z ~ N(0, I),

    minimise over z   mean over surrogates S and `views` random views A of  max_{j != y} o_j - o_y,  o = S(A(G(z, y)))

surrogate: `ensemble`, all surrogates; `single`, the first; `head`, the class head K of the GAN itself, which needs no
further queries (the part for surrogates is paid for all the same). Parameters as published: iterations 600, rate 0.1,
views 2, restarts 5, box 0 (none). The curve has the states that the prior kept, attacked by K, at the queries until
then for each answer; `shared_queries` among the notes is what one class alone would cost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, Whole
from inversionbench.latent.losses import IDENTITY, over_models
from inversionbench.models.base import Trace
from inversionbench.tracks.classifier.attacks.plg_mi import PlgMi

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inversionbench.oracle.base import Oracle
    from inversionbench.priors.plg_gan import ConditionalPrior
    from inversionbench.priors.tacgan import TaughtPrior


@dataclass(frozen=True)
class _Surrogates:
    """Several classifiers in the place of one. Logits: (rows, models, classes)."""

    nets: Sequence[nn.Module]

    def trace(self, x: Tensor) -> Trace:
        return Trace(torch.stack([net(x) for net in self.nets], 1))


@dataclass(frozen=True)
class Lokt(Attack):
    id: ClassVar[str] = "lokt"
    level: ClassVar[str] = "LO"
    prior: ClassVar[str] = "tacgan"
    budget: ClassVar[tuple[str, ...]] = ("iterations",)

    surrogate: Literal["ensemble", "single", "head"] = "ensemble"
    iterations: Count = 600
    rate: Positive = 0.1
    views: Whole = 2
    restarts: Count = 5
    box: NonNegative = 0.0

    @property
    def host(self) -> PlgMi:
        return PlgMi(iterations=self.iterations, rate=self.rate, views=self.views, restarts=self.restarts, box=self.box)

    def __post_init__(self) -> None:
        self.host  # noqa: B018  its own checks

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        prior: TaughtPrior = knowledge.prior
        nets = {"ensemble": prior.surrogates, "single": prior.surrogates[:1], "head": (prior.head,)}[self.surrogate]
        answers = len(knowledge.targets) * self.restarts
        path = [(-(-s.queries // answers), self.solve(s.prior, (s.head,), knowledge.targets, rng).data)
                for s in prior.path]  # fmt: skip
        answer = self.solve(prior, nets, knowledge.targets, rng)
        answer.checkpoints = [*path, (-(-prior.queries // answers), answer.data)]
        answer.notes["shared_queries"] = prior.queries
        return answer

    def solve(
        self, prior: ConditionalPrior, nets: Sequence[nn.Module], targets: Tensor, rng: torch.Generator
    ) -> Reconstruction:
        """PLG-MI on classifiers of the attacker's own."""
        search = self.host.search(prior, _Surrogates(nets))  # type: ignore[arg-type]
        return self.host.solve(replace(search, identity=over_models(IDENTITY["margin"])), prior, targets, rng)
