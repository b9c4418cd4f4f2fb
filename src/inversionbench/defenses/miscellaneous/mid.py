"""MID: a noisy bottleneck before the last layer, and a price for what passes it.

Survey 4.7. Wang, Zhang, Jia, "Improving Robustness to Model Inversion Attacks via Mutual Information
Regularization", AAAI 2021. With h (batch, F) what the last layer would read and k = F / 2:

    (mu, rho) = Linear(F -> 2 k)(h)          sigma = softplus(rho - offset)
    z = mu + sigma eps                        eps ~ N(0, I), fresh at every pass, at inference, too
    logits = Linear(k -> classes)(z)
    L = CE(logits, y) + beta KL               KL = mean over the batch of KL(N(mu, sigma) || N(0, I)), in nats

KL bounds what the answer tells of the image. strength: beta (0: the network without a bottleneck). Published: 0.003
for faces, 0.01 to 0.1 elsewhere; offset 5, so that the noise starts small. The noise comes from a generator of the
layer; utility is measured with it, in one pass over the held-out images.

What it does not protect: whoever has the weights leaves the noise out (`adapt` of GMI), or averages over it. The
paper's forms for linear regression and trees are not here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.defense import Defense, Step
from inversionbench.core.ranges import NonNegative

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Mid(Defense):
    """strength: beta."""

    id: ClassVar[str] = "mid"
    hooks: ClassVar[frozenset[str]] = frozenset({"build_model", "loss"})

    offset: NonNegative = 5.0

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        model = factory()
        if self.strength == 0:
            return model
        from inversionbench.defenses.miscellaneous._head import with_head
        from inversionbench.models.bottleneck import Bottleneck, Sample

        def narrow(width: int, classes: int) -> nn.Module:
            return Bottleneck(width, max(1, width // 2), classes, Sample(self.strength, 0, self.offset))

        return with_head(model, narrow, self.id)

    def loss(self, ctx: Step) -> Tensor:
        plain = super().loss(ctx)
        return plain if self.strength == 0 else plain + self.strength * self.nats(ctx.model)

    def nats(self, model: nn.Module) -> Tensor:
        """KL of the last pass in training."""
        from inversionbench.models.bottleneck import Bottleneck, divergence

        head = model.head
        assert isinstance(head, Bottleneck)
        assert head.seen is not None
        return math.log(2) * divergence(head.seen, self.offset)

    def public_knowledge(self) -> dict[str, Any]:
        return {"noise": "bottleneck", "beta": self.strength} if self.strength else {}
