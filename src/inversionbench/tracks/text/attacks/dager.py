"""DAGER (survey 3.7.3): exact sentences from a language model's gradient, without optimisation.

Petrov, Dimitrov, Baader, Müller, Vechev, "DAGER: Exact Gradient Inversion for Large Language Models", NeurIPS 2024.
The gradient of an attention projection is a sum over the places of a batch of (error x input), so its row space
holds the projection's inputs as long as there are fewer of them than the width. The attack:

1. the rank and an orthonormal basis of the rows of the fused query-key-value gradient, blocks 1 and 2 (`_span`);
2. words: (word, place) may be in the batch if what block 1 would read for it lies in the first span, closer
   than `token_threshold`; the first place without a word ends the batch;
3. sentences: prefixes grow place by place; a word is kept if what block 2 would read at its place lies in the
   second span, closer than `sequence_threshold`. A prefix that nothing extends is a sentence (`_prefixes`).

Both steps are certain while the spans are proper: the second holds one dimension per distinct prefix of the batch and
is full at width - 1 (layer normalisation takes one away). Nothing is learnt or guessed; labels, batch size and
a language model are not needed. The batch size only says how many sentences to hand over.

A gradient with noise has full rank and no input lies in its span, so the thresholds find nothing. The attacker
who knows that sets `rank` to "noise" (the singular directions above the noise, estimated) and `outlier` above 0: a
word passes if its distance, measured by what that noise explains, lies that many deviations below the usual
(`_span`). At least the `nearest` x batch closest words of a place are tried, and `beam` x batch prefixes go on. Of a
sum of clients it looks for the sentences of all; which client wrote which it cannot say, and deals them out in order.

Measured (width 128, generated notes): of 120 batches of 8 to 14 sentences exactly those with at most 126 different
prefixes came back whole. Noise of 0.01 % of the update's norm ends the plain attack; the adaptive one returns 9 of
10 sentences at 0.1 % and a quarter at 1 %, batches of 4 and 8.

Deviations: the fused gradient instead of the query's alone (the query's is zero at the first place of a causal
model); decoders only. Where the search gives fewer sentences than the batch has, the closest words of every
place fill up. Defaults are for float64 gradients of small models; the authors use 1e-5 and 1e-3 in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.errors import UserError, suggest
from inversionbench.core.ranges import NonNegative, Positive, Whole

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class Dager(Attack):
    """data: int64 (clients, largest batch, length), token numbers with padding; scores: (clients, largest batch), the
    sum of the judge's over a sentence's places, 1 where words only fill up. `limit`: most prefixes tested at a place.
    """

    id: ClassVar[str] = "dager"
    level: ClassVar[str] = "GR"

    token_threshold: NonNegative = 1e-6
    sequence_threshold: NonNegative = 1e-5
    rank: str = "tolerance"
    tolerance: NonNegative = 1e-10
    limit: Whole = 20000
    outlier: NonNegative = 0.0
    nearest: NonNegative = 1.0
    beam: Positive = 8.0

    def __post_init__(self) -> None:
        from inversionbench.tracks.text.attacks._span import RULES

        if self.rank not in RULES:
            raise UserError(f"dager.rank: '{self.rank}': {suggest(self.rank, RULES)}")
        if self.limit < 1 or self.outlier < 0 or self.nearest < 0 or self.beam < 1:
            raise UserError("dager: expected limit >= 1, beam >= 1, outlier >= 0 and nearest >= 0")

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.tracks.text.attacks._sentences import recover

        return recover(self, oracle, knowledge)
