"""DCS-2, concealing samples (survey 4.1; Wu, Hayat, Zhou, Harandi, AAAI 2024).

The client adds synthetic images to its batch whose gradient imitates that of its sensitive images while they look
different. z_s: a sensitive image (normalised), z_p: a proxy from the client's own data, y_p its label:

    start  z = strength z_p + (1 - strength) z_s
    Adam on  1 - cos(g(z_s, y_s), g(z, y_p)) + exp(-slope mean |z - z_s|) + consistency mean |f(z) - f(z_s)| / |f(z_s)|
    until the mean distance exceeds `far`, or `iterations` steps; the rate drops to a tenth at 3/8, 5/8 and 7/8
    g_1 = [strength g(z, y_p) + (1 - strength) g(z, y_s) + g_0] / D,   g_0 the batch's own gradient, D = 3 (2 at 1)
    if <g_1, g_0> < 0: g_1 <- g_1 + max(margin, -<g_0, g_1> / (|g_0|^2 + 1e-3)) g_0

g over all parameters, one cosine. The last `sensitive` images of a batch are protected, the others are not. The
batch that the server is told of is the true one: an attacker who models the added images gets more.

kind: proxies of the "same" class where the client has one (on small networks the gradients of two classes stay
nearly opposite, so nothing can imitate: measured cosines 0.97 against -0.15), of an "other" one, or "any".

Measured once (small convolutional network, four photographs, strength 0.7): inversion reaches 17.6 dB undefended, 14.0
with 12 steps of optimisation, 14.1 with none: there it is the second image that hides, not its optimisation.

strength: the mix of images and labels, 0 to 1 (0: off; published 0.7). clamp keeps z inside the image box; without it
"different" is partly a matter of impossible pixels. Deviations: slope, far and iterations for small images; the
constant that the objective subtracts is left out, since it moves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Step
from inversionbench.core.ranges import Count, NonNegative, Positive
from inversionbench.defenses.feature_perturbation._local import LocalDefense

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from inversionbench.models.federated import Victim

RIDGE = 1e-3  # in the projection
KINDS = ("same", "other", "any")


@dataclass(frozen=True)
class Dcs2(LocalDefense):
    """sensitive: images of a batch that are concealed. proxies: of each. margin: of the projection. Others above."""

    id = "dcs2"
    hooks = frozenset({"gradient"})
    federated = True
    inputs = ("image",)
    layered = True
    budget = ("iterations",)

    sensitive: Count = 1
    proxies: Count = 1
    slope: NonNegative = 0.05
    consistency: NonNegative = 0.1
    far: NonNegative = 100.0
    iterations: Count = 100
    rate: Positive = 0.1
    margin: NonNegative = 0.5
    clamp: bool = True
    kind: str = "same"

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1 or self.sensitive < 1 or self.proxies < 1:
            raise ValueError(f"dcs2: expected strength in [0, 1], sensitive and proxies >= 1, got {self}")
        if self.kind not in KINDS:
            raise ValueError(f"dcs2: kind is one of {', '.join(KINDS)}, got '{self.kind}'")

    def gradient(self, gradients: dict[str, Tensor], ctx: Step) -> dict[str, Tensor]:
        import torch

        if self.strength == 0:
            return gradients
        model: Victim = ctx.model  # type: ignore[assignment]
        count = min(self.sensitive, len(ctx.x))
        x, y = (t[-count:].detach().repeat_interleave(self.proxies, dim=0) for t in (ctx.x, ctx.y))
        proxy, label = self._proxies(x, y, ctx.rng)
        z = self.craft(model, x, y, proxy, label)
        params = list(model.parameters())
        out = model.body(z)
        loss = self.strength * _entropy(out, label) + (1 - self.strength) * _entropy(out, y)
        extra = torch.autograd.grad(loss, params)
        own = list(gradients.values())
        parts = 2 if self.strength == 1 else 3
        made = project([(a + b) / parts for a, b in zip(extra, own)], own, self.margin)
        return dict(zip(gradients, made))

    def craft(self, model: Victim, x: Tensor, y: Tensor, proxy: Tensor, label: Tensor) -> Tensor:
        """The concealing images, normalised (n, c, h, w). x, proxy: (n, c, h, w) in [0, 1]; y, label: (n,)."""
        import torch
        from torch.nn import functional as F

        params = list(model.parameters())
        with torch.no_grad():
            own, other = model.front(x), model.front(proxy)
            seen = model.body(own)
        goal = _flat(torch.autograd.grad(_entropy(model.body(own), y), params))
        z = (self.strength * other + (1 - self.strength) * own).requires_grad_()
        optimiser = torch.optim.Adam([z], lr=self.rate)
        drops = [round(self.iterations * part / 8) for part in (3, 5, 7)]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, drops, gamma=0.1)
        for _ in range(self.iterations):
            out = model.body(z)
            found = _flat(torch.autograd.grad(_entropy(out, label), params, create_graph=True))
            away = (z - own).flatten(1).norm(dim=1).mean()
            if float(away.detach()) > self.far:
                break
            same = ((out - seen).norm(dim=1) / seen.norm(dim=1)).mean()
            loss = 1 - F.cosine_similarity(goal, found, dim=0, eps=1e-30)
            loss = loss + torch.exp(-self.slope * away) + self.consistency * same
            z.grad = torch.autograd.grad(loss, z)[0]
            optimiser.step()
            schedule.step()
            if self.clamp:
                with torch.no_grad():
                    z.clamp_(*model.front.box)
        return z.detach()

    def _proxies(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """For each image another local one, of the right kind where there is one: (images, labels)."""
        import torch

        images, targets, _ = self.local()
        chosen = []
        for own, label in zip(x, y):
            different = (images != own).flatten(1).any(dim=1)
            fits = {"same": targets == label, "other": targets != label}.get(self.kind, different)
            pool = (different & fits).nonzero()[:, 0]
            pool = pool if len(pool) else torch.arange(len(targets))
            chosen.append(int(pool[torch.randint(len(pool), (1,), generator=rng)]))
        return images[chosen], targets[chosen]

    def public_knowledge(self) -> dict[str, Any]:
        """How many images were added to the batch and how they enter the loss; the proxies stay with the client."""
        return {"mix": self.strength, "sensitive": self.sensitive, "added": self.sensitive * self.proxies,
                "clamp": self.clamp, "kind": self.kind}  # fmt: skip


def project(made: Sequence[Tensor], own: Sequence[Tensor], margin: float) -> list[Tensor]:
    """`made`, moved along `own` where it points against it.

    >>> import torch
    >>> project([torch.tensor([-1.0, 1.0])], [torch.tensor([1.0, 0.0])], 0.5)[0].round(decimals=2)
    tensor([-0., 1.])
    """
    dot = sum(float((a * b).sum()) for a, b in zip(made, own))
    if dot >= 0:
        return list(made)
    norm = sum(float(b.square().sum()) for b in own)
    step = max(margin, -dot / (norm + RIDGE))
    return [a + step * b for a, b in zip(made, own)]


def _entropy(out: Tensor, y: Tensor) -> Tensor:
    from torch.nn import functional as F

    return F.cross_entropy(out, y)


def _flat(parts: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.cat([t.flatten() for t in parts])
