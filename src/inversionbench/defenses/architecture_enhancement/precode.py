"""PRECODE (survey 4.6; Scheliga, Mäder, Seeland, WACV 2022): a variational bottleneck before the output layer.

With h (batch, D) what the output layer would read:

    mean, raw = Linear(D -> 2 K)(h)              std = softplus(raw)
    z = mean + std * noise                        noise from N(0, I), fresh at every pass, at test time, too
    Linear(K -> D)(z) goes on to the output layer
    loss = cross entropy + beta KL(N(mean, std) || N(0, I))      KL in bits, over the latent summed, over the batch mean

Clients train and send the gradients of all parameters, the bottleneck's included. The attacker draws other
noise, so simulated and true gradients differ even at the true images. strength: K (0: no bottleneck).

What it does not protect: layers before the bottleneck, matched alone; a fully connected first layer, whose input
follows exactly from its gradient (both in `skip_bottleneck`). A row of the naive attack alone misleads.

Deviations: the bottleneck starts as torch's linear layers do, from a seed that follows from the network's own
weights. The client's noise comes from the client's generator, the test passes' from the layer's own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Defense, Step
from inversionbench.core.ranges import NonNegative

if TYPE_CHECKING:
    from torch import Tensor, nn

PARTS = ("encode", "sample", "decode")  # names of the layers in the network's body


@dataclass(frozen=True)
class Precode(Defense):
    """beta: weight of the divergence."""

    id = "precode"
    hooks = frozenset({"build_model", "loss"})
    federated = True
    inputs = ("image",)
    layered = True

    beta: NonNegative = 1e-3

    def __post_init__(self) -> None:
        if self.strength < 0 or self.strength != int(self.strength) or self.beta < 0:
            raise ValueError(f"precode: expected a whole width >= 0 and beta >= 0, got {self.strength}, {self.beta}")

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        model = factory()
        if self.strength == 0:
            return model
        import torch
        from torch import nn

        from inversionbench.models.bottleneck import Sample
        from inversionbench.models.federated import Victim

        assert isinstance(model, Victim)
        width, k = model.head.in_features, int(self.strength)
        *layers, head = model.body.named_children()
        with torch.random.fork_rng(devices=[]):
            seed = int(model.head.weight.detach().view(torch.int32).sum()) % 2**31
            torch.manual_seed(seed)
            new = zip(PARTS, (nn.Linear(width, 2 * k), Sample(self.beta, seed), nn.Linear(k, width)))
            body = nn.Sequential(OrderedDict([*layers, *new, head]))
        return Victim(body, model.shape, model.classes).eval()

    def loss(self, ctx: Step) -> Tensor:
        if self.strength == 0:
            return super().loss(ctx)
        from torch.nn import functional as F

        from inversionbench.models.bottleneck import divergence

        body: Any = ctx.model.body  # type: ignore[union-attr]
        seen = ctx.hidden["body.encode"]
        logits = body[-1](body.decode(body.sample.draw(seen, ctx.rng)))
        return F.cross_entropy(logits, ctx.y) + self.beta * divergence(seen)

    def public_knowledge(self) -> dict[str, Any]:
        """Where the bottleneck is; not what the client drew."""
        if self.strength == 0:
            return {}
        names = [f"body.{part}.{kind}" for part in (PARTS[0], PARTS[2]) for kind in ("weight", "bias")]
        return {"bottleneck": names, "width": int(self.strength), "beta": self.beta}
