"""VRM, vicinal risk minimisation (survey 4.1; Ye, Luo, Zhou, Zhu, Shi, Jia, IEEE TPAMI 2024): reconstruction.

A client never computes a gradient at its raw images but at draws from their vicinity, fresh in each step:

    x~ = w x + (1 - w) x_p + sigma xi,   y~ = w y + (1 - w) y_p,   xi ~ N(0, I)

Pixels stay in [0, 1]. x_p: a random image of the client's whole local set, so that partners vary between rounds.
w: the private share,

    w = min(1 - strength, max(b, 1 - b)),   b ~ Beta(a, a)

so strength is the least share that is given to the partner (0: off). a = 0 fixes w at 1 - strength; `conceal` takes
min(b, 1 - b) instead. The paper's abstract says what the defense does, not which distribution it designs: this one
is ours.

member: "mix" as above; "patch" pastes a rectangle of the private image, of area share w, into the partner; "gauss" has
no partner and keeps the label, there strength is sigma. Model, loss and protocol stay; nothing is mixed at evaluation.

A mix of two private images shows both; records score the client's own image, not its partner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.ranges import NonNegative
from inversionbench.defenses.feature_perturbation._local import LocalDefense

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MEMBERS = ("mix", "patch", "gauss")


@dataclass(frozen=True)
class Vrm(LocalDefense):
    """member: mix, patch or gauss. a: of the Beta distribution. sigma: of the noise added to a mix, in pixels."""

    id = "vrm"
    hooks = frozenset({"train_transform"})
    federated = True
    inputs = ("image",)

    member: str = "mix"
    a: NonNegative = 1.0
    sigma: NonNegative = 0.0
    conceal: bool = False

    def __post_init__(self) -> None:
        if self.member not in MEMBERS:
            raise ValueError(f"vrm: member is one of {', '.join(MEMBERS)}, got '{self.member}'")
        if self.strength < 0 or (self.strength >= 1 and self.member != "gauss") or min(self.a, self.sigma) < 0:
            raise ValueError(f"vrm: strength is a share in [0, 1), a and sigma at least 0, got {self}")

    def train_transform(self, x: Tensor, y: Tensor, rng: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        import torch
        from torch.nn import functional as F

        if self.strength == 0:
            return x, y
        if self.member == "gauss":
            return (x + self.strength * torch.randn(x.shape, generator=rng)).clamp(0, 1), y
        images, targets, classes = self.local()
        partner = torch.randperm(len(images), generator=rng).repeat(-(-len(x) // len(images)))[: len(x)]
        w = self.shares(len(x), rng)
        if self.member == "patch":
            own = torch.stack([rectangle((x.shape[-2], x.shape[-1]), float(part), rng) for part in w])
            w = own.mean(dim=(1, 2, 3))
        else:
            own = w.view(-1, 1, 1, 1)
        mixed = own * x + (1 - own) * images[partner]
        if self.sigma:
            mixed = (mixed + self.sigma * torch.randn(x.shape, generator=rng)).clamp(0, 1)
        hot, other = (F.one_hot(t, classes).float() for t in (y, targets[partner]))
        return mixed, w[:, None] * hot + (1 - w[:, None]) * other

    def shares(self, count: int, rng: torch.Generator) -> Tensor:
        """Weights of the private images, (count,), at most 1 - strength."""
        import torch

        cap = 1 - self.strength
        if self.a == 0:
            return torch.full((count,), cap)
        gamma = torch._standard_gamma(torch.full((2, count), float(self.a)), generator=rng).clamp_min(1e-30)
        b = gamma[0] / gamma.sum(dim=0)
        return (torch.minimum if self.conceal else torch.maximum)(b, 1 - b).clamp_max(cap)

    def public_knowledge(self) -> dict[str, Any]:
        """The distribution; partners and shares stay with the client."""
        noise = self.strength if self.member == "gauss" else self.sigma
        cap = 1.0 if self.member == "gauss" else 1 - self.strength
        return {"member": self.member, "largest_share": cap, "a": self.a, "sigma": noise,
                "partners": "none" if self.member == "gauss" else "local images, labels mixed alike"}  # fmt: skip


def rectangle(size: tuple[int, int], area: float, rng: torch.Generator) -> Tensor:
    """(1, h, w) of 1 inside a random rectangle whose area is about the share `area`, 0 outside.

    >>> import torch
    >>> float(rectangle((8, 8), 0.25, torch.Generator()).mean())
    0.25
    """
    import torch

    h, w = (max(1, round(n * math.sqrt(area))) for n in size)
    top = int(torch.randint(size[0] - h + 1, (1,), generator=rng))
    left = int(torch.randint(size[1] - w + 1, (1,), generator=rng))
    out = torch.zeros(1, *size)
    out[:, top : top + h, left : left + w] = 1
    return out
