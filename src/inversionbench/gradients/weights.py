"""GI-NAS's two stages: scoring untrained networks by one gradient each, and fitting their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inversionbench.gradients.latent import Matcher
from inversionbench.gradients.search import Best, Found, milestones
from inversionbench.gradients.untrained import Architecture, UNet, draw, make

TOGETHER = 32  # candidates scored at once


@dataclass(frozen=True)
class Candidates:
    """Random architectures, the seeds of their weights, and the noise that all of them read."""

    of: list[Architecture]
    seeds: list[int]
    z0: Tensor
    width: int

    @classmethod
    def draw(
        cls, count: int, levels: int, width: int, shape: tuple[int, ...], rng: torch.Generator,
        where: torch.device | None = None,
    ) -> Candidates:
        """shape: (batch, c, h, w). where: the device of the noise and so of the networks."""
        z0 = torch.randn(shape, generator=rng).to(where or "cpu")
        seeds = torch.randint(2**31, (count,), generator=rng).tolist()
        return cls([draw(levels, rng) for _ in range(count)], seeds, z0, width)

    def network(self, i: int) -> UNet:
        return make(self.of[i], self.z0.shape[1], self.width, self.seeds[i]).to(self.z0.device)

    @torch.no_grad()
    def scores(self, matcher: Matcher) -> Tensor:
        """Matching loss of every candidate for every client: (clients, candidates)."""
        front = matcher.problem.model.front
        columns = []
        for start in range(0, len(self.of), TOGETHER):
            group = range(start, min(start + TOGETHER, len(self.of)))
            x = torch.stack([front(self.network(i)(self.z0)) for i in group])
            rows = [
                matcher.matching.of([c] * len(x))(matcher.client(x, matcher.y[c].expand(len(x), *matcher.y[c].shape)))
                for c in range(matcher.trials)
            ]
            columns.append(torch.stack(rows))
        return torch.cat(columns, dim=1)


def fit(
    matcher: Matcher, networks: Sequence[UNet], z0: Tensor, steps: int, rate: float, signed: bool
) -> Found:
    """Fit each client's network to its observed update; the best images by matching loss.

    Networks differ, so each makes its own images, but all clients share one simulation of the gradients.
    """
    networks = [net.train() for net in networks]
    params = [p for net in networks for p in net.parameters()]
    optimiser = torch.optim.Adam(params, rate)
    compare = matcher.of(slice(None))
    front = matcher.problem.model.front
    best, held = None, []
    for t in range(steps):
        x = torch.stack([front(net(z0)) for net in networks])
        objective, match = compare(x)
        best = best or Best(x)
        best.offer(x.detach(), objective.detach(), match.detach())
        if t + 1 in milestones(steps):
            held.append(((t + 1) * len(x), best.x.clone(), best.match.clone()))
        gradients = torch.autograd.grad(objective.sum(), params, allow_unused=True)
        for p, g in zip(params, gradients):
            p.grad = None if g is None else (g.sign() if signed else g).nan_to_num(0.0)
        optimiser.step()
    assert best is not None
    frozen = ~torch.isfinite(best.match)
    return Found(best.x, best.objective, best.match, steps * len(networks), frozen, held)
