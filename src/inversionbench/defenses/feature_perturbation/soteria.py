"""Soteria (survey 4.1; Sun, Li, Wang, Yang, Li, Chen, CVPR 2021).

The weight gradient of a linear layer o = W r + b is (dL/do) r^T: its column i carries r_i. Soteria zeroes, in that
one tensor, the columns of the inputs that say most about the image:

    S_i = sum over the batch of |d r_i / d x| / (|r_i| + offset)
    columns with S_i below the q-th percentile <- 0

A small S_i is a large and insensitive r_i. All other gradients leave unchanged, the bias of the same layer too, so
labels stay readable, and an attacker who leaves this tensor out (or compares the surviving columns only) loses
little: Balunovic et al., ICLR 2022.

strength: q in percent (0: off). layer: the defended linear layer, "" the last. For weight differences of several
local steps the mask comes from the global model and the last epoch's images, and cuts the difference.

Deviations: |r| in the denominator (signed ratios would cancel in the sum); inputs that are 0 for the whole batch have
a zero column anyway and do not count for the percentile. For batches of more than one image the norms are estimated
with `probes` random directions (relative error about sqrt(1 / (2 probes))); 0 computes them exactly always.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Client, Defense
from inversionbench.core.ranges import Count, Positive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Soteria(Defense):
    """layer: name of the defended linear layer, "" the last. offset: in the score. probes: see above."""

    id = "soteria"
    hooks = frozenset({"client_update"})
    federated = True
    inputs = ("image",)
    layered = True
    effect = ("cos_sent_true", "lower", 0.999)
    looks_again = True

    layer: str = ""
    offset: Positive = 0.1
    probes: Count = 32

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 100 or self.offset <= 0 or self.probes < 0:
            raise ValueError(
                "soteria: expected strength in percent, offset > 0, probes >= 0, got "
                f"{self.strength}, {self.offset}, {self.probes}"
            )

    def client_update(self, update: dict[str, Tensor], ctx: Client) -> dict[str, Tensor]:
        from inversionbench.defenses.feature_perturbation._sensitivity import batch_of, inputs_of, row_norms

        if self.strength == 0:
            return update
        model, x, _ = batch_of(ctx, self.id)
        name, features = inputs_of(model, self.layer)
        r, norms = row_norms(features, x, self.probes if len(x) > 1 else 0, ctx.rng)
        kept = mask(r, norms, self.strength, self.offset)
        ctx.state["public"] = {"layer": name, "columns_removed": float((~kept).sum())}
        return {n: g * kept if n == name else g for n, g in update.items()}

    def public_knowledge(self) -> dict[str, Any]:
        """The rate and the layer (its name is added in each round); the removed columns are visible as zeros."""
        return {"rate": self.strength, "layer": self.layer, "support": "non-zero columns of the layer's weight"}


def mask(r: Tensor, norms: Tensor, percent: float, offset: float = 0.1) -> Tensor:
    """Which columns are sent, bool (width,). r, norms: (batch, width).

    >>> import torch
    >>> mask(torch.tensor([[1.0, 2.0, 0.0, 4.0]]), torch.tensor([[1.0, 1.0, 1.0, 1.0]]), 60)
    tensor([ True, False,  True, False])
    """
    import torch

    score = (norms / (r.abs() + offset)).sum(dim=0)
    alive = r.abs().amax(dim=0) > 0
    if not bool(alive.any()):
        return torch.ones_like(alive)
    if percent == 100:
        return ~alive
    return ~alive | (score >= torch.quantile(score[alive], percent / 100))
