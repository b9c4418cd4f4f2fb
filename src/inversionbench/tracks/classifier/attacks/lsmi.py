"""LSMI: the attack side of the study of label smoothing. No new attack; the same one on targets that differ in alpha.

Survey 3.4 (miscellaneous), and section 4 as a defense. Struppek, Hintersdorf, Kersting, "Be Careful What You
Smooth For: Label Smoothing Can Be a Privacy Shield but Also a Catalyst for Model Inversion Attacks", ICLR 2024.

The study attacks targets trained with alpha > 0 (`label_smoothing`), alpha = 0 and alpha < 0
(`negative_label_smoothing`, with its schedule) by the Plug & Play attack, which does not know alpha: this
class is `ppa` with the study's settings, and asks the evaluation for the knowledge extraction score besides
the usual metrics (a fresh classifier trained on the answers alone, in the record's facts).

Read it beside a black-box row: a defense that only breaks gradients loses less against labels or scores. Worth
asking too: `gmi` and `gmi_margin` (another loss on the logits), and the target's own accuracy, which negative
smoothing costs.

Whether the shield holds can only be read off targets on which it acted (`negative_label_smoothing` says when), attacked
with both losses on the logits: what was measured on small portraits, where the cross entropy loses and the margin loss
does not, stands there.

Parameters: those of `ppa`, with 5000 samples, 200 candidates, 70 steps of rate 0.005 and 50 kept, as in the
study's configuration for CelebA with a prior trained on FFHQ. Deviations: those of `ppa`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from inversionbench.tracks.classifier.attacks.ppa import Ppa

if TYPE_CHECKING:
    import torch

    from inversionbench.core.attack import Knowledge, Reconstruction
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class Lsmi(Ppa):
    id: ClassVar[str] = "lsmi"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        answer = super().run(oracle, knowledge, rng)
        answer.notes["extract"] = True
        return answer
