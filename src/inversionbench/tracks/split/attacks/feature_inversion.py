"""Feature inversion (He, Zhang, Lee: Model Inversion Attacks Against Collaborative Inference, ACSAC 2019).

From the features that a device sent for its input back to the input, at three access levels:

FT-WB  the client half is known: rMLE (`_search`), an image with the observed features and little total variation, whose
       weight is chosen on public images, sent through the same defense.
       With `decoder`, the naive attacker: an inverse network that learns from features before the release.
FT-BB  the client half may be asked: an inverse network (`training.inverse`) from what it sends for the attacker's
       images, with the defense in it, to these images. images: public, or uniform noise of the same shape. (Public
       images of another distribution are another scenario: a data set with `public_from`.)
FT-QF  neither: a shadow client of the undefended architecture is trained in front of the frozen server half, until that
       names the classes of labelled public images; then rMLE, or with `decoder` an inverse network, by the shadow.

releases: of how many releases of each input the mean is taken, the victims' and the attacker's own; it differs from one
where a defense draws anew for each.

Deviations: rate 0.05 and 300 steps for every depth; feature error relative to the mean square of what was observed,
anisotropic l1 total variation, so that one grid of weights serves all cuts; batch normalisation in the inverse network,
which is chosen and stopped by nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.errors import AccessDenied
from inversionbench.core.ranges import Count, NonNegative, Positive
from inversionbench.core.recipe import Recipe
from inversionbench.models.split import build
from inversionbench.tracks.split.attacks._search import Search
from inversionbench.training.evaluators import outputs
from inversionbench.training.inverse import fit_inverse
from inversionbench.training.loop import fit

if TYPE_CHECKING:
    from inversionbench.oracle.base import Oracle

Client = nn.Module


@dataclass(frozen=True)
class FeatureInversion(Attack):
    """steps, rate: of rMLE. weights: of its total variation, one of which is chosen on `tune` public images.
    pairs, epochs, width: of the inverse network; shadow: epochs of the shadow client."""

    id: ClassVar[str] = "feature_inversion"
    level: ClassVar[tuple[str, ...]] = ("FT-WB", "FT-BB", "FT-QF")
    budget: ClassVar[tuple[str, ...]] = ("steps", "epochs")
    published: ClassVar[dict[str, Any]] = {"steps": 500, "rate": 0.01, "epochs": 50}

    access: Literal["FT-WB", "FT-BB", "FT-QF"] = "FT-WB"
    decoder: bool = False
    images: Literal["public", "noise"] = "public"
    releases: Count = 1
    steps: Count = 300
    rate: Positive = 0.05
    weights: tuple[NonNegative, ...] = (0.0, 0.01, 0.1, 0.4, 1.5, 6.0)
    tune: Count = 8
    pairs: Count = 4000
    epochs: Count = 8
    width: Count = 16
    shadow: Count = 8

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        h = oracle.observe(self.releases).mean(0)
        labels = oracle.server_module()(h.to(_where(oracle))).argmax(1).cpu()
        client: Client | None = None
        if self.access == "FT-QF":
            client = self.shadow_client(oracle, knowledge, h, rng)
        elif self.access == "FT-WB":
            client = oracle.client_module()
        if client is None or self.decoder:
            images, notes = self.decode(oracle, knowledge, client, h, rng)
        else:
            images, notes = self.search(oracle, knowledge, client, h, rng)
        knows = self.access == "FT-BB" or (self.access == "FT-WB" and not self.decoder)  # what is released
        return Reconstruction(images, labels, notes={**notes, "releases": self.releases, "adaptive": knows})

    def search(
        self, oracle: Oracle, knowledge: Knowledge, client: Client, h: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        """rMLE by a client half, its weight chosen on public images and what is sent of them."""
        find, where = Search(self.steps, self.rate), _where(oracle)
        images = knowledge.public.images(_some(len(knowledge.public), self.tune, rng))
        sent = self.sent(oracle, client, images)
        weight = find.choose(client, sent.to(where), images, self.weights, rng)
        each = torch.full((len(h),), weight, device=where)
        return find.run(client, h.to(where), tuple(knowledge.shape), each, rng).cpu(), {"tv": weight}

    def decode(
        self, oracle: Oracle, knowledge: Knowledge, client: Client | None, h: Tensor, rng: torch.Generator
    ) -> tuple[Tensor, dict[str, Any]]:
        """The inverse network. client: whose features it learns from; None: what the target sends."""
        images = knowledge.public.images(_some(len(knowledge.public), self.pairs, rng))
        if self.images == "noise":
            images = torch.rand(images.shape, generator=rng)
        seen = outputs(client, images) if client else self.sent(oracle, None, images)
        recipe = Recipe(self.epochs, 64, "adam", 2e-3, 0.0, schedule="one_cycle")
        net, facts = fit_inverse(seen, images, rng, recipe, width=self.width)
        return outputs(net, h), facts

    def sent(self, oracle: Oracle, client: Client | None, images: Tensor) -> Tensor:
        """Mean of `releases` releases of images; what the shadow says of them where the target cannot be asked."""
        if self.access == "FT-QF":
            assert client is not None
            return outputs(client, images)
        total = oracle.features(images)
        for _ in range(self.releases - 1):
            total += oracle.features(images)
        return total / self.releases

    def shadow_client(self, oracle: Oracle, knowledge: Knowledge, h: Tensor, rng: torch.Generator) -> Client:
        """A client half that makes the frozen server half name the classes of labelled public images."""
        public, y = knowledge.public, knowledge.public.labels()
        if (y < 0).any():
            raise AccessDenied("the public images carry no labels of the target's task, from which a shadow learns")
        server = oracle.server_module()

        def factory() -> nn.Module:
            own = build(knowledge.model, knowledge.shape, knowledge.classes).client
            with torch.no_grad():
                made = own(torch.zeros(1, *knowledge.shape))
            if made.shape[1:] != h.shape[1:]:  # a defense changed what is sent
                own = nn.Sequential(own, nn.Conv2d(made.shape[1], h.shape[1], 1), nn.AdaptiveAvgPool2d(h.shape[2:]))
            return nn.Sequential(own, server)

        x = public.images().to(_where(oracle))
        net = fit(factory, x, y.to(x.device), knowledge.classes, Recipe(self.shadow, 64), rng=rng)
        return net[0].requires_grad_(False)  # type: ignore[index, union-attr]


def _where(oracle: Oracle) -> torch.device:
    return next(oracle.server_module().parameters()).device


def _some(n: int, most: int, rng: torch.Generator) -> Any:
    """Places of at most `most` public images, without repeats."""
    return torch.randperm(n, generator=rng)[:most].numpy()
