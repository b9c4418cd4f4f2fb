"""EGIA, the external gradient inversion attack (survey 3.1; Liang et al., IEEE TIFS 2023). In part a reconstruction.

The attacker is neither client nor server: it reads messages on the wire (where they are not encrypted). What it
reads is the access level, enforced by the oracle: GR-U uploads, GR-D uploads and downloads.

route analytic   gradients alone. If the first layer is fully connected, its input is db^T dW / |db|^2 for a
                 batch of one; for more, the row ratios dW_i / db_i that single images answer for. Read in the
                 authors' code (for a batch of one); the choice among rows is decided here.
route search     `inverting_gradients` at the weights. With GR-D they are known. With GR-U those of the first seen
                 round are public (`initial: public`) or drawn by the attacker (`random`), and are moved along by
                 what a share `rho` of the clients sent, at the server's rate times `rate_factor`. The paper's
                 grey box could not be read: this is a reconstruction.

Labels come from the gradient of the last layer by a rule that needs no weights, never from the scenario. A first
layer that is no linear layer on the pixels, or has no bias, raises `AccessDenied` on the analytic route. The
intercepted clients of earlier rounds are drawn once per run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from inversionbench.core.attack import Attack, Form, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, PositiveShare

if TYPE_CHECKING:
    import torch

    from inversionbench.models.federated import Victim
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class Egia(Attack):
    """tol: rows with a bias gradient below this share of the largest are dropped. steps, rate, tv, restarts: of
    the search, as in `inverting_gradients`.
    """

    id = "egia"
    level = ("GR-U", "GR-D")
    budget = ("steps", "restarts")

    access: str = "GR-U"
    route: str = "analytic"
    initial: str = "public"
    rho: PositiveShare = 1.0
    rate_factor: Positive = 1.0
    tol: NonNegative = 1e-6
    steps: Count = 300
    rate: Positive = 0.1
    tv: NonNegative = 0.01
    restarts: Count = 1
    label_rule: str = "bias_corrected"
    form: Form = "auto"

    def __post_init__(self) -> None:
        from inversionbench.core.errors import UserError, suggest

        rules = ("bias_corrected", "bias", "negative_set", "row_sum", "inner_product", "min_row", "wainakh")
        choices = {"route": ("analytic", "search"), "initial": ("public", "random"), "label_rule": rules}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"egia.{name}: '{getattr(self, name)}': {suggest(getattr(self, name), allowed)}")

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        if self.route == "analytic":
            return self._analytic(oracle, knowledge)
        if self.access == "GR-D":
            return self._search(oracle, oracle.global_model(), rng)
        return self._follow(oracle, rng)

    def _analytic(self, oracle: Oracle, knowledge: Knowledge) -> Reconstruction:
        import torch

        from inversionbench.gradients.analytic import candidates, first_layer
        from inversionbench.gradients.problem import gradients_of, protocol_of
        from inversionbench.models.federated import Normalise

        shape = (knowledge.channels, knowledge.height, knowledge.width)
        protocol, front = protocol_of(oracle), Normalise()
        update, batch = gradients_of(oracle, protocol), protocol.batch_size
        dw, db = first_layer(update, torch.Size(shape).numel(), "the analytic route")
        found = [candidates(w, b, batch, front.box, self.tol) for w, b in zip(dw, db)]
        images = front.pixels(torch.stack([x for x, _ in found]).float()).unflatten(2, shape).clamp(0, 1)
        notes = {"route": "analytic", "labels": self.label_rule, "rows_used": [n for _, n in found]}
        return Reconstruction(images, self._labels(update, batch), cost={"gradient_evaluations": 0}, notes=notes)

    def _labels(self, update: dict[str, torch.Tensor], batch: int) -> torch.Tensor:
        """(clients, batch) from the last weight and bias gradients; the weights themselves are not needed."""
        import torch

        from inversionbench.gradients.labels import Head, recover_labels

        dw, db = list(update.values())[-2:]
        heads = [Head(w, b, w * 0, b * 0) for w, b in zip(dw.cpu(), db.cpu())]
        return torch.stack([recover_labels(head, batch, self.label_rule) for head in heads]).to(dw.device)

    def _follow(self, oracle: Oracle, rng: torch.Generator) -> Reconstruction:
        """The search at weights that only the uploads tell of."""
        import torch

        from inversionbench.gradients.problem import protocol_of
        from inversionbench.gradients.traffic import integrate, redraw

        model = oracle.initial_model() if self.initial == "public" else redraw(oracle.architecture(), rng)
        clients = len(next(iter(oracle.observe_update().values())))
        seen = torch.randperm(clients, generator=rng)[: max(1, round(self.rho * clients))].sort().values
        result = self._search(oracle, integrate(model, oracle, seen, self.rate_factor), rng)
        facts = {"initial": self.initial, "rounds": protocol_of(oracle).rounds, "intercepted": len(seen)}
        return replace(result, notes=result.notes | facts)

    def _search(self, oracle: Oracle, model: Victim, rng: torch.Generator) -> Reconstruction:
        from inversionbench.gradients.matching import Settings, invert
        from inversionbench.gradients.problem import Problem, gradients_of, protocol_of

        protocol = protocol_of(oracle)
        update = gradients_of(oracle, protocol)
        labels = self._labels(update, protocol.batch_size)
        model = model.to(labels.device)
        settings = Settings(self.steps, self.rate, self.tv, self.restarts, True, True, "randn", "cosine", "drops",
                            self.form)  # fmt: skip
        result = invert(Problem(model, protocol, update), labels, settings, rng)
        return replace(result, notes=result.notes | {"route": self.route, "labels": self.label_rule})
