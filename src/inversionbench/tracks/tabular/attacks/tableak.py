"""TabLeak (survey 3.7.3): the rows of a federated client's batch from its gradient.

Vero, Balunović, Dimitrov, Vechev, "TabLeak: Tabular Data Leakage in Federated Learning", ICML 2023. The server knows
the model, the batch size, the schema of the table with its standardisation, and the labels (or recovers their
counts by the rule of Geng et al.). From u ~ U(-1, 1) it minimises for every restart

    J(u) = 1 - cos(g(r(u)), g),    u <- Adam(sign dJ/du)

with r the structural relaxation (`_relax`: a softmax per category, a sigmoid between the bounds of a number), g(.)
the simulated and g the observed gradient. The restarts are then pooled instead of selected (`_pool`): scored by
J of their hard rows, matched row by row to the best one, and combined by the median of every cell; a category is
the largest share, a number is clipped and rounded. The entropy of a pooled cell says how sure it is, without
any truth. Weight differences of several local steps are simulated step by step on one shared set of rows.

Parameters: `relax` False with one restart is Inverting Gradients on the standardised vector, the plain
baseline. pooling: "median", "mean", or "best", which selects. match: "mask" compares only the entries that a
sparsifying defense sent; "known" does what fits what is public of the defense: the entries or frequency coefficients
that were sent, and a sum of several clients as one large batch, whose rows are filed under the client with whose labels
they were searched (two clients with one label may be swapped, which counts against the attack).

Measured (500 iterations, 8 restarts, untrained 100-100 network, 10 batches of the generated census; cells right at
batch 16 / 32): pooled 91 / 76 %, best restart 94 / 74, one restart 87 / 73, plain 75 / 67, another client's rows
54 / 60. Below 300 iterations the relaxation adds nothing.

Budget: smaller scales take 8 of the 30 restarts and all 1500 iterations. Cells right (%) over iterations, 8 restarts,
the same network, known labels:

                                           250    500   1000   1500   2000   3000
    bank marketing, batch 8 (8 clients)     84    100    100    100    100    100
    bank marketing, batch 32 (2)                   84     90     91     91
    generated census, batch 32 (4)                 79     81     82            83 (2 of them: 83 at 1500)

With 15 restarts nothing more at batch 8; 1.6 more at batch 32, where only one client was tried. A rate that falls to 0
gives less at 1000 iterations and the same at 1500. Wider tables take longer: Adult, batch 8, 77 % at 500 iterations
and 8 restarts, 98 at 1500 and 15. A restart costs 75 us an iteration at batch 8 and 370 at 32, nearly all of it in
matrix products.

Deviations: one dummy set is shared by all local epochs (the paper may tie one set per epoch by a prior);
restarts of all clients of a batch size are one tensor, the gradients written out (`gradients.fully_connected`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.errors import UserError, suggest
from inversionbench.core.ranges import Count, Positive

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle

MATCHES = ("plain", "mask", "known")


@dataclass(frozen=True)
class TabLeak(Attack):
    """data: float64 (clients, largest batch, columns), decoded rows, NaN beyond a client's batch; scores: the
    doubt of each cell, of the same shape. notes["variants"]: the answers of other rules on the same restarts:
    the best restart, the first one, and pooling of rows that were not matched but shuffled.
    """

    id: ClassVar[str] = "tableak"
    level: ClassVar[str] = "GR"
    asks: ClassVar[str] = "rows"
    budget: ClassVar[tuple[str, ...]] = ("iterations", "restarts")

    iterations: Count = 1500
    rate: Positive = 0.06
    restarts: Count = 30
    pooling: str = "median"
    relax: bool = True
    match: Literal["plain", "mask", "known"] = "plain"
    label_rule: str = "geng"

    def __post_init__(self) -> None:
        from inversionbench.tracks.tabular.attacks._pool import RULES

        for name, got, allowed in (("pooling", self.pooling, RULES), ("match", self.match, MATCHES)):
            if got not in allowed:
                raise UserError(f"tableak.{name}: '{got}': {suggest(got, allowed)}")
        if self.restarts < 1 or self.iterations < 0:
            raise UserError(f"tableak: expected restarts >= 1, iterations >= 0, got {self.restarts}, {self.iterations}")

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.tracks.tabular.attacks._row_search import search

        return search(self, oracle, knowledge, rng, "client")
