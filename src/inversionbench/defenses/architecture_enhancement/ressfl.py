"""ResSFL (survey 4.6; Li, Rakin, Chen, He, Fan, Chakrabarti, CVPR 2022): a client half that resists inversion.

A bottleneck at the cut: the client ends in a 3 x 3 convolution to `channels` maps without ReLU, the server begins with
one back. And attacker-aware training: an inverse network D of the defender's own learns beside the halves, and

    loss = CE + strength max(0, SSIM(D(z), x) - limit)        D in evaluation mode, every step of D on detached z

where `limit` ends the game once the simulated attacker is weak enough. A client half that became resistant on one task
is taken over by another: with `expert` epochs, one is first trained so on the labelled public part (the source task),
and the private task starts from it. `client` says what is then done to it: "aware", trained on with the term, by a
small D that learns every `every`-th step; "frozen"; or "free", trained on without the term, a control. Without
`expert`, "free" is the bottleneck alone; channels 0 is the term alone.

Published: strength 0.3, limit 0.5, 8 channels, D of residual blocks; here D is `models.inverse`, which has none, and
all halves are trained by the scenario's optimiser, the transferred client at the same rate as the server (published: a
tenth). One client: the averaging of several is not simulated. Attackers train inverse networks of their own on what
the finished client sends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from inversionbench.core.defense import Defense, Step
from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, Positive, Share, Whole
from inversionbench.defenses.feature_perturbation._local import with_notes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from inversionbench.data.base import Dataset
    from inversionbench.models.split import Halves


@dataclass(frozen=True)
class Ressfl(Defense):
    """strength: weight of the term. width, rate: of D and its Adam."""

    id = "ressfl"
    hooks = frozenset({"build_model", "loss"})
    inputs = ("image",)
    halves = True

    channels: Whole = 8
    limit: Share = 0.5
    client: Literal["aware", "frozen", "free"] = "aware"
    expert: Whole = 0
    every: Count = 1
    width: Count = 32
    rate: Positive = 2e-3

    def prepare(self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator) -> Defense:
        if self.strength == 0:
            return self
        start = {"start": self._expert(data, factory, rng)} if self.expert else {}
        return with_notes(self, attackers={}, **start)

    def _expert(
        self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator
    ) -> dict[str, Tensor]:
        """The client half after attacker-aware training on the public part and its labels."""
        import torch
        from torch import nn

        from inversionbench.defenses._simulated import train

        public = data.public
        known = public.labels() if "identity" not in public.extra else torch.as_tensor(public.extra["identity"])
        names, y = known.unique(return_inverse=True)
        if len(names) < 2:
            raise UserError("ressfl: expert: the public part has no labels to learn a source task from; set expert: 0")
        net: Any = widened(factory(rng), self.channels)
        head = net.server[-1]
        net.server[-1] = nn.Linear(head.in_features, len(names))
        aware = with_notes(replace(self, client="aware", every=1), attackers={})
        train(net, public.images(), y, len(names), aware, self.expert, rng)
        return {name: value.detach().clone() for name, value in net.client.state_dict().items()}

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        model = factory()
        if self.strength == 0:
            return model
        net = widened(model, self.channels)
        if "start" in self.__dict__:
            net.client.load_state_dict(self.__dict__["start"])
        if self.client == "frozen":
            net.client.requires_grad_(False)
        return net

    def loss(self, ctx: Step) -> Tensor:
        loss = super().loss(ctx)
        if self.strength == 0 or self.client != "aware":
            return loss
        from inversionbench.defenses._simulated import Simulated
        from inversionbench.metrics.ssim import similarity

        z, attackers = ctx.hidden["features"], self._attackers()
        if not attackers:
            attackers["D"] = Simulated(z, ctx.x, self.width, self.rate, ctx.rng)
        if ctx.step % self.every == 0:
            attackers["D"].learn(z, ctx.x)
        like = similarity(ctx.x.double(), attackers["D"].rebuild(z).double()).mean()
        return loss + self.strength * (like - self.limit).clamp_min(0).to(loss)

    def public_knowledge(self) -> dict[str, Any]:
        return {"channels": self.channels, "limit": self.limit}

    def _attackers(self) -> dict[str, Any]:
        if "attackers" not in self.__dict__:
            raise ValueError("ressfl: nobody to train against yet: call prepare() first")
        return self.__dict__["attackers"]


def widened(model: nn.Module, channels: int) -> Halves:
    """The same halves with the bottleneck between them; 0 channels: as they are."""
    from torch import nn

    from inversionbench.models.split import Halves

    assert isinstance(model, Halves)
    if not channels:
        return model
    before = [m for m in model.client if isinstance(m, nn.Conv2d)][-1].out_channels
    narrow, wide = nn.Conv2d(before, channels, 3, padding=1), nn.Conv2d(channels, before, 3, padding=1)
    return Halves(nn.Sequential(*model.client, narrow), nn.Sequential(wide, *model.server), model.release)
