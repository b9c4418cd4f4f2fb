"""Adversarial noise on the scores: each answer becomes an adversarial example against inversion networks. Step rule and
constants are a `reconstruction`: of the paper only the abstract could be read.

Survey 7.1. Wen, Yiu, Hui, "Defending Against Model Inversion Attack by Adversarial Examples", IEEE CSR 2021.

The defender trains an inversion network I of its own on public images and the trained classifier's answers to them
(`learn`). From an answer p it then walks away from what I makes of it, inside what may be released:

    maximise |I(log q) - I(log p)|^2   by `steps` steps of length 2 strength / steps along the normalised gradient
    subject to   q a distribution,   |q - p|_1 <= strength,   argmax q = argmax p

The last holds bit for bit: the label modifier lifts the label's score `margin` above the others, the way back to p
keeps it there (the set of q with this label is convex and holds p), and an answer that rounding would still relabel is
released as it is. Another network than the attacker's is attacked: the defense relies on transfer.

The reference is I(log p), not the input x: over all inputs with the same answer both objectives differ by a constant
where I is the posterior mean, and a release that depends on p alone cannot say more of x than p does; repeated
questions get the same answer without a memory. direction `random` goes the same distance in a direction that the
answer's own digits draw: the baseline.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.defense import Defense
from inversionbench.core.device import device
from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, NonNegative, Positive
from inversionbench.core.seeds import draw_seed
from inversionbench.models.inverse import Inverse, log_scores

if TYPE_CHECKING:
    from inversionbench.data.base import Dataset

LEAST = 1e-8  # of a released score
BATCH, RATE = 64, 2e-3


@dataclass(frozen=True)
class AdversarialNoise(Defense):
    """strength: most change of an answer, the sum of absolute differences (2 allows all). steps: of the walk. margin:
    of the label. pairs, epochs, width: of the defender's network."""

    id: ClassVar[str] = "adversarial_noise"
    hooks: ClassVar[frozenset[str]] = frozenset({"release"})
    inputs: ClassVar[tuple[str, ...]] = ("image",)
    keeps_labels: ClassVar[bool] = True
    learnt: ClassVar[bool] = True

    strength: NonNegative = 0.0
    direction: Literal["adversarial", "random"] = "adversarial"
    steps: Count = 10
    margin: Positive = 1e-3
    pairs: Count = 3000
    epochs: Count = 10
    width: Count = 12
    learned: dict[str, Any] | None = None  # shape and state of I; never a parameter: `learn` sets it

    def learn(self, net: nn.Module, data: Dataset, rng: torch.Generator) -> AdversarialNoise:
        if self.strength == 0 or self.direction == "random":
            return self
        rows = torch.randperm(len(data.public), generator=rng)[: self.pairs]
        images = data.public.images(rows.numpy()).to(device())
        with torch.no_grad():
            seen = log_scores(torch.cat([net(part).softmax(1) for part in images.split(256)]))
        shape: tuple[int, int, int] = data.shape  # type: ignore[assignment]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(rng))
            own = Inverse((seen.shape[1],), shape, self.width).to(device())
        adam, total = torch.optim.Adam(own.parameters(), RATE), self.epochs * max(1, len(seen) // BATCH)
        for step in range(total):
            batch = torch.randint(len(seen), (BATCH,), generator=rng)
            adam.param_groups[0]["lr"] = RATE * (1 - step / total)
            adam.zero_grad()
            F.mse_loss(own(seen[batch]), images[batch]).backward()
            adam.step()
        state = {name: value.detach().cpu().clone() for name, value in own.state_dict().items()}
        return replace(self, learned={"shape": list(shape), "state": state})

    def release(self, logits: Tensor, rng: torch.Generator) -> Tensor:
        p = super().release(logits, rng)
        if self.strength == 0:
            return p
        q = self.drawn(p) if self.direction == "random" else self.walk(p)
        return torch.where(q.argmax(1, keepdim=True) == p.argmax(1, keepdim=True), q, p)

    def walk(self, p: Tensor) -> Tensor:
        """(n, classes) -> (n, classes). The first step leads towards equal scores: at p itself the gradient is 0."""
        net = self.network(p.shape[1]).to(p.device)
        with torch.no_grad():
            reference = net(log_scores(p))
        q = self.allowed(p, p + 0.1 * self.strength * (1 / p.shape[1] - p))
        for _ in range(self.steps):
            with torch.enable_grad():
                q.requires_grad_()
                gain = (net(log_scores(q)) - reference).square().flatten(1).mean(1).sum()
                slope = torch.autograd.grad(gain, q)[0]
            length = slope.norm(dim=1, keepdim=True).clamp_min(1e-30)
            q = self.allowed(p, q.detach() + 2 * self.strength / self.steps * slope / length)
        return q

    def drawn(self, p: Tensor) -> Tensor:
        """The same change in a random direction, drawn from the answer's own digits."""
        digests = (hashlib.sha256(row.contiguous().numpy().tobytes()).digest() for row in p.cpu())
        seeds = (torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")) for digest in digests)
        noise = torch.stack([torch.randn(p.shape[1], generator=seed) for seed in seeds]).to(p)
        return self.allowed(p, p + 2 * self.strength * noise / noise.norm(dim=1, keepdim=True))

    def allowed(self, p: Tensor, q: Tensor) -> Tensor:
        """q brought among the distributions with the label of p and at most `strength` away from it."""
        q = q.clamp_min(LEAST)
        q = q / q.sum(1, keepdim=True)
        label = p.argmax(1, keepdim=True)
        rival = q.scatter(1, label, -1.0).amax(1, keepdim=True)
        q = q.scatter(1, label, torch.maximum(q.gather(1, label), rival + self.margin))
        q = q / q.sum(1, keepdim=True)
        gap = (q - p).abs().sum(1, keepdim=True).clamp_min(1e-12)
        return p + (q - p) * (self.strength / gap).clamp_max(1.0)

    def network(self, classes: int) -> nn.Module:
        """I, frozen."""
        if not self.learned:
            raise UserError("adversarial_noise: the defender's inversion network is missing: it is learnt on a trained "
                            "target, which this track does not offer")  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            net = Inverse((classes,), tuple(self.learned["shape"]), self.width)
        net.load_state_dict(self.learned["state"])
        return net.eval().requires_grad_(False)

    def public_knowledge(self) -> dict[str, Any]:
        return {"distance": self.strength, "direction": self.direction}
