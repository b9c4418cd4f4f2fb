"""Kinds of input: what of a federated round differs between images, rows of a table and sentences.

The client, the attacked round, training, price and oracle know a kind only by this interface: how samples become
tensors, which ones are attacked, which network reads them, and how the attacker's simulation is checked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from inversionbench.core.defense import Defense
from inversionbench.core.errors import UserError
from inversionbench.core.scenario import Progress, Scenario
from inversionbench.core.seeds import stream
from inversionbench.federation.client import Sent, Update
from inversionbench.federation.settings import Batches, Federation

if TYPE_CHECKING:
    from inversionbench.data.base import Dataset, Part


@dataclass(frozen=True)
class Inputs(ABC):
    """One scenario's kind of input."""

    scenario: Scenario

    kind: ClassVar[str]  # as `Defense.inputs` names it; also the word for several samples
    facts: ClassVar[tuple[str, ...]]  # of `about`, released with the global model

    @property
    @abstractmethod
    def batches(self) -> Batches:
        """The attacked clients."""

    @property
    def federation(self) -> Federation:
        """How the global model is trained; the default is not at all."""
        return Federation()

    @abstractmethod
    def about(self, data: Dataset) -> Mapping[str, Any]:
        """What the network must know of the data; `facts` of it are released as they are."""

    def classes(self, about: Mapping[str, Any]) -> int:
        """How many values a label has."""
        return int(about["classes"])

    @abstractmethod
    def samples(self, part: Part, about: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """(x, y) of a part: (n, ...) as the model reads it, (n,) or (n, ...) as the loss does."""

    @abstractmethod
    def fresh(self, about: Mapping[str, Any], rng: torch.Generator) -> nn.Module:
        """The undefended network with its initial weights."""

    def prepared(self, defense: Defense, data: Dataset, seed: int) -> Defense:
        """The defense made ready for the data set and the network."""
        about = self.about(data)
        return defense.prepare(data, lambda rng: self.fresh(about, rng), stream(seed, "defense", "prepare"))

    def start(self, data: Dataset, defense: Defense, seed: int, progress: Progress | None = None) -> nn.Module:
        """The global model before any federated round, with H3."""
        about, rng = self.about(data), stream(seed, "model")
        return defense.build_model(lambda: self.fresh(about, rng))

    def load(self, released: Mapping[str, Any], defense: Defense) -> nn.Module:
        """The model that the server sent out, from what was released."""
        rng = stream(0, "model")
        model = self.ready(defense.build_model(lambda: self.fresh(released, rng)))
        model.load_state_dict(released["state"])
        return model

    def ready(self, model: nn.Module) -> nn.Module:
        """The global model as clients train it; changed in place."""
        return model

    def planted(self, model: nn.Module, data: Dataset, seed: int) -> dict[str, nn.Module]:
        """What an active server sends in place of `model`, by name; nothing where it is honest."""
        return {}

    @abstractmethod
    def choose(self, y: Tensor, seed: int) -> dict[str, Tensor]:
        """Indices of the attacked batches, "client", and where there are controls of equally many other samples,
        "decoy": each (clients, largest batch), of different samples, unused places repeating the client's first."""

    def check(self, model: nn.Module, sent: Sequence[Sent], view: Update) -> tuple[dict[str, Any], dict[str, float]]:
        """Before any attack: (lists per client for the truth, numbers for the utility). cos_sent_true: cosine of the
        update before H6 and of what is seen. Where attacks simulate the client, match_at_truth_undefended: cosine
        distance at the true data between the simulated update and the one before H6, 0 to float precision, else the
        client is simulated wrongly (or H2 to H5 change it); match_at_truth: the same against what is seen.
        """
        return {}, {"cos_sent_true": float(cosines(sent, view).mean())}

    @abstractmethod
    def truth(
        self, x: Tensor, y: Tensor, index: Mapping[str, Tensor], held: Tensor, transformed: Sequence[Tensor]
    ) -> dict[str, Any]:
        """What only the evaluation may know. x, y: all private samples. held: bool (clients, largest batch), the places
        in use. transformed: what each client trained on, where H2 changed it."""

    def released(self, sent: Sequence[Sent], earlier: Any, architecture: Any) -> dict[str, Any]:
        """What is released beside model, updates and defense. earlier: the rounds before. architecture: the defense
        that the network was built with."""
        return {}

    def quality(self, model: nn.Module, data: Dataset) -> dict[str, float]:
        """Utility of the global model itself, where it was trained before the federation."""
        return {}


def cosines(sent: Sequence[Sent], view: Update) -> Tensor:
    """Cosine of what each client computed and what is seen of it, float64 (clients,)."""
    one = lambda update: torch.cat([t.detach().double().flatten() for t in update.values()])
    return torch.stack([
        nn.functional.cosine_similarity(one(s.update), one({n: t[i] for n, t in view.items()}), dim=0, eps=1e-30)
        for i, s in enumerate(sent)
    ])


def padded(index: Tensor, batches: Batches) -> Tensor:
    """(all samples,) to (clients, largest batch); unused places repeat the client's first."""
    parts = index.split(batches.sizes)
    return torch.stack([torch.cat([p, p[:1].expand(batches.largest - len(p))]) for p in parts])


def enough(needed: int, have: int, kind: str, batches: Batches) -> None:
    """Refuse more attacked clients than the private part can serve."""
    if needed > have:
        raise UserError(f"{len(batches.sizes)} clients with batches of up to {batches.largest} and their decoys need "
                        f"{needed} private {kind}, there are {have}: fewer subjects or a smaller batch")  # fmt: skip
