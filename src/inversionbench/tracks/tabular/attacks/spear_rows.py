"""SPEAR on rows of tables: the rows behind an update, exactly, with a certificate (beyond the survey).

Dimitrov, Baader, Müller, Vechev, NeurIPS 2024; see `spear` of the federated track and `gradients.low_rank`. The first
layer reads the standardised row, so what comes out is decoded by the schema: every category is the largest of its
places. A client whose batch is not complete answers with the ratios of single units (`gradients.analytic`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


EVERYWHERE = (-1e6, 1e6)  # standardised numbers have no common bounds


@dataclass(frozen=True)
class SpearRows(Attack):
    """data: float64 (clients, largest batch, columns), decoded rows, NaN beyond a client's batch. Labels are those that
    the scenario gives; -1 where it gives none, as the attack reads none."""

    id: ClassVar[str] = "spear_rows"
    level: ClassVar[str] = "GR"
    asks: ClassVar[str] = "rows"
    budget: ClassVar[tuple[str, ...]] = ("tries",)

    tries: Count = 100_000

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        import torch

        from inversionbench.core.protocol import Protocol
        from inversionbench.gradients.analytic import candidates, first_layer
        from inversionbench.gradients.fully_connected import as_gradient
        from inversionbench.gradients.low_rank import recover_all

        model, given, schema = oracle.global_model(), oracle.protocol(), knowledge.schema
        update, sizes = as_gradient(oracle.observe_update("client"), given["protocols"]), given["sizes"]
        dw, db = first_layer(update, schema.width, "SPEAR")
        several = any(len(Protocol(**p).steps) > 1 for p in given["protocols"])
        found = recover_all(model, update, several, sizes, rng, self.tries)
        data = torch.full((len(sizes), max(sizes), len(schema.names)), torch.nan, dtype=torch.float64)
        for i, (f, w, b, n) in enumerate(zip(found, dw, db, sizes)):
            fed = f.x if f.x is not None else candidates(w, b, n, EVERYWHERE, 1e-6)[0]
            data[i, :n] = schema.decode(fed.nan_to_num(0.0) * schema.std + schema.mean)
        given_labels = "labels" in knowledge
        labels = knowledge.labels if given_labels else torch.full(data.shape[:2], -1)
        notes = {"labels": "given" if given_labels else "none", "certified": [f.certified for f in found],
                 "draws": [f.tries for f in found], "deviation": [f.sigma for f in found]}  # fmt: skip
        return Reconstruction(data, labels, cost={"gradient_evaluations": 0}, notes=notes)
