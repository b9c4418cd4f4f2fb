"""Sparse-coding architecture (survey 4.1; Dibbo, Breuer, Moore, Teti, ECCV 2024): the first layers answer with codes.

The first `layers` convolutions of a network become layers that solve, at every pass, for the sparse code of their
input in a dictionary of as many atoms (`models.sparse`: the problem, and the locally competitive algorithm). What the
dictionary does not need at threshold strength is lost to whoever sees the features, the scores or the weights. The
first layer discards detail of the image, the second of the features; all others are trained as before.

dictionary: "learned" by reconstruction from the training images, never by the labels, as the paper describes; "random"
stays as drawn, which is what the published scripts run. form: "lca", or as a control "relu": the same standardisation,
trained convolutions with a ReLU, and a penalty of strength times the mean code, in place of the search.

Published: threshold 0.1 to 1.5, tau 100, 500 iterations, 5 x 5 atoms at stride 1. Here fewer iterations at the
largest stable rate, atoms and strides of the convolutions that they replace. Inputs are standardised image by image,
which takes brightness and contrast by itself: the control tells how much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from inversionbench.core.defense import Defense, Step
from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, NonNegative, Positive

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class SparseCoding(Defense):
    """strength: the threshold (0: the network as it is). tau, iterations, eta: of `models.sparse`."""

    id = "sparse_coding"
    hooks = frozenset({"build_model", "loss"})
    inputs = ("image",)

    form: Literal["lca", "relu"] = "lca"
    dictionary: Literal["learned", "random"] = "learned"
    layers: Count = 2
    tau: Positive = 10.0
    iterations: Count = 30
    eta: NonNegative = 0.05

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        model = factory()
        if self.strength == 0:
            return model
        from torch import nn

        from inversionbench.models.sparse import DenseCode, SparseCode

        convs = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
        if len(convs) < self.layers:
            raise UserError(f"sparse_coding: {self.layers} layers of {len(convs)} convolutions; "
                            "set layers, or use a network that has more (cnn, resnet)")  # fmt: skip
        eta = self.eta if self.dictionary == "learned" else 0.0
        for name, conv in convs[: self.layers]:
            parent, _, own = name.rpartition(".")
            layer = (SparseCode(conv, self.strength, self.tau, self.iterations, eta) if self.form == "lca"
                     else DenseCode(conv))  # fmt: skip
            setattr(model.get_submodule(parent), own, layer)
        return model

    def loss(self, ctx: Step) -> Tensor:
        loss = super().loss(ctx)
        if self.strength == 0 or self.form == "lca":
            return loss
        from inversionbench.models.sparse import DenseCode

        codes = [m.taken() for m in ctx.model.modules() if isinstance(m, DenseCode)]
        return loss + self.strength * sum(codes)

    def public_knowledge(self) -> dict[str, Any]:
        return {"form": self.form, "layers": self.layers, "threshold": self.strength}
