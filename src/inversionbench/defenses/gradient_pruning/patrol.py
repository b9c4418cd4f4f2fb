"""PATROL (survey 4.2; Ding, Zhang, Pan, Yuan, WACV 2024): prune the client half so that more layers fit on the device.

The cut moves one stage deeper, and channels are removed until the client has no more parameters than before it moved
(the budget). Which ones: the network is trained for `epochs` epochs, then for as many with a factor m for every channel
of the client, by the loss below + gamma sum |m| (soft thresholding after every step); the channels with the smallest
|m| go, the factors of the others are folded into the weights, and the scenario's own training goes on from the smaller
network, with

    loss = CE + strength (alpha sum_i k_i - beta min(1, MSE(D(z), x) / var(x)))

k_i: by how much block i spreads the difference that noise of deviation sigma in the image makes, the largest of the
batch. The smaller, the farther apart images with near features may be. D: an inverse network of the defender's own, one
step per batch; its error counts up to that of the mean image, and no further, so that the term stays bounded.

The survey puts it under gradient pruning; it prunes the model and acts in split inference. alpha = beta = 0: pruning
alone, deeper: false: at the scenario's own cut with `share` of its parameters. Channels of smaller features lower
every k_i at no gain: attackers standardise what they read. Values of gamma, alpha, sigma and beta are ours: the paper's
are not published with its code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import NONE, Defense, Step
from inversionbench.core.ranges import Count, NonNegative, Positive, PositiveShare
from inversionbench.defenses.feature_perturbation._local import with_notes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from inversionbench.data.base import Dataset

RATE = 2e-3  # of Adam in the training that chooses channels


@dataclass(frozen=True)
class Patrol(Defense):
    """strength: of both terms together. share: of the budget that may be used. widths: channels that were kept in each
    convolution of the client, found by `prepare`. width, rate: of D and its Adam."""

    id = "patrol"
    hooks = frozenset({"build_model", "loss"})
    inputs = ("image",)
    halves = True

    alpha: NonNegative = 0.003
    sigma: Positive = 0.1
    beta: NonNegative = 0.5
    gamma: NonNegative = 0.2
    deeper: bool = True
    share: PositiveShare = 1.0
    epochs: Count = 2
    width: Count = 32
    rate: Positive = 2e-3
    widths: tuple[Count, ...] = ()

    def prepare(self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator) -> Defense:
        if self.strength == 0:
            return self
        from inversionbench.defenses._simulated import train
        from inversionbench.defenses.gradient_pruning import _channels as channels

        net: Any = factory(rng)
        budget = self.share * channels.parameters(net.client)
        net = channels.deepened(net) if self.deeper else net
        x, y = data.private.images(), data.private.labels()
        train(net, x, y, data.classes, NONE, self.epochs, rng, rate=RATE)  # terms on random weights end in dead layers
        net = channels.masked(net)
        masks = [m for m in net.client if isinstance(m, channels.Mask)]

        def shrink() -> None:
            for mask in masks:
                mask.shrink(RATE * self.gamma)

        train(net, x, y, data.classes, with_notes(self, attackers={}), self.epochs, rng, shrink, RATE)
        net, keep = channels.pruned(net, budget)
        state = {name: value.detach().clone() for name, value in net.state_dict().items()}
        return with_notes(replace(self, widths=tuple(len(k) for k in keep)), attackers={}, start=state)

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        model: Any = factory()
        if self.strength == 0:
            return model
        if not self.widths:
            raise ValueError("patrol: no channels chosen yet: call prepare() first")
        import torch

        from inversionbench.defenses.gradient_pruning import _channels as channels

        net = channels.deepened(model) if self.deeper else model
        net = channels.kept(net, [torch.arange(n) for n in self.widths])
        if "start" in self.__dict__:
            net.load_state_dict(self.__dict__["start"])
        return net

    def loss(self, ctx: Step) -> Tensor:
        loss = super().loss(ctx)
        if self.strength and self.beta:
            loss = loss - self.strength * self.beta * self._error(ctx).clamp_max(1)
        if self.strength and self.alpha:
            import torch

            model: Any = ctx.model
            noise = self.sigma * torch.randn(ctx.x.shape, generator=ctx.rng).to(ctx.x)
            loss = loss + self.strength * self.alpha * torch.stack(spreads(model.client, ctx.x, noise)).sum()
        return loss

    def _error(self, ctx: Step) -> Tensor:
        """Of D after its step, as a share of the images' variance."""
        from inversionbench.defenses._simulated import Simulated

        z, attackers = ctx.hidden["features"], self.__dict__["attackers"]
        if "D" not in attackers:
            attackers["D"] = Simulated(z, ctx.x, self.width, self.rate, ctx.rng)
        attackers["D"].learn(z, ctx.x)
        return (attackers["D"].rebuild(z) - ctx.x).square().mean() / ctx.x.var(0).mean().clamp_min(1e-6)

    def public_knowledge(self) -> dict[str, Any]:
        return {"widths": list(self.widths)}


def spreads(client: nn.Sequential, x: Tensor, noise: Tensor) -> list[Tensor]:
    """k_i of every block, which begins with its convolution (the first one with what stands before it): the largest
    ||f_i(h') - f_i(h)|| / ||h' - h|| of the batch, h and h' the activations for x and x + noise, both (n, ...)."""
    from torch import nn

    blocks: list[list[nn.Module]] = [[]]
    for layer in client:
        if isinstance(layer, nn.Conv2d) and any(isinstance(m, nn.Conv2d) for m in blocks[-1]):
            blocks.append([])
        blocks[-1].append(layer)
    h, moved, found = x, x + noise, []
    for block in blocks:
        gap = (moved - h).flatten(1).norm(dim=1).clamp_min(1e-9)
        for layer in block:
            h, moved = layer(h), layer(moved)
        found.append(((moved - h).flatten(1).norm(dim=1) / gap).max())
    return found
