"""DLG, deep leakage from gradients (survey 3.1; Zhu, Liu, Han, NeurIPS 2019).

The first gradient inversion attack. Images x and label logits u, both from N(0, 1), are searched together:

    min over x, u of  sum_l || d CE(F(x), softmax(u)) / d theta_l - g_l ||^2,

all layers, no prior, no box, by L-BFGS with learning rate 1 and without line search. The label is argmax u. It
needs a smooth network; with ReLU, on trained networks and for batches it mostly fails, and its results are
bimodal: read the median and the success rate.

Deviations: a trial stops at a squared distance of 1e-6, and the best iterate is kept (without line search the last one
may have diverged). Search in the victim's normalised space.
Batches are searched as a whole (the paper, for its own optimiser, updates one image per step in turn).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from inversionbench.core.attack import Attack, Form, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class Dlg(Attack):
    """steps: outer L-BFGS steps of up to 20 closures each. restarts: the lowest distance wins."""

    id = "dlg"
    level = "GR"
    budget = ("steps", "restarts")
    published = {"steps": 300}

    steps: Count = 300
    rate: Positive = 1.0
    history: Count = 100
    restarts: Count = 1
    stop: NonNegative = 1e-6
    init: Literal["randn", "rand", "zeros", "patterned"] = "randn"
    form: Form = "auto"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.gradients.problem import read
        from inversionbench.gradients.second_order import Settings, invert

        result = invert(read(oracle), None, Settings(**asdict(self)), rng)
        result.notes["labels"] = "searched"
        return result
