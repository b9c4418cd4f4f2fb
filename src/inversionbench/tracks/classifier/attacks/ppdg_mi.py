"""PPDG-MI: a generator sharpened towards the first answers of an attack, in which the attack then searches again.

Beyond the survey (generative). Peng, Han, Zhou, Yin, Liu, Han, "Pseudo-Private Data Guided Model Inversion Attacks",
NeurIPS 2024: an addition to a host `base` (gmi, kedmi, plg_mi or ppa), which keeps its prior, loss and optimiser. For
each class, `rounds` - 1 times:

1. The host's answers; the `keep` of the highest mean score under `transforms` random crops are pseudo-private, x_p.
2. Pivots: from the middle of the prior (z = 0, or the mean code) latents w_p that minimise |G(w) - x_p|^2, by Adam,
   `pivot_steps` at `pivot_rate`: where the prior is dense, and near x_p.
3. A copy of the generator, for this class alone, learns |G(w_p) - x_p|^2 (mean over pixels) by Adam, `tune_steps` at
   `tune_rate`, so that x_p and what is like them become likely. Critic and statistics of normalisation stay.
4. The host searches again, from nothing, under the new generator.

Steps 2 and 3 ask nothing of the target. tune_steps 0 is the host run again: the control. Fields shared with the hosts
mean what they mean there; each search has the whole number of `iterations` (ppa: its steps). Values as published for
the point-wise form: keep 5, 300 and 150 steps, 3e-4. Deviations: pixels in place of perceptual features; for the
convolutional priors, which the released code trains on with their own loss, the same point-wise form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch.nn import functional as F

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, Whole
from inversionbench.latent.candidates import best_rows, robustness
from inversionbench.latent.rows import device_of, passes_per_answer
from inversionbench.latent.styles import SynthesisFromW
from inversionbench.models.classifiers import freeze
from inversionbench.models.style_prior import StylePrior
from inversionbench.tracks.classifier.attacks.gmi import Gmi
from inversionbench.tracks.classifier.attacks.kedmi import Kedmi
from inversionbench.tracks.classifier.attacks.plg_mi import PlgMi
from inversionbench.tracks.classifier.attacks.ppa import STRONG, Ppa

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.core.prior import Prior
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class PpdgMi(Attack):
    id: ClassVar[str] = "ppdg_mi"
    level: ClassVar[str] = "WB"
    prior: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "gmi": ("dcgan",), "kedmi": ("kedmi_gan",), "plg_mi": ("plg_gan",), "ppa": ("style",),
    }
    budget: ClassVar[tuple[str, ...]] = ("iterations", "rounds")

    base: Literal["gmi", "kedmi", "plg_mi", "ppa"] = "ppa"
    rounds: Count = 2
    keep: Count = 5
    transforms: Count = 100
    pivot_steps: Count = 300
    pivot_rate: Positive = 0.05
    tune_steps: Whole = 150
    tune_rate: Positive = 3e-4
    iterations: Count = 70
    rate: Positive = 0.005
    restarts: Count = 50
    box: NonNegative = 1.0
    identity_weight: NonNegative = 100.0
    realism: NonNegative = 1.0
    views: Whole = 2
    log_variance: float = 1.0
    samples: Count = 5000
    psi: NonNegative = 0.5
    candidates: Count = 200

    def __post_init__(self) -> None:
        if self.keep > self.restarts:
            raise ValueError(f"keep: expected at most the {self.restarts} restarts, got {self.keep}")

    @property
    def host(self) -> Gmi | Kedmi | PlgMi | Ppa:
        """The attack underneath."""
        shared: dict[str, Any] = {"rate": self.rate, "restarts": self.restarts}
        if self.base == "ppa":
            return Ppa(**shared, steps=self.iterations, samples=self.samples, psi=self.psi,
                       candidates=self.candidates, transforms=self.transforms)  # fmt: skip
        shared |= {"iterations": self.iterations, "box": self.box}
        if self.base == "plg_mi":
            return PlgMi(**shared, views=self.views)
        shared |= {"identity_weight": self.identity_weight, "realism": self.realism}
        return Gmi(**shared) if self.base == "gmi" else Kedmi(**shared, log_variance=self.log_variance)

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        prior, targets = knowledge.prior, knowledge.targets
        answers = [self.host.run(oracle, Knowledge(prior=prior, targets=targets), rng)]
        priors = [prior] * len(targets)
        path = [(passes_per_answer(oracle, len(answers[0].data)), answers[0].data)]
        errors: list[float] = []
        for _ in range(self.rounds - 1):
            chosen = self.best(oracle, answers[-1], rng)
            again = []
            for k, y in enumerate(targets.split(1)):
                priors[k], error = self.sharpened(priors[k], chosen[k], y)
                errors.append(error)
                again.append(self.host.run(oracle, Knowledge(prior=priors[k], targets=y), rng))
            images, labels = (torch.cat([getattr(a, name) for a in again]) for name in ("data", "labels"))
            answers.append(Reconstruction(images, labels))
            path.append((passes_per_answer(oracle, len(images)), images))
        notes = {"pivot_error": sum(errors) / len(errors)} if errors else {}
        return replace(answers[-1], checkpoints=path, notes=notes)

    def best(self, oracle: Oracle, answer: Reconstruction, rng: torch.Generator) -> Tensor:
        """Step 1: the pseudo-private images, (classes, keep, c, h, w)."""
        target = oracle.module()
        target.phase = "select"
        x = answer.data.clamp(0, 1)
        score = robustness(target, x, answer.labels, STRONG, self.transforms, rng)
        return x[best_rows(score, self.restarts, self.keep)].unflatten(0, (-1, self.keep))

    def sharpened(self, prior: Prior, x: Tensor, y: Tensor) -> tuple[Prior, float]:
        """Steps 2 and 3: the prior of class y (1,) tuned to x (keep, c, h, w), and the pivots' mean squared error."""
        where = device_of(prior)
        x = x.to(where)
        if isinstance(prior, StylePrior):
            w = prior.style.w_mean.detach().expand(len(x), -1).clone().requires_grad_(True)
        else:
            w = torch.zeros(len(x), prior.z_dim, device=where, requires_grad=True)
        error = _descend([w], self.pivot_rate, self.pivot_steps, x, lambda: paint(prior, y)(w))
        generator = deepcopy(prior.generator).requires_grad_(True)
        tuned = replace(prior, generator=generator)
        pivots = w.detach()
        _descend(list(generator.parameters()), self.tune_rate, self.tune_steps, x, lambda: paint(tuned, y)(pivots))
        freeze(generator)
        return tuned, error


def paint(prior: Prior, y: Tensor) -> Callable[[Tensor], Tensor]:
    """Latents to images of class y (1,), whatever the form of the prior."""
    if isinstance(prior, StylePrior):
        return SynthesisFromW(prior.style)
    of = getattr(prior, "of", None)
    return (lambda z: of(y.to(z.device).expand(len(z)))(z)) if of else prior.generator


def _descend(what: list[Tensor], rate: float, steps: int, x: Tensor, make: Callable[[], Tensor]) -> float:
    """Bring images near to x by Adam; the mean squared error at the last step."""
    optimiser, loss = torch.optim.Adam(what, rate), torch.zeros(())
    for _ in range(steps):
        loss = F.mse_loss(make(), x)
        grads = torch.autograd.grad(loss, what, allow_unused=True)  # a mapping that the pivots do not pass
        for p, g in zip(what, grads, strict=True):
            p.grad = g
        optimiser.step()
    return float(loss.detach())
