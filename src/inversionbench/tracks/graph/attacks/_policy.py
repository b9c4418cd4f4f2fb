"""Approach "policy" of RL-GraphMI: a graph network of the attacker's own learns which edge to add next.

    state    the graph so far; the attacker's features F = [X, one-hot y] of the nodes
    action   node u, then node v given u: two choices of n instead of one of n^2
    reward   l(A_t) - l(A_t+1) - unlike |x_u / sqrt d_u - x_v / sqrt d_v|^2
    end      after rho edges

Rollouts run side by side as one tensor. Every `horizon` edges the policy takes one step of advantage actor-critic on
what was gained since, with the value of the last state for what is to come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.seeds import draw_seed
from inversionbench.tracks.graph.attacks._edges import pairs

if TYPE_CHECKING:
    from inversionbench.tracks.graph.attacks._estimate import Wrong
    from inversionbench.tracks.graph.attacks.rl_graphmi import RLGraphMI

HIDDEN = 32
KEPT = 0.5  # of the rollouts, the last: their edges are the scores


class Policy(nn.Module):
    """h = relu(A F W + F V); u is chosen from (h_u, mean h), v from (h_u, h_v, h_u * h_v); the value is of mean h."""

    def __init__(self, features: int):
        super().__init__()
        self.around, self.own = nn.Linear(features, HIDDEN), nn.Linear(features, HIDDEN)
        self.first = nn.Sequential(nn.Linear(2 * HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
        self.second = nn.Sequential(nn.Linear(3 * HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
        self.value = nn.Linear(HIDDEN, 1)

    def embed(self, graphs: Tensor, features: Tensor) -> Tensor:
        """(k, n, n) -> (k, n, HIDDEN)."""
        spread = graphs / (1 + graphs.sum(2, keepdim=True))
        return (spread @ self.around(features) + self.own(features)).relu()

    def choose(self, h: Tensor, graphs: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """u and v (k,), the logarithm of their chance, and the entropy of both choices (k,)."""
        k, n, _ = h.shape
        taken = graphs + torch.eye(n)
        u, first, spread = _draw(self.first(torch.cat([h, h.mean(1, keepdim=True).expand_as(h)], 2)).squeeze(2),
                                 taken.sum(2) >= n, rng)  # fmt: skip
        at = torch.arange(k)
        hu = h[at, u][:, None].expand_as(h)
        v, second, further = _draw(self.second(torch.cat([hu, h, hu * h], 2)).squeeze(2), taken[at, u] > 0, rng)
        return u, v, first + second, spread + further

    def worth(self, h: Tensor) -> Tensor:
        return self.value(h.mean(1)).squeeze(1)


def _draw(logits: Tensor, barred: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A choice of each row among what is not barred; its log chance and the entropy."""
    log = logits.masked_fill(barred, -torch.inf).log_softmax(1)
    chosen = torch.multinomial(log.detach().exp(), 1, generator=rng)
    entropy = -(log.exp() * log.masked_fill(barred, 0.0)).sum(1)
    return chosen[:, 0], log.gather(1, chosen)[:, 0], entropy


def explore(
    attack: RLGraphMI, wrong: Wrong, x: Tensor, y: Tensor, edges: int, rng: torch.Generator
) -> list[tuple[int, Tensor]]:
    """(queries, scores (m,)) at a quarter, a half and the end of the budget."""
    features = torch.cat([x, F.one_hot(y).float()], 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw_seed(rng))
        policy = Policy(features.shape[1])
    optimiser = torch.optim.Adam(policy.parameters(), attack.learning_rate)
    cost = attack.parallel * edges + 1
    rounds, done = max(1, (attack.queries - 1) // (cost - 1)), []
    held: list[tuple[int, Tensor]] = []
    start = float(wrong(torch.zeros(1, len(y), len(y))))
    for episode in range(1, rounds + 1):
        done.append(rollout(attack, policy, optimiser, wrong, features, x, edges, start, rng))
        if episode in (max(1, rounds // 4), max(1, rounds // 2), rounds) and (not held or held[-1][0] < episode):
            held.append((episode, frequencies(done[int(len(done) * (1 - KEPT)) :])))
    return [(1 + episode * (cost - 1), scores) for episode, scores in held]


def rollout(
    attack: RLGraphMI, policy: Policy, optimiser: torch.optim.Optimizer, wrong: Wrong, features: Tensor, x: Tensor,
    edges: int, start: float, rng: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Graphs (k, n, n) of `edges` edges each and their label agreement (k,), with the policy learning on the way."""
    k, n = attack.parallel, len(features)
    graphs, loss, at = torch.zeros(k, n, n), torch.full((k,), start), torch.arange(attack.parallel)
    steps: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for t in range(1, edges + 1):
        h = policy.embed(graphs, features)
        u, v, chance, entropy = policy.choose(h, graphs, rng)
        graphs = graphs.clone()
        graphs[at, u, v] = graphs[at, v, u] = 1
        after, degree = wrong(graphs), graphs.sum(2)
        apart = x[u] / degree[at, u].sqrt()[:, None] - x[v] / degree[at, v].sqrt()[:, None]
        steps.append((loss - after - attack.unlike * apart.square().sum(1), policy.worth(h), chance, entropy))
        loss = after
        if t % attack.horizon == 0 or t == edges:
            with torch.no_grad():
                ahead = policy.worth(policy.embed(graphs, features)) * (t < edges)
            learn(optimiser, steps, ahead, attack.discount, attack.entropy)
            steps = []
    return graphs, 1 - loss


def learn(
    optimiser: torch.optim.Optimizer, steps: list[tuple[Tensor, Tensor, Tensor, Tensor]], ahead: Tensor,
    discount: float, entropy: float,
) -> None:
    """One step of advantage actor-critic. steps: (reward, value, log chance, entropy), each (k,). ahead: value of the
    state behind the last (k,)."""
    returns = ahead
    gains: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for reward, value, chance, spread in reversed(steps):
        returns = reward + discount * returns
        gains.append((returns, value, chance, spread))
    total, value, chance, spread = (torch.stack(column) for column in zip(*gains))
    gain = (total - value).detach()
    gain = (gain - gain.mean()) / (gain.std() + 1e-6)
    loss = -(gain * chance).mean() + (total - value).square().mean() - entropy * spread.mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def frequencies(done: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The share of rollouts that have each pair, weighted by their label agreement, (m,)."""
    graphs, weights = (torch.cat(column) for column in zip(*done))
    row, column = pairs(graphs.shape[1])
    return (weights @ graphs[:, row, column]) / weights.sum().clamp_min(1e-12)
