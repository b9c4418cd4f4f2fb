"""Control: images of a prior without any search. What remains to an attack is what it adds to this.

base: which prior. dcgan and style never saw the target; plg_gan was trained on its answers class by class, and
gives random images of the right class: what that training alone has taken from the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count
from inversionbench.latent.rows import device_of, generate, rows

if TYPE_CHECKING:
    from inversionbench.oracle.base import Oracle

BLOCK = 256  # images at once


@dataclass(frozen=True)
class RandomPrior(Attack):
    """base: dcgan, style or plg_gan. restarts: images per class."""

    id: ClassVar[str] = "random_prior"
    level: ClassVar[str] = "LO"  # asks nothing
    prior: ClassVar[dict[str, tuple[str, ...]]] = {
        "dcgan": ("dcgan",), "style": ("style",), "plg_gan": ("plg_gan",),
    }  # fmt: skip
    control: ClassVar[bool] = True

    base: Literal["dcgan", "style", "plg_gan"] = "dcgan"
    restarts: Count = 5

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        y = rows(knowledge.targets, self.restarts)
        prior = knowledge.prior
        z = prior.sample(len(y), rng)
        if self.base != "plg_gan":
            return Reconstruction(generate(prior, z), y)
        where = device_of(prior)
        parts = zip(z.split(BLOCK), y.split(BLOCK))
        with torch.no_grad():
            return Reconstruction(torch.cat([prior.of(c.to(where))(v.to(where)).cpu() for v, c in parts]), y)
