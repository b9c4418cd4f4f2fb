"""Control: TabLeak with the update of somebody else.

Everything is as in `tableak`, and the attacker is given the right labels, but the update is that of a decoy
client: other rows with the same labels. What this row reaches is what schema, labels and the freedom of matching
give without any gradient of the batch; it should lie near the marginals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from inversionbench.core.attack import Knowledge, Reconstruction
from inversionbench.tracks.tabular.attacks.tableak import TabLeak

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class WrongRows(TabLeak):
    """The parameters of `tableak`."""

    id: ClassVar[str] = "wrong_rows"
    control: ClassVar[bool] = True
    control_without_defense: ClassVar[bool] = True

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.tracks.tabular.attacks._row_search import search

        return search(self, oracle, knowledge, rng, "decoy")
