"""TL-DMI: the private data may change only the last layers of a network that was trained on public data.

Survey 4.7. Ho, Hao, Chandrasegaran, Nguyen, Cheung, "Model Inversion Robustness: Can Transfer Learning Help?",
CVPR 2024.

    1. train the network on public data (other people), with a last layer of its own
    2. give it a new last layer for the private classes
    3. freeze the layers in front: weights, running statistics, evaluation mode
    4. train the rest on the private images with plain cross entropy

strength: the share of layers in front of the last one that is frozen, rounded to whole layers (the blocks that the
network reports, and its pooling part); 1: all but the last layer; 0: no defense and no public data. freeze false is the
control: the same start, everything trained. `layers()` says how many parameters are trained.

The public data are those that the attacker has, too, which may help him; a stricter comparison needs a third set of
people. Deviations: no epochs of the new layer alone before step 4 (the authors' code); the running statistics of
frozen layers stay (there they go on moving, and hold private data).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.defense import Defense
from inversionbench.core.device import device
from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, Positive, Share
from inversionbench.core.seeds import draw_seed

if TYPE_CHECKING:
    from inversionbench.data.base import Dataset, Part


@dataclass(frozen=True)
class TlDmi(Defense):
    """strength: share of layers frozen. steps, batch, rate: of the training on public data (Adam, one cycle)."""

    id: ClassVar[str] = "tl_dmi"
    hooks: ClassVar[frozenset[str]] = frozenset({"build_model"})
    inputs: ClassVar[tuple[str, ...]] = ("image",)
    budget: ClassVar[tuple[str, ...]] = ("steps", "batch")

    strength: Share = 0.0
    steps: Count = 500
    batch: Count = 64
    rate: Positive = 4e-3
    freeze: bool = True

    def prepare(self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator) -> Defense:
        from inversionbench.defenses.feature_perturbation._local import with_notes

        if self.strength == 0:
            return self
        people = identities(data.public)
        net = factory(rng)
        if not isinstance(getattr(net, "blocks", None), nn.ModuleDict):
            raise UserError(f"tl_dmi: {type(net).__name__} reports no blocks that could be frozen")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(rng))
            net.head = nn.Linear(net.head.in_features, int(people.max()) + 1)  # type: ignore[union-attr, arg-type]
        pretrain(net.to(device()), data.public.images(), people, self, rng)
        return with_notes(self, weights={n: t for n, t in net.state_dict().items() if not n.startswith("head.")})

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        """From the public weights where `prepare` found them; else the same architecture (to load a trained one)."""
        model = factory()
        if self.strength == 0:
            return model
        model.load_state_dict(self.__dict__.get("weights", {}), strict=False)
        for holder, name in self.layers(model) if self.freeze else ():
            setattr(holder, name, Frozen(getattr(holder, name)))
        return model

    def layers(self, model: Any) -> list[tuple[nn.Module, str]]:
        """The frozen layers, each by what holds it and its name."""
        places = [*((model.blocks, name) for name in model.blocks), (model, "pool")]
        return places[: round(self.strength * len(places))]

    def public_knowledge(self) -> dict[str, Any]:
        return {"frozen": self.strength if self.freeze else 0.0} if self.strength else {}


class Frozen(nn.Module):
    """A layer that stays as it is: no gradient to its weights, and in evaluation mode whatever is asked."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Frozen:
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def identities(public: Part) -> Tensor:
    """Classes (n,) of public images: those of the data set, or who is shown, from 0."""
    y = torch.from_numpy(public.extra["identity"]).long() if "identity" in public.extra else public.labels()
    if int(y.min()) < 0 or len(y.unique()) < 2:
        raise UserError("tl_dmi: the public images have no classes to train on; take a data set that names them")
    return y.unique(return_inverse=True)[1]


def pretrain(net: nn.Module, x: Tensor, y: Tensor, setting: TlDmi, rng: torch.Generator) -> None:
    """Train in place on images x (n, c, h, w) in [0, 1] of classes y (n,), mirrored at random."""
    optimiser = torch.optim.Adam(net.parameters(), lr=setting.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, setting.rate, total_steps=setting.steps)
    x, y = x.to(device()), y.to(device())
    net.train()
    for _ in range(setting.steps):
        part = torch.randint(len(x), (min(setting.batch, len(x)),), generator=rng)
        mirrored = torch.rand(len(part), 1, 1, 1, generator=rng).to(x.device) < 0.5
        images = torch.where(mirrored, x[part].flip(-1), x[part])
        optimiser.zero_grad()
        F.cross_entropy(net(images), y[part]).backward()
        optimiser.step()
        schedule.step()
