"""Local DP with parameter degradation (survey 4.4; Li, Yu, Cheng, Yan, Zhang, IEEE TSC 2024): reconstruction.

Every client clips its update and adds Gaussian noise before anything leaves, with a budget per round that
grows over the rounds, and sends only a part of the coordinates; the server weighs clients in the mean.
The formulas of the paper were not available; these are sound choices for what its description says:

1. coordinates: all, or a share `keep`, chosen from what is public and so free of budget: half of them where the
   global model has changed most since the client's last round, half drawn anew by the round's number (before there is
   a change, all). By the change alone only what was once sent would ever be sent again.
2. clip what is kept to the L2 norm `clip`.
3. noise of standard deviation s = strength * clip / sqrt(K) on the K kept coordinates, divided by growth^t in
   round t. So strength is the ratio of the expected noise norm to the clipping norm, in the first round.
4. server: per coordinate the mean over the clients that sent it, weighted by their numbers of images (all have
   the same noise, so inverse variances are equal).

Guarantee: local DP at client level. Any two updates are neighbours, the sensitivity is 2 clip, so the noise
multiplier is strength / (2 sqrt(K)): epsilon of one round by the exact Gaussian condition, of all rounds that the
federation trains by Renyi composition. At strengths of order 1 and 1e4 parameters epsilon is in the thousands: that
is noise, not privacy, and `private` says so (total epsilon <= 10).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Client, Defense
from inversionbench.core.ranges import Positive, PositiveShare, Probability

if TYPE_CHECKING:
    from torch import Tensor

MEANINGFUL = 10.0  # a total epsilon above this is not called private
RELATION = "replace one client's update by any other"


@dataclass(frozen=True)
class LocalDp(Defense):
    """clip: L2 norm. keep: share of coordinates sent. growth: of the budget per round. delta: of the guarantee."""

    id = "local_dp"
    hooks = frozenset({"client_update", "aggregate"})
    federated = True
    effect = ("cos_sent_true", "lower", 0.999)
    places = ("clip", "noise")

    clip: Positive = 1.0
    keep: PositiveShare = 1.0
    growth: Positive = 1.02
    delta: Probability = 1e-5

    def __post_init__(self) -> None:
        if self.strength < 0 or self.clip <= 0 or not 0 < self.keep <= 1 or self.growth < 1:
            raise ValueError(
                "local_dp: expected strength >= 0, clip > 0, 0 < keep <= 1, growth >= 1, got "
                f"{self.strength}, {self.clip}, {self.keep}, {self.growth}"
            )

    def client_update(self, update: dict[str, Tensor], ctx: Client) -> dict[str, Tensor]:
        import torch

        if self.strength == 0:
            return update
        flat = torch.cat([g.flatten() for g in update.values()])
        chosen = self._coordinates(flat, ctx)
        part = flat[chosen]
        part = part * min(1.0, self.clip / max(float(part.norm()), 1e-30))
        std = self.noise_std(len(part), ctx.round)
        part = part + std * torch.randn(len(part), generator=ctx.rng).to(part)
        sent = torch.zeros_like(flat)
        sent[chosen] = part
        ctx.state["public"] = {"noise_std": std, **self.spent(len(part), ctx.rounds)}
        pieces = sent.split([g.numel() for g in update.values()])
        return {name: piece.view_as(g) for (name, g), piece in zip(update.items(), pieces)}

    def noise_std(self, coordinates: int, round: int) -> float:
        """Of one coordinate in a round (from 0)."""
        return self.strength * self.clip / math.sqrt(coordinates) / self.growth**round

    def spent(self, coordinates: int, rounds: int) -> dict[str, float]:
        """Client-level local DP: epsilon of the first round and of all rounds, at `delta`."""
        from inversionbench.defenses.differential_privacy._accounting import epsilon_exact, epsilon_gaussian

        sigmas = tuple(self.noise_std(coordinates, t) / (2 * self.clip) for t in range(rounds))
        total = epsilon_gaussian(sigmas, self.delta)
        return {
            "epsilon_round": epsilon_exact(sigmas[0], self.delta),
            "epsilon_total": total,
            "delta": self.delta,
            "private": float(total <= MEANINGFUL),
            "mu_round": 1 / sigmas[0],
        }

    def statements(self, rate: float, steps: int, parameters: int, rounds: int) -> tuple[str, ...]:
        if self.strength == 0:
            return ()
        from inversionbench.defenses.differential_privacy._accounting import in_words

        told = self.spent(math.ceil(self.keep * parameters), rounds)
        spans = f"{rounds} rounds", "the first"
        return (in_words(told, spans, "client", RELATION, "RDP, one round exact Gaussian"),)

    def _coordinates(self, flat: Tensor, ctx: Client) -> Tensor:
        """Indices of the coordinates to send, in order, from public information."""
        import torch

        count = math.ceil(self.keep * len(flat))
        now = torch.cat([p.detach().flatten() for p in ctx.parameters.values()])
        before = ctx.state.get("parameters")
        ctx.state["parameters"] = now.clone()
        if count == len(flat):
            return torch.arange(len(flat))
        drawn = torch.randperm(len(flat), generator=torch.Generator().manual_seed(ctx.round))
        led = drawn[:0]
        if before is not None and bool((now != before).any()):
            led = (now - before).abs().topk(-(-count // 2)).indices.to(drawn)
        return torch.cat([led, drawn[~torch.isin(drawn, led)][: count - len(led)]]).sort().values

    def aggregate(
        self, payloads: Sequence[dict[str, Tensor]], weights: Sequence[float]
    ) -> tuple[dict[str, Tensor], Sequence[dict[str, Tensor]]]:
        if self.strength == 0 or self.keep == 1:
            return super().aggregate(payloads, weights)
        mean = {}
        for name in payloads[0]:
            sent = [(p[name] != 0).to(p[name].dtype) * w for p, w in zip(payloads, weights)]
            total = sum(p[name] * w for p, w in zip(payloads, weights))
            mean[name] = total / sum(sent).clamp_min(1e-30)  # type: ignore[union-attr]
        return mean, payloads

    def bytes_sent(self, update: dict[str, Tensor]) -> int:
        if self.strength == 0 or self.keep == 1:
            return super().bytes_sent(update)
        from inversionbench.defenses.gradient_pruning._ranks import sparse_bytes

        values = sum(t.numel() for t in update.values())
        return sparse_bytes(math.ceil(self.keep * values), values)

    def public_knowledge(self) -> dict[str, Any]:
        """The mechanism; the noise itself stays with the client."""
        return {"noise": "gaussian", "ratio": self.strength, "clip": self.clip, "keep": self.keep}
