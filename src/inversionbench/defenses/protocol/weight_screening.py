"""Weight screening: a client looks at the weights that it receives, and sends nothing where they are improbable (beyond
the survey; after the client-side detection of arXiv 2506.20651 and 2511.10502, of which the abstracts were read):
reconstruction.

Weights that isolate single samples measure the same thing in many units, so the rows of a layer are parallel; rows
that were drawn, or trained from what was drawn, are not. For each linear or convolutional layer with weight rows w_i

    parallel = mean_i max_{j != i} |cos(w_i, w_j)|

and the client refuses the round, sending zeros, where some layer has more than 1 - strength. strength: 0 refuses
nothing. What it costs are false alarms: the share of honest rounds that are refused stands in the price (`refused`),
and the accuracy that their silence costs. A server who knows the rule disguises its rows (`protocol.disguise`).

Measured: parallel of untrained networks of the federated track 0.18 (lenet) to 0.53 (resnet8), of planted weights 1,
with a disguise of 1 0.73, of 3 0.50; with the last as many images come out as without a disguise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Client, Defense
from inversionbench.core.ranges import ShareBelowOne

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class WeightScreening(Defense):
    """strength: how far below 1 a layer may come to parallel rows."""

    strength: ShareBelowOne = 0.0

    id = "weight_screening"
    hooks = frozenset({"client_update"})
    federated = True
    places = ("transform",)

    def client_update(self, update: dict[str, Tensor], ctx: Client) -> dict[str, Tensor]:
        if self.strength == 0:
            return update
        refuses = suspicion(ctx.parameters) > 1 - self.strength
        ctx.state["public"] = {"refused": float(refuses)}
        return {name: t * 0 for name, t in update.items()} if refuses else update

    def public_knowledge(self) -> dict[str, Any]:
        return {"parallel_rows_at_most": 1 - self.strength}


def suspicion(parameters: Mapping[str, Tensor]) -> float:
    """The largest `parallel` of all weights, in [0, 1]. parameters: name -> tensor; those with one axis are left out.

    >>> import torch
    >>> round(suspicion({"w": torch.eye(4)}), 3), round(suspicion({"w": torch.ones(4, 3), "b": torch.ones(4)}), 3)
    (0.0, 1.0)
    """
    return max((_parallel(t) for t in parameters.values() if t.ndim > 1 and len(t) > 1), default=0.0)


def _parallel(weight: Tensor) -> float:
    rows = weight.detach().flatten(1).double()
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)
    return float((rows @ rows.T).abs().fill_diagonal_(0.0).max(1).values.mean().clamp(max=1.0))
