"""RLB-MI: an agent for each class learns by reinforcement which latents the target calls that class.

Survey 3.2 (generative). Han, Choi, Lee, Kim, "Reinforcement Learning-Based Black-Box Model Inversion Attacks", CVPR
2023. States and actions are latents of a public GAN. From s ~ N(0, I), `max_step` times:

    a from the agent's policy, in (-1, 1)^d;     s' = diversity s + (1 - diversity) a
    R = state_weight log p_y(G(s')) + action_weight log p_y(G(a))
        + margin_weight log max(1e-7, p_y(G(s')) - max over other classes of p(G(s')))

and one step of soft actor-critic (`latent.actors`) on `batch` transitions remembered, `updates` times, once there are
so many. The answer is the image G(s') at the end of an episode with the highest p_y of all: such an image is a roll-out
of the policy from a fresh state, what the released code asks for once more. Queries: one for each step at diversity 0,
where s' = a, else two. log p is at least log 1e-7, too. With max_step 1, as in all reported runs, an episode is over at
once and the critics learn the reward itself. Parameters as published; keep_at: episodes whose best images are kept for
curves. Latents are those of the box (-1, 1), what N(0, I) has outside is never made.

Not as in the released code: noise has a value of its own for each dimension and row (there one number for all), log pi
is summed over dimensions (there averaged, against a target of -d, so that the temperature only falls), nothing is
asked twice (there three queries an episode), the policy's loss has the smaller of the critics (there the first).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, ShareBelowOne
from inversionbench.latent.actors import Agents, Memory
from inversionbench.latent.rows import generate, passes_per_answer

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.core.prior import Prior
    from inversionbench.oracle.base import Oracle

FLOOR = 1e-7


@dataclass(frozen=True)
class RlbMi(Attack):
    id: ClassVar[str] = "rlb_mi"
    level: ClassVar[str] = "BB-S"
    prior: ClassVar[str] = "dcgan"
    budget: ClassVar[tuple[str, ...]] = ("episodes", "max_step")

    episodes: Count = 40000
    max_step: Count = 1
    diversity: ShareBelowOne = 0.0
    state_weight: NonNegative = 2.0
    action_weight: NonNegative = 2.0
    margin_weight: NonNegative = 8.0
    hidden: Count = 256
    rate: Positive = 5e-4
    batch: Count = 256
    updates: Count = 1
    memory: Count = 1_000_000
    discount: ShareBelowOne = 0.99
    polyak: Positive = 0.01
    keep_at: tuple[Count, ...] = ()

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        prior, y = knowledge.prior, knowledge.targets
        agents = Agents(len(y), prior.z_dim, self.hidden, self.rate, self.discount, self.polyak, rng)
        memory = Memory(len(y), min(self.memory, self.episodes * self.max_step), prior.z_dim)
        best, score = torch.zeros(len(y), prior.z_dim), torch.full((len(y),), -1.0)
        rewards, kept = [], []
        for episode in range(1, self.episodes + 1):
            state, total = prior.sample(len(y), rng), torch.zeros(len(y))
            for step in range(1, self.max_step + 1):
                with torch.no_grad():
                    action = agents.act(state[:, None])[0][:, 0]
                after = self.diversity * state + (1 - self.diversity) * action
                reward, own = self.reward(oracle, prior, after, action, y)
                memory.add(state, action, reward, after, step == self.max_step)
                for _ in range(self.updates if len(memory) >= self.batch else 0):
                    agents.learn(memory.batch(self.batch, rng))
                state, total = after, total + reward
            better = own > score
            best[better], score[better] = state[better], own[better]
            rewards.append(float(total.mean()))
            if episode in self.keep_at and episode < self.episodes:
                kept.append((passes_per_answer(oracle, len(y)), generate(prior, best)))
        images = generate(prior, best)
        end = (passes_per_answer(oracle, len(y)), images)
        return Reconstruction(images, y, scores=score[:, None], checkpoints=[*kept, end], notes=_trend(rewards))

    def reward(
        self, oracle: Oracle, prior: Prior, state: Tensor, action: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        """R of new states and the actions that led there, (classes, dim) each, and p_y of the states: (classes,)."""
        p = oracle.scores(generate(prior, state))
        own = p.gather(1, y[:, None])[:, 0]
        others = p.scatter(1, y[:, None], -torch.inf).max(1).values
        acted = own
        if self.diversity:
            acted = oracle.scores(generate(prior, action)).gather(1, y[:, None])[:, 0]
        parts = zip((self.state_weight, self.action_weight, self.margin_weight), (own, acted, own - others))
        return sum(weight * part.clamp_min(FLOOR).log() for weight, part in parts), own  # type: ignore[return-value]


def _trend(rewards: list[float]) -> dict[str, float]:
    """Mean reward of the first and of the last tenth of the episodes."""
    n = max(len(rewards) // 10, 1)
    return {"first_reward": sum(rewards[:n]) / n, "last_reward": sum(rewards[-n:]) / n}
