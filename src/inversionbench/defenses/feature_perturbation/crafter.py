"""Crafter (survey 4.1; Wang, Ji, Xiang, Zhang, Wang, Zhou, Li, NDSS 2024): features whose inversion shows nobody.

For every single input the device searches, from F_0 = client(x), the features F that it sends:

    min_F  L_p + beta L_u        L_u = ||F - F_0||^2 / ||F_0||^2        beta = 1 / strength

against an attacker who may ask the client for features of chosen images, and trains an inverse network on the answers.
D is such a network, trained by the device's owner on public images beside the halves. L_p is the earth mover's
distance of the inversion from the non-private prior, D(client(p)) of `strangers` public images p: of one image alone,
where there is only one coupling, it is exactly

    L_p = mean over strangers p of || D(F) - D(client(p)) || / sqrt(values of an image)

so that inversions move towards what all strangers have in common. Halves and their training are the undefended ones,
bit for bit (where the recipe clips no gradients). Not here: the setting that unrolls an attacker's search in a
generator (hyper-gradients), and the critic that estimates L_p of a batch. The device carries D and runs it `steps`
times forwards and backwards for every input, which its price counts. Published: beta 0.5 to 10, Adam, 450 steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Defense, Sending, Step
from inversionbench.core.ranges import Count, Positive
from inversionbench.defenses.feature_perturbation._local import with_notes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from inversionbench.data.base import Dataset


@dataclass(frozen=True)
class Crafter(Defense):
    """strength: 1 / beta. rate: of Adam on F, in units of the root mean square of F_0. width: of D. shape: of an image,
    found by `prepare`."""

    id = "crafter"
    hooks = frozenset({"build_model", "loss", "release_features"})
    inputs = ("image",)

    steps: Count = 15
    rate: Positive = 0.05
    strangers: Count = 32
    width: Count = 16
    shape: tuple[Count, ...] = ()

    def prepare(self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator) -> Defense:
        if self.strength == 0:
            return self
        return with_notes(replace(self, shape=tuple(data.shape)), public=data.public.images())

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        model: Any = factory()
        if self.strength == 0:
            return model
        if not self.shape:
            raise ValueError("crafter: no image's shape yet: call prepare() first")
        from inversionbench.defenses.feature_perturbation._crafted import Crafting

        model.client = Crafting(model.client, self.shape, self.strangers, self.width, self.steps, self.rate)
        if "public" in self.__dict__:
            public = self.__dict__["public"]
            model.client.strangers.copy_(public[:: max(1, len(public) // self.strangers)][: self.strangers])
        return model

    def loss(self, ctx: Step) -> Tensor:
        """That of the halves, and beside it the error of D on public images, which moves D alone."""
        loss = super().loss(ctx)
        if self.strength == 0:
            return loss
        import torch

        model: Any = ctx.model
        public = self.__dict__["public"]
        rows = torch.randint(len(public), (len(ctx.x),), generator=ctx.rng)
        return loss + model.client.error(public[rows].to(ctx.x))

    def release_features(self, z: Tensor, ctx: Sending) -> Tensor:
        client: Any = ctx.client
        if self.strength == 0 or ctx.training:
            return z
        return client.craft(z, 1 / self.strength)

    def public_knowledge(self) -> dict[str, Any]:
        return {} if self.strength == 0 else {"beta": 1 / self.strength, "steps": self.steps}
