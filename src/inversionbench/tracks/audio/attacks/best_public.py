"""Control: the public windows that the target takes most for the wanted speaker. Scores alone, no gradient.

As many queries as `sliding_mi` makes window evaluations for 12 speakers: `queries` windows of public clips, drawn at
random (all there are, where these are fewer), each asked about once for all speakers; the best ones of each speaker
side by side are the answer. An inversion that does not beat it has found no more than who else sounds alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle

HOP = 4  # frames between public windows: many that differ


@dataclass(frozen=True)
class BestPublic(Attack):
    """data: float (n, 1, bands, frames) in [0, 1], `copies` signals for each wanted speaker."""

    id: ClassVar[str] = "best_public"
    level: ClassVar[str] = "BB-S"
    control: ClassVar[bool] = True
    budget: ClassVar[tuple[str, ...]] = ("queries",)

    queries: Count = 2880
    copies: Count = 1

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        import torch

        from inversionbench.tracks.audio.attacks._public import public_windows

        assert oracle.input_spec is not None
        width = oracle.input_spec.shape[2]
        every = public_windows(knowledge.public, width, HOP)
        asked = every[torch.randperm(len(every), generator=rng)[: self.queries]]
        scores = oracle.scores(asked[:, None].contiguous())
        labels, parts = knowledge.targets.repeat_interleave(self.copies), max(1, knowledge.frames // width)
        best = scores[:, knowledge.targets].topk(min(len(asked), self.copies * parts), dim=0).indices.T
        order = torch.arange(self.copies * parts) % best.shape[1]  # few public windows are used again
        chosen = asked[best[:, order]].unflatten(1, (parts, self.copies))  # (speakers, parts, copies, bands, width)
        x = chosen.permute(0, 2, 3, 1, 4).flatten(3).flatten(0, 1)
        return Reconstruction(x[:, None].contiguous(), labels, notes={"windows": len(asked)})
