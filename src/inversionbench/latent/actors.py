"""Soft actor-critic for many agents at once, one for each attacked class (Haarnoja et al., ICML 2018; RLB-MI).

An agent's policy draws an action a = tanh(mu(s) + sigma(s) e), e ~ N(0, 1) of its own for each dimension, from a state
s; with log pi(a|s) summed over dimensions, two critics Q and their slow copies Q',

    critics: (Q_k(s, a) - [R + gamma (1 - done) (min_k Q'_k(s', a') - tau log pi(a'|s'))])^2
    policy:  tau log pi(a|s) - min_k Q_k(s, a)            tau: log tau (log pi(a|s) - dim), so that entropy nears -dim

Agents share nothing: their weights are slices of one tensor, their losses are summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from math import log, pi

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.seeds import draw_seed

LOG_SIGMA = (-20.0, 2.0)


class Stacked(nn.Module):
    """One fully connected network with rectifiers for each agent: (agents, n, sizes[0]) -> (agents, n, sizes[-1])."""

    def __init__(self, agents: int, sizes: Sequence[int]):
        super().__init__()
        pairs = list(pairwise(sizes))
        self.weights = nn.ParameterList([nn.Parameter(_uniform((agents, a, b), a)) for a, b in pairs])
        self.biases = nn.ParameterList([nn.Parameter(_uniform((agents, 1, b), a)) for a, b in pairs])

    def forward(self, x: Tensor) -> Tensor:
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x, weight)
            x = F.relu(x) if i < last else x
        return x


def _uniform(shape: tuple[int, ...], fan_in: int) -> Tensor:
    return (2 * torch.rand(shape) - 1) / fan_in**0.5


class Memory:
    """What every agent has seen, the oldest replaced when it is full: states, actions, rewards, next states, done."""

    def __init__(self, agents: int, size: int, dim: int):
        self.states, self.actions, self.next = (torch.zeros(agents, size, dim) for _ in range(3))
        self.rewards, self.done = torch.zeros(agents, size), torch.zeros(size)
        self.size, self.seen = size, 0

    def __len__(self) -> int:
        return min(self.seen, self.size)

    def add(self, state: Tensor, action: Tensor, reward: Tensor, after: Tensor, done: bool) -> None:
        """state, action, after: (agents, dim); reward: (agents,). An episode ends for all agents at once."""
        at = self.seen % self.size
        self.states[:, at], self.actions[:, at], self.next[:, at] = state, action, after
        self.rewards[:, at], self.done[at] = reward, float(done)
        self.seen += 1

    def batch(self, n: int, rng: torch.Generator) -> tuple[Tensor, ...]:
        """n transitions, the same moments for every agent."""
        at = torch.randint(len(self), (n,), generator=rng)
        return self.states[:, at], self.actions[:, at], self.rewards[:, at], self.next[:, at], self.done[at]


@dataclass
class Agents:
    """count: agents; dim: of states and of actions; hidden: units of the two hidden layers of every network; rate: of
    Adam; discount: gamma; polyak: share of the new critics that enters their slow copies at each step."""

    count: int
    dim: int
    hidden: int
    rate: float
    discount: float
    polyak: float
    rng: torch.Generator

    def __post_init__(self) -> None:
        two = (self.hidden, self.hidden)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(self.rng))
            self.policy = Stacked(self.count, (self.dim, *two, 2 * self.dim))
            self.critics = nn.ModuleList([Stacked(self.count, (2 * self.dim, *two, 1)) for _ in range(2)])
        self.slow = deepcopy(self.critics).requires_grad_(False)
        self.log_tau = torch.zeros(self.count, requires_grad=True)
        self.optimisers = [torch.optim.Adam(p, self.rate) for p in
                           (self.policy.parameters(), self.critics.parameters(), [self.log_tau])]  # fmt: skip

    def act(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (agents, n, dim) in (-1, 1) at states of that shape, and log pi(a|s), (agents, n)."""
        mean, log_sigma = self.policy(state).chunk(2, dim=2)
        log_sigma = log_sigma.clamp(*LOG_SIGMA)
        e = torch.randn(mean.shape, generator=self.rng)
        action = (mean + log_sigma.exp() * e).tanh()
        normal = -0.5 * e.square() - log_sigma - 0.5 * log(2 * pi)
        return action, (normal - (1 - action.square() + 1e-6).log()).sum(2)

    def worth(self, critics: nn.ModuleList, state: Tensor, action: Tensor) -> Tensor:
        """What each of the two critics says: (2, agents, n)."""
        both = torch.cat([state, action], 2)
        return torch.stack([critic(both)[..., 0] for critic in critics])

    def learn(self, batch: tuple[Tensor, ...]) -> None:
        """One step of critics, policy and temperature on transitions as `Memory.batch` gives them."""
        state, action, reward, after, done = batch
        tau = self.log_tau.detach().exp()[:, None]
        with torch.no_grad():
            wanted = reward
            if not done.all():
                then, unsure = self.act(after)
                worth = self.worth(self.slow, after, then).min(0).values
                wanted = reward + self.discount * (1 - done) * (worth - tau * unsure)
        self._step(1, (self.worth(self.critics, state, action) - wanted).square().mean(2).sum())
        drawn, chance = self.act(state)
        self.critics.requires_grad_(False)
        self._step(0, (tau * chance - self.worth(self.critics, state, drawn).min(0).values).mean(1).sum())
        self.critics.requires_grad_(True)
        self._step(2, -(self.log_tau * (chance.detach().mean(1) - self.dim)).sum())
        with torch.no_grad():
            for old, new in zip(self.slow.parameters(), self.critics.parameters(), strict=True):
                old.lerp_(new, self.polyak)

    def _step(self, which: int, loss: Tensor) -> None:
        self.optimisers[which].zero_grad(set_to_none=True)
        loss.backward()
        self.optimisers[which].step()
