"""FedInverse: a participant of federated training inverts the global model of a round, and asks for spread.

Survey 3.2 (generative). Wu, Bai, Song, Chen, Zhou, Xiang, Sajjanhar, "FedInverse: Evaluating Privacy Leakage
in Federated Learning", ICLR 2024. The target is the model that an honest-but-curious client receives after
round r (a scenario with `training.clients` and `training.rounds`); updates of others are not seen. The host
`base` (gmi, kedmi or vmi), with its prior, is unchanged but for one more term:

    L = host + hsic * HSIC(A, B)     for each row of a batch, which keeps the published ratio of batch means

A and B are halves of the images of a step, HSIC that of `_dependence`, minimised. sigma 0: median heuristic, as in
the released commands; 5, the default of the released code, rewards collapse. The intention is more diverse images;
on small portraits the term lowered its own value but not the distance between images, at any weight that was
felt. Its value and the spread of the answers (mean distance of two images, per pixel) go into the notes.

Defaults: host steps and hsic as released for GMI; fields shared with the hosts mean what they mean there
(batch and optimiser are vmi's, which searches the style-based prior by its flow for every layer).

Deviations: halves are the even and the odd rows, so that gmi's halves hold the same classes (the released
halves hold different ones, s = 2 on MNIST); gaussian kernel only. The attacker's own share is not used: the
hosts have no place for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive
from inversionbench.latent.dependence import normalised_hsic
from inversionbench.latent.rows import device_of
from inversionbench.tracks.classifier.attacks.gmi import Gmi
from inversionbench.tracks.classifier.attacks.kedmi import Kedmi
from inversionbench.tracks.classifier.attacks.vmi import Vmi

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.models.base import Trace
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class _SpreadVmi(Vmi):
    """VMI with its search changed."""

    change: Callable[[Any], Any] = lambda search: search

    def search(self, *parts: Any) -> Any:
        return self.change(super().search(*parts))


@dataclass(frozen=True)
class FedInverse(Attack):
    id: ClassVar[str] = "fedinverse"
    level: ClassVar[str] = "WB"
    needs: ClassVar[str] = "clients"
    prior: ClassVar[Mapping[str, tuple[str, ...]]] = {"gmi": ("dcgan",), "kedmi": ("kedmi_gan",), "vmi": ("style",)}
    budget: ClassVar[tuple[str, ...]] = ("iterations",)

    base: Literal["gmi", "kedmi", "vmi"] = "gmi"
    hsic: NonNegative = 0.05
    sigma: NonNegative = 0.0
    iterations: Count = 2000
    rate: Positive = 0.02
    identity_weight: NonNegative = 100.0
    realism: NonNegative = 1.0
    box: NonNegative = 1.0
    restarts: Count = 10
    log_variance: float = 0.0
    answer: Literal["draws", "mean"] = "draws"
    batch: Count = 64
    optimiser: Literal["sgd", "adam"] = "sgd"
    keep_at: tuple[Count, ...] = ()

    @property
    def host(self) -> Gmi | Kedmi | Vmi:
        """The attack underneath."""
        if self.base == "vmi":
            return _SpreadVmi(
                base="style", iterations=self.iterations, rate=self.rate, restarts=self.restarts, batch=self.batch,
                optimiser=self.optimiser, keep_at=self.keep_at, change=self.changed,
            )
        shared = {
            "iterations": self.iterations, "rate": self.rate, "identity_weight": self.identity_weight,
            "realism": self.realism, "box": self.box, "restarts": self.restarts, "keep_at": self.keep_at,
        }
        if self.base == "gmi":
            return Gmi(**shared)  # type: ignore[arg-type]
        return Kedmi(**shared, log_variance=self.log_variance, answer=self.answer)  # type: ignore[arg-type]

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        host, prior = self.host, knowledge.prior
        if isinstance(host, Vmi):
            answer = host.run(oracle, knowledge, rng)
        else:
            search = host.search(prior, oracle.module().to(device_of(prior)))
            answer = host.solve(self.changed(search), prior, knowledge.targets, rng)
        answer.notes |= {"spread": spread(answer.data)}
        if len(answer.data) > 3:
            answer.notes["hsic"] = float(self.dependence(answer.data))
        return answer

    def changed(self, search: Any) -> Any:
        """The host's search with the term of this attack."""
        if not self.hsic:
            return search

        def term(x: Tensor, seen: Trace) -> Tensor:
            return (self.hsic * self.dependence(x)).to(x).expand(len(x))

        return replace(search, terms=(*search.terms, term))

    def dependence(self, x: Tensor) -> Tensor:
        """HSIC of the even against the odd rows of images x (rows, c, h, w), rows > 3."""
        half = len(x) // 2
        return normalised_hsic(x[0 : 2 * half : 2], x[1 : 2 * half : 2], self.sigma)


def spread(x: Tensor) -> float:
    """Mean over pairs of images x (n, ...) of their root mean square distance; 0 for a single image.

    >>> spread(torch.tensor([[0.0], [1.0], [2.0]]))
    1.3333333730697632
    """
    gaps = torch.pdist(x.flatten(1)) / x[0].numel() ** 0.5
    return float(gaps.mean()) if len(gaps) else 0.0
