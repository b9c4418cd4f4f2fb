"""Several defenses in a row (the update path of the survey's sections 4.2 to 4.6, composed).

    defenses:
      private_sum:
        method: chain
        params:
          stages: [{method: local_dp, clip: 1.0}, {method: secure_aggregation, strength: 4}]
          varies: local_dp
        strengths: [1.0, 3.0]

Where several stages hold H7 (`local_dp` has weights of its own), the masked sum of the last one takes its place.
On each hook the stages act from the first to the last; the losses of several add what each adds to the cross
entropy. The updates go through the stages of all of them as one path, whose order is checked before any job:
noise behind its clip, no float under a mask, nothing behind a mask (`_path.check_order`).

stages: mappings with `method`, its parameters and its `strength`. varies: the method whose strength is that of the
chain; with strength 0 no stage acts at all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Client, Defense, Step
from inversionbench.core.update_path import Received, UpdatePath, check_chain

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from inversionbench.core.exchange import Exchange, Round
    from inversionbench.data.base import Dataset


@dataclass(frozen=True)
class Chain(Defense):
    """stages: mappings, in order. varies: the method that the strength belongs to."""

    id = "chain"
    hooks = frozenset({
        "training_set", "train_transform", "build_model", "loss", "gradient", "client_update", "aggregate", "release",
    })  # fmt: skip
    federated = True

    stages: tuple[Mapping[str, Any], ...] = ()
    varies: str = ""

    def __post_init__(self) -> None:
        if self.strength:
            check_chain(self.stages, self.varies, "chain")

    @cached_property
    def parts(self) -> tuple[Defense, ...]:
        """The defenses, none of them at strength 0."""
        from inversionbench.core import registry

        out = []
        for stage in self.stages if self.strength else ():
            given = {"strength": self.strength} | {k: v for k, v in stage.items() if k != "method"}
            out.append(registry.get("defense", stage["method"])(**given))
        return tuple(out)

    def _with(self, parts: Sequence[Defense]) -> Chain:
        twin = copy.copy(self)
        twin.__dict__["parts"] = tuple(parts)
        return twin

    def _having(self, hook: str) -> list[Defense]:
        return [p for p in self.parts if hook in p.hooks]

    @property
    def crowd(self) -> int:
        return max((p.crowd for p in self.parts), default=1)

    @property
    def client_momentum(self) -> bool:  # type: ignore[override]
        return any(p.client_momentum for p in self.parts)

    @property
    def poisson(self) -> bool:  # type: ignore[override]
        return any(p.poisson for p in self.parts)

    @property
    def personal(self) -> bool:  # type: ignore[override]
        return any(p.personal for p in self.parts)

    def prepare(self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator) -> Chain:
        return self._with([p.prepare(data, factory, rng) for p in self.parts])

    def for_client(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Chain:
        return self._with([p.for_client(x, y, rng) for p in self.parts])

    def training_set(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        for part in self.parts:
            x, y = part.training_set(x, y, rng)
        return x, y

    def train_transform(self, x: Tensor, y: Tensor, rng: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        for part in self.parts:
            x, y = part.train_transform(x, y, rng, step)
        return x, y

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        def wrapped(inner: Callable[[], nn.Module], part: Defense) -> Callable[[], nn.Module]:
            return lambda: part.build_model(inner)

        for part in self.parts:
            factory = wrapped(factory, part)
        return factory()

    def loss(self, ctx: Step) -> Tensor:
        plain, own = super().loss(ctx), self._having("loss")
        if len(own) == 1:
            return own[0].loss(ctx)
        for part in own:
            plain = plain + part.loss(ctx) - super().loss(ctx)
        return plain

    def gradient(self, gradients: dict[str, Tensor], ctx: Step) -> dict[str, Tensor]:
        for part in self.parts:
            gradients = part.gradient(gradients, ctx)
        return gradients

    def client_update(self, update: dict[str, Tensor], ctx: Client) -> dict[str, Tensor]:
        stages = [stage for part in self._having("client_update") for stage in part.on_path()]
        return UpdatePath(stages).send(update, ctx) if stages else update

    def aggregate(
        self, payloads: Sequence[dict[str, Tensor]], weights: Sequence[float]
    ) -> tuple[dict[str, Tensor], Sequence[dict[str, Tensor]]]:
        own = self._having("aggregate")
        return own[-1].aggregate(payloads, weights) if own else super().aggregate(payloads, weights)

    def exchange(self, payloads: Sequence[dict[str, Tensor]], weights: Sequence[float], round: Round) -> Exchange:
        own = self._having("aggregate")
        return own[-1].exchange(payloads, weights, round) if own else super().exchange(payloads, weights, round)

    def deployed(self, x: Tensor, rng: torch.Generator) -> Tensor:
        for part in self.parts:
            x = part.deployed(x, rng)
        return x

    def guarantee(self, rate: float, steps: int) -> dict[str, float]:
        return {name: value for p in self.parts for name, value in p.guarantee(rate, steps).items()}

    def statements(self, rate: float, steps: int, parameters: int, rounds: int) -> tuple[str, ...]:
        told = ((p.id, p.statements(rate, steps, parameters, rounds)) for p in self.parts)
        return tuple(f"{name}: {said}" for name, all_said in told for said in all_said)

    def release(self, logits: Tensor, rng: torch.Generator) -> Tensor:
        own = self._having("release")
        return own[0].release(logits, rng) if own else super().release(logits, rng)

    def public_knowledge(self) -> dict[str, Any]:
        """Everything that any stage tells, and the names of the stages."""
        told = {name: value for part in self.parts for name, value in part.public_knowledge().items()}
        return {**told, "chain": [p.id for p in self.parts]}

    def bytes_sent(self, update: dict[str, Tensor]) -> int:
        return update.size if isinstance(update, Received) else super().bytes_sent(update)
