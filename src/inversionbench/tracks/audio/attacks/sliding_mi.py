"""Sliding MI (survey 3.7.2): a speaker's sound from a recogniser, by windows that slide over a longer signal.

Pizzi, Boenisch, Sahin, Böttinger, "Introducing Model Inversion Attacks on Automatic Speaker Recognition", SPSC 2023
(abstract read; window, hop and steps are rebuilt). Of a long signal X, frames of a log-mel patch, the window X[n hop :
n hop + W] is inverted, n = 0, 1, ...: from what it holds, the cross-entropy of the wanted speaker is descended by Adam,
and the window is written back. With hop < W the next window begins with frames that are inverted already.

mode: "sliding" as above; "chunks" the same with hop W, each window on its own; "long" all frames at once, on the mean
over windows side by side. All three make `calls` window evaluations (forward and backward) for each signal.
components: 0 searches the patch itself, from noise; else the coordinates in so many principal components of public
speakers' patches (an addition), kept within `reach` standard deviations, from a random point.

The recogniser takes mel windows, so mel is inverted, not samples. Deviations: cross-entropy for 1 - f_t, which
saturates; a fixed number of steps, so that all ways cost the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, Positive, Whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from inversionbench.oracle.base import Oracle
    from inversionbench.tracks.audio.attacks._public import Components

SPREAD = 0.5  # of the random start among components, in standard deviations


@dataclass(frozen=True)
class SlidingMI(Attack):
    """data: float (n, 1, bands, frames) in [0, 1], `copies` signals for each wanted speaker."""

    id: ClassVar[str] = "sliding_mi"
    level: ClassVar[str] = "WB"
    budget: ClassVar[tuple[str, ...]] = ("calls",)

    mode: Literal["sliding", "chunks", "long"] = "sliding"
    hop: Count = 12
    calls: Count = 240
    rate: Positive = 0.05
    components: Whole = 0
    reach: Positive = 2.5
    copies: Count = 1

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.tracks.audio.attacks._public import Components

        network, frames = oracle.module(), knowledge.frames
        assert oracle.input_spec is not None
        _, bands, width = oracle.input_spec.shape
        labels = knowledge.targets.repeat_interleave(self.copies)
        size = frames if self.mode == "long" else width
        prior = Components.of(knowledge.public, size, self.components) if self.components else None
        starts = self._starts(frames, width)
        parts = max(1, frames // width) if self.mode == "long" else 1  # windows evaluated in a step
        steps = max(1, self.calls // (len(starts) * parts))
        x = self._noise(len(labels), bands, frames, prior, rng)
        for n, start in enumerate(starts):
            place = (..., slice(start, start + size))
            fresh = n == 0 or self.mode == "chunks"
            x[place] = self._invert(network, x[place], labels, width, steps, prior, fresh, rng)
        return Reconstruction(x[:, None], labels, notes={"windows": len(starts) * parts, "steps": steps})

    def _starts(self, frames: int, width: int) -> list[int]:
        """First frames of the windows; the last window ends with the signal."""
        if self.mode == "long":
            return [0]
        last = frames - width
        return [*range(0, last, self.hop if self.mode == "sliding" else width), last]

    def _noise(self, n: int, bands: int, frames: int, prior: Components | None, rng: torch.Generator) -> Tensor:
        """The start, (n, bands, frames): noise around the middle, or random patches of the prior side by side."""
        import torch

        if prior is None:
            return (0.5 + 0.1 * torch.randn(n, bands, frames, generator=rng)).clamp(0, 1)
        drawn = [prior.patch(prior.draw(n, SPREAD, rng)) for _ in range(-(-frames // prior.frames))]
        return torch.cat(drawn, 2)[..., :frames].clone()

    def _invert(
        self, network: nn.Module, x: Tensor, labels: Tensor, width: int, steps: int, prior: Components | None,
        fresh: bool, rng: torch.Generator,
    ) -> Tensor:
        """One window after `steps` steps, (n, bands, frames). fresh: it holds nothing inverted yet."""
        import torch
        from torch.nn import functional as F

        from inversionbench.models.audio import windows

        if prior is None:
            free, bounds, shown = x.clone(), (0.0, 1.0), lambda z: z
        else:
            start = prior.draw(len(x), SPREAD, rng) if fresh else prior.coordinates(x)
            free, bounds, shown = start.clamp(-self.reach, self.reach), (-self.reach, self.reach), prior.patch
        free.requires_grad_()
        optimiser = torch.optim.Adam([free], self.rate)
        for _ in range(steps):
            cut = windows(shown(free), width)  # (n, windows, bands, width)
            logits = network(cut.flatten(0, 1)[:, None])
            loss = F.cross_entropy(logits, labels.repeat_interleave(cut.shape[1]), reduction="sum") / cut.shape[1]
            (free.grad,) = torch.autograd.grad(loss, free)
            optimiser.step()
            with torch.no_grad():
                free.clamp_(*bounds)
        return shown(free.detach())
