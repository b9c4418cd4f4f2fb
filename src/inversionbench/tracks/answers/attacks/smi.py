"""SMI: an inversion network of the scores, taught classes beside pixels. `reconstruction` of the method's losses.

Survey 3.4. Tian et al., "The Role of Class Information in Model Inversion Attacks against Image Deep Learning
Classifiers", IEEE TDSC 2023. Its exact losses are not public in what could be read; those below follow its description.

The attacker asks the service about public images x_i and keeps the answers p_i. A network G learns log p_i -> x_i:

    L_G = mean |G(log p) - x|^2  +  adversarial * -log D_r(G(log p))  +  supervision * CE(D_c(G(log p)), y)
    L_D = -log D_r(x) - log(1 - D_r(G(log p))) + CE(D_c(x), y)

D, with the heads real or fake (D_r) and class (D_c), is the attacker's own; no gradient passes through the service. One
forward pass turns a victim's observed scores into an image. With both weights 0 it is the inversion network of Yang et
al. (CCS 2019), the control.

labels: `true` ones of the public images (their class, person or digit), `pseudo` ones (the service's answer), or
`random` ones, the service's dealt anew. auxiliary: which public images are taken, by whether the victims' classes are
among theirs: `same`, `disjoint`, half of each (`mixed`), as many in each case, or `all`. access: AN-OLD, the attacker
who asked before the defense was deployed and knows nothing of it. top: scores that he keeps of each answer, 0: all.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.device import device
from inversionbench.core.errors import AccessDenied
from inversionbench.core.ranges import Count, NonNegative, Positive, Whole
from inversionbench.core.recipe import Recipe
from inversionbench.core.seeds import draw_seed, spawn
from inversionbench.models.inverse import Inverse, log_scores
from inversionbench.training.evaluators import outputs
from inversionbench.training.inverse import until_it_varies
from inversionbench.training.loop import batches, make_optimiser, set_rate, steps_per_epoch
from inversionbench.training.verifier import who

if TYPE_CHECKING:
    from inversionbench.oracle.base import Oracle

FEWEST = 20  # auxiliary images


class Critic(nn.Module):
    """Images (n, channels, h, w) -> (n, 1 + classes): the logit of being real, and those of the classes."""

    def __init__(self, channels: int, classes: int, width: int = 16):
        super().__init__()
        sides = (channels, width, 2 * width, 4 * width)
        layers = [m for a, b in pairwise(sides) for m in (nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.2))]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.heads = nn.Linear(4 * width * 16, 1 + classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.heads(self.body(x))


@dataclass(frozen=True)
class Smi(Attack):
    """adversarial, supervision: weights of the two parts of the critic. pairs: most auxiliary images; epochs, rate,
    width: of the inversion network."""

    id: ClassVar[str] = "smi"
    level: ClassVar[tuple[str, ...]] = ("AN-S", "AN-OLD")
    budget: ClassVar[tuple[str, ...]] = ("pairs", "epochs")

    access: Literal["AN-S", "AN-OLD"] = "AN-S"
    labels: Literal["true", "pseudo", "random"] = "pseudo"
    auxiliary: Literal["all", "same", "mixed", "disjoint"] = "all"
    adversarial: NonNegative = 0.01
    supervision: NonNegative = 0.1
    top: Whole = 0
    pairs: Count = 5000
    epochs: Count = 20
    rate: Positive = 2e-3
    width: Count = 16

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        images, known = self.choose(knowledge, rng)
        ask = oracle.scores if self.access == "AN-S" else oracle.undefended
        scores, victims = ask(images, phase="train"), oracle.observe()
        y = {"true": known, "pseudo": scores.argmax(1)}.get(self.labels, scores.argmax(1)[_shuffle(len(images), rng)])
        assert y is not None
        seen, apart = log_scores(self.kept(scores)), len(images) // 10
        net, facts = until_it_varies(
            lambda rng: self.train(seen[apart:], images[apart:], y[apart:], rng), seen[:apart], images[:apart], rng
        )
        p = victims.double()
        notes = {"auxiliary": len(images), "adaptive": self.access == "AN-S",
                 "entropy": float(-(p * p.clamp_min(1e-12).log()).sum(1).mean())}  # fmt: skip
        return Reconstruction(outputs(net, log_scores(self.kept(victims))), victims.argmax(1), notes={**facts, **notes})

    def choose(self, knowledge: Knowledge, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """The auxiliary images (n, c, h, w) in random order, and their true labels where asked for."""
        public = knowledge.public
        rows = _shuffle(len(public), rng)
        if self.auxiliary != "all":
            own = (public.labels()[rows] >= 0) & (public.labels()[rows] < knowledge.attacked)
            n = min(int(own.sum()), int((~own).sum()), self.pairs)
            same = {"same": n, "mixed": n // 2, "disjoint": 0}[self.auxiliary]
            rows = torch.cat([rows[own][:same], rows[~own][: n - same]])
            rows = rows[_shuffle(len(rows), rng)]
        rows = rows[: self.pairs]
        if len(rows) < FEWEST:
            raise AccessDenied(f"{len(rows)} public images of the kind '{self.auxiliary}', expected at least {FEWEST}")
        known = None
        if self.labels == "true":
            found = who(public)
            if isinstance(found, str):
                raise AccessDenied(found)
            known = found[rows]
        return public.images(rows.numpy()), known

    def kept(self, p: Tensor) -> Tensor:
        """The `top` highest scores of each answer; the others become 0."""
        if not 0 < self.top < p.shape[1]:
            return p
        best = p.topk(self.top, dim=1)
        return torch.zeros_like(p).scatter(1, best.indices, best.values)

    def train(self, seen: Tensor, images: Tensor, y: Tensor, rng: torch.Generator) -> nn.Module:
        """G, and D beside it where it has a weight; both from the same seed with and without."""
        shape: Any = tuple(images.shape[1:])
        seen, images, y = seen.to(device()), images.to(device()), y.to(device())
        order, recipe = spawn(rng), Recipe(self.epochs, 64, "adam", self.rate, 0.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(rng))
            net = Inverse(tuple(seen.shape[1:]), shape, self.width).to(device())
            critic = Critic(shape[0], int(y.max()) + 1).to(device())
        own, adam = make_optimiser(net.parameters(), recipe), torch.optim.Adam(critic.parameters(), 5e-4, (0.5, 0.999))
        total = self.epochs * steps_per_epoch(len(seen), recipe.batch)
        for epoch in range(self.epochs):
            for step, rows in batches(len(seen), recipe.batch, epoch, order):
                set_rate(own, recipe, step, total)
                made = net(seen[rows])
                loss = F.mse_loss(made, images[rows])
                if self.adversarial or self.supervision:
                    loss = loss + self.judged(critic, adam, made, images[rows], y[rows])
                own.zero_grad()
                loss.backward()
                own.step()
        return net.eval()

    def judged(
        self, critic: Critic, adam: torch.optim.Optimizer, made: Tensor, real: Tensor, y: Tensor
    ) -> Tensor:
        """One step of D by L_D, then its part of L_G."""
        seen, fake = critic(real), critic(made.detach())
        lesson = F.softplus(-seen[:, 0]).mean() + F.softplus(fake[:, 0]).mean() + F.cross_entropy(seen[:, 1:], y)
        adam.zero_grad()
        lesson.backward()
        adam.step()
        out = critic(made)
        real_enough, right_class = F.softplus(-out[:, 0]).mean(), F.cross_entropy(out[:, 1:], y)
        return self.adversarial * real_enough + self.supervision * right_class


def _shuffle(n: int, rng: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=rng)
