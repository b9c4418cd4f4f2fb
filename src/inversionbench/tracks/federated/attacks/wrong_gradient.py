"""Control: Inverting Gradients with the update of somebody else.

Everything is as in `inverting_gradients`, but the update is that of a decoy client: images of other classes,
under the labels of the attacked batch, so that gradient and labels fit together and only the images are wrong.
What this row reaches is what labels, the image prior and the look of natural images give without the right
gradient: an attack that does not beat it has learnt nothing from the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inversionbench.core.attack import Knowledge, Reconstruction
from inversionbench.tracks.federated.attacks.inverting_gradients import InvertingGradients

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class WrongGradient(InvertingGradients):
    """The parameters of `inverting_gradients`."""

    id = "wrong_gradient"
    control = True

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        return self.search(oracle, knowledge, rng, "decoy")
