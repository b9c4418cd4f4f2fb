"""Guardian (survey 4.2; Fan, Liu, Chen, Wang, Qiu, Zhou, WSDM 2024): reconstruction.

What is sent is g' = g + d, optimised for every batch between two metrics of a gradient. g(x): the gradient at the
private images, J = dg/dx.

performance   |d|^2 / |g|^2: the progress that a step along g' loses; held at the budget
privacy       |J^+ d|: to first order the error of an attacker who matches g', since only the part of d inside
              range(J) moves the reconstruction, by a with J a = d

so the best d is J a for the image change a of largest |a| / |J a|: images that differ much where the gradient differs
little. a is found by `steps` locally optimal descents of |J a|^2 / |a|^2 (the best combination of the present a, its
gradient and the last move; one forward-mode and one double backward product each, no Jacobian is stored) from
`start`: "noise", random images, or "pruned", the pull-back J^T (top_k(g) - g). `coarse` > 1 restricts a to images of
blocks of that size: an attacker with a smoothness prior would never move along fine patterns.

strength: the budget |d|^2 / |g|^2 (0: off). The two metrics, the optimisation per batch and the special start are the
paper's; the formulas are ours, since its text could not be read. Networks with ReLU have a gradient that is linear in
pieces: J is taken where it exists.

Budget, blocks and rule are public. `learning_to_invert` runs the rule on its public pairs. Measured (ConvNet, 32 x 32,
strength 1, 2 steps, 16 clients): 15.1 dB, where an inverter of plain gradients has 13.8, the mean image 13.1 and
`inverting_gradients`, which takes g' for g, 9.5. Who searches could compare updates off the range of J(x) on the block
directions, where d lies at the true x, but that does not help: with x off by noise of rms 0.3 in normalised space,
g(x) has moved by 0.06 |g|, while a quarter to a third of d, of norm |g|, is off that range. What is left of d buries
what tells images apart, 2 to 35 times at distances from 0.001 to 1; 7.9 dB where the plain search has 8.2 (16 x 16).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Client, Defense
from inversionbench.core.ranges import Count, Whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    Gradient = Callable[[Tensor], Tensor]

STARTS = ("noise", "pruned")
KEPT = 0.2  # of the entries, in the start "pruned"


@dataclass(frozen=True)
class Guardian(Defense):
    """steps: of the search. coarse: block size of the aimed-at errors, in pixels. start: noise or pruned."""

    id = "guardian"
    hooks = frozenset({"client_update"})
    federated = True
    inputs = ("image",)
    effect = ("cos_sent_true", "lower", 0.999)
    looks_again = True
    budget = ("steps",)

    steps: Count = 10
    coarse: Whole = 4
    start: str = "noise"

    def __post_init__(self) -> None:
        if self.strength < 0 or self.steps < 0 or self.coarse < 1:
            raise ValueError(f"guardian: expected strength and steps >= 0, coarse >= 1, got {self}")
        if self.start not in STARTS:
            raise ValueError(f"guardian: start is one of {', '.join(STARTS)}, got '{self.start}'")

    def client_update(self, update: dict[str, Tensor], ctx: Client) -> dict[str, Tensor]:
        import torch

        from inversionbench.defenses.feature_perturbation._sensitivity import batch_of

        if self.strength == 0:
            return update
        model, x, y = batch_of(ctx, self.id)
        flat = torch.cat([t.flatten() for t in update.values()])
        change, error = self.perturbation(gradient_at(model, y), x, flat, ctx.rng)
        ctx.state["public"] = {"predicted_error": error}
        pieces = change.split([t.numel() for t in update.values()])
        return {name: t + piece.view_as(t) for (name, t), piece in zip(update.items(), pieces)}

    def perturbation(self, g: Gradient, x: Tensor, sent: Tensor, rng: torch.Generator) -> tuple[Tensor, float]:
        """(d of norm sqrt(strength) |sent|, predicted error of the attacker as root mean square of pixels).

        g: images -> gradient (size,). x: (n, c, h, w). sent: what would be sent, (size,).
        """
        image, change = self.search(g, x, sent, rng)
        scale = self.strength**0.5 * float(sent.norm()) / max(float(change.norm()), 1e-30)
        return scale * change, scale * float(image.square().mean().sqrt())

    def search(self, g: Gradient, x: Tensor, sent: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """(a, J a) with a small |J a| / |a|. `basis` holds a, its gradient, the last move."""
        import torch
        from torch.autograd import forward_ad

        leaf = x.detach().requires_grad_()
        here = g(leaf)

        def pulled(v: Tensor) -> Tensor:
            return self._smooth(torch.autograd.grad(here, leaf, v, retain_graph=True)[0])

        def product(a: Tensor) -> Tensor:
            with forward_ad.dual_level():
                return forward_ad.unpack_dual(g(forward_ad.make_dual(x, a))).tangent.detach()

        a = pulled(pruned(sent) - sent) if self.start == "pruned" else self._smooth(torch.randn(x.shape, generator=rng))
        a = a.detach() / a.norm().clamp_min(1e-30)
        ja = product(a)
        basis, images = [a], [ja]
        for _ in range(self.steps):
            slope = pulled(ja).detach()
            slope = slope - (slope * a).sum() * a
            slope = slope / slope.norm().clamp_min(1e-30)
            basis, images = [a, slope, *basis[1:]], [ja, product(slope), *images[1:]]
            weights = lowest(basis, images)
            move, moved = torch.zeros_like(a), torch.zeros_like(ja)
            for w, b, i in zip(weights[1:], basis[1:], images[1:]):
                move, moved = move + w * b, moved + w * i
            a, ja = weights[0] * a + move, weights[0] * ja + moved
            norm = a.norm().clamp_min(1e-30)
            a, ja = a / norm, ja / norm
            basis, images = [a, move], [ja, moved]
        return a, ja

    def _smooth(self, a: Tensor) -> Tensor:
        """The nearest image that is constant on blocks, as far as whole blocks fit."""
        from torch.nn import functional as F

        k = self.coarse
        if k == 1 or a.shape[-1] % k or a.shape[-2] % k:
            return a
        return F.interpolate(F.avg_pool2d(a, k), scale_factor=k, mode="nearest")

    def public_knowledge(self) -> dict[str, Any]:
        """The rule; the direction depends on the private images and on the client's draw."""
        return {"budget": self.strength, "steps": self.steps, "coarse": self.coarse, "start": self.start}


def gradient_at(model: nn.Module, y: Tensor) -> Gradient:
    """The function images -> gradient of the mean cross entropy, flat, in the order of the parameters.

    Differentiable in both directions; in plain autograd, since `torch.func` costs seconds at its first call.
    """
    import torch
    from torch.nn import functional as F

    params = list(model.parameters())

    def gradient(x: Tensor) -> Tensor:
        parts = torch.autograd.grad(F.cross_entropy(model(x), y), params, create_graph=True)
        return torch.cat([t.flatten() for t in parts])

    return gradient


def lowest(basis: list[Tensor], images: list[Tensor]) -> list[float]:
    """Weights of the combination b of `basis` with the smallest |J b| / |b|; images: J of each."""
    import torch

    a = torch.stack([t.flatten().double() for t in images])
    m = torch.stack([t.flatten().double() for t in basis])
    inner, outer = m @ m.T, a @ a.T
    values, vectors = torch.linalg.eigh(inner)
    good = values > 1e-10 * values[-1]
    white = vectors[:, good] / values[good].sqrt()
    return (white @ torch.linalg.eigh(white.T @ outer @ white)[1][:, 0]).tolist()


def pruned(g: Tensor) -> Tensor:
    """The largest fifth of the entries, 0 elsewhere."""
    from inversionbench.defenses.gradient_pruning._ranks import band

    return g * band(g, 0, max(1, int(KEPT * g.numel())))
