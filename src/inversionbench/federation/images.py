"""Images: a network of `models.federated`, batches of one size, decoys of other classes under the same labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.errors import UserError
from inversionbench.core.protocol import Protocol, read_protocol
from inversionbench.core.seeds import stream
from inversionbench.federation.client import Sent, Update
from inversionbench.federation.inputs import Inputs, enough
from inversionbench.federation.settings import Batches, Federation, read_federation
from inversionbench.gradients.imprint import plant
from inversionbench.gradients.objectives import Matching
from inversionbench.gradients.simulate import simulator
from inversionbench.models.federated import Victim, build

if TYPE_CHECKING:
    from inversionbench.data.base import Dataset, Part


class Images(Inputs):
    """x: (n, c, h, w) in [0, 1]; y: (n,)."""

    kind = "images"
    facts = ("shape", "classes")

    @property
    def protocol(self) -> Protocol:
        return read_protocol(self.scenario.protocol, f"scenarios.{self.scenario.name}.protocol")

    @property
    def batches(self) -> Batches:
        return Batches((self.protocol,), self.scenario.subjects)

    @property
    def federation(self) -> Federation:
        return read_federation(self.scenario.training, f"scenarios.{self.scenario.name}.training")

    def samples(self, part: Part, about: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        return part.images(), part.labels()

    def about(self, data: Dataset) -> Mapping[str, Any]:
        return {"shape": list(data.shape), "classes": data.classes}

    def fresh(self, about: Mapping[str, Any], rng: torch.Generator) -> Victim:
        return build(self.scenario.model, tuple(about["shape"]), about["classes"], rng)

    def planted(self, model: nn.Module, data: Dataset, seed: int) -> dict[str, nn.Module]:
        bins, disguise = self.protocol.planted, self.protocol.disguise
        if not bins or not isinstance(model, Victim):
            return {}
        public = model.front(data.public.images())
        return {name: plant(model, public, bins, size, stream(seed, "planted"))
                for name, size in (("plain", 0.0), ("disguised", disguise)) if size or name == "plain"}  # fmt: skip

    def choose(self, y: Tensor, seed: int) -> dict[str, Tensor]:
        index = choose(y, self.scenario.subjects, self.protocol, stream(seed, "subjects"))
        return {"client": index, "decoy": choose_decoys(y, index, stream(seed, "decoys"))}

    def check(self, model: nn.Module, sent: Sequence[Sent], view: Update) -> tuple[dict[str, Any], dict[str, float]]:
        assert isinstance(model, Victim)
        checks = self_check(model, self.protocol, sent, view)
        mean = {name: sum(checks[name]) / len(checks[name]) for name in ("cos_sent_true", "match_at_truth")}
        return checks, {**mean, "match_at_truth_undefended": max(checks["match_at_truth_undefended"])}

    def truth(
        self, x: Tensor, y: Tensor, index: Mapping[str, Tensor], held: Tensor, transformed: Sequence[Tensor]
    ) -> dict[str, Any]:
        own = {"index": index["client"], "labels": y[index["client"]], "decoy_index": index["decoy"]}
        return own | ({"sent_images": torch.stack(list(transformed))} if transformed else {})

    def released(self, sent: Sequence[Sent], earlier: Any, architecture: Any) -> dict[str, Any]:
        """statistics: per batch norm the clients' (mean, variance), stacked, where they are shared."""
        shared = [tuple(map(torch.stack, zip(*norm))) for norm in zip(*(s.statistics for s in sent))]
        return {"statistics": shared if self.protocol.bn == "train_shared" else None, "earlier": earlier,
                "architecture": architecture}  # fmt: skip


def self_check(
    model: Victim, protocol: Protocol, sent: Sequence[Sent], view: Update
) -> dict[str, list[float]]:
    """How well the attacker's simulation of the client agrees with the client, per client: see `Inputs.check`. norm: of
    the update.
    """
    model.bn_mode(protocol.bn)
    client = simulator(model, protocol)
    x = torch.stack([model.front(s.x) for s in sent])
    y = torch.stack([s.y for s in sent])
    targets = y if y.is_floating_point() else F.one_hot(y, model.classes).float()
    with torch.no_grad():
        own = client(x.detach(), targets)
    scale = -1.0 if protocol.sends == "delta" else 1.0
    before = scale * client.layout.flatten({n: torch.stack([s.update[n] for s in sent]) for n in view})
    after = scale * client.layout.flatten(view)
    return {
        "match_at_truth_undefended": Matching(before)(own).tolist(),
        "match_at_truth": Matching(after)(own).tolist(),
        "cos_sent_true": F.cosine_similarity(before, after, dim=1, eps=1e-30).tolist(),
        "norm": before.norm(dim=1).tolist(),
    }


def choose(y: Tensor, subjects: int, protocol: Protocol, rng: torch.Generator) -> Tensor:
    """Indices (subjects, batch) of different private images; a larger batch holds the images of a smaller one.

    Raises `UserError` where the private set is too small or has too few classes for distinct labels.
    """
    batch = protocol.batch_size
    order = torch.randperm(len(y), generator=rng).tolist()
    enough(2 * subjects * batch, len(y), "images", Batches((protocol,), subjects))
    if protocol.classes == "any":
        return torch.tensor(order[: subjects * batch]).view(batch, subjects).T.contiguous()
    classes = int(y.max()) + 1
    if batch > classes:
        raise UserError(f"protocol.classes: distinct needs at most {classes} images per batch, got {batch}")
    rows: list[list[int]] = []
    for _ in range(subjects):
        row: list[int] = []
        seen: set[int] = set()
        for i in order:
            if len(row) < batch and int(y[i]) not in seen:
                row.append(i)
                seen.add(int(y[i]))
        rows.append(row)
        order = [i for i in order if i not in set(row)]
    return torch.tensor(rows)


def choose_decoys(y: Tensor, index: Tensor, rng: torch.Generator) -> Tensor:
    """Other images (subjects, batch), of classes that the batch of the same row does not hold.

    Where too few of these are left, a decoy differs at least from the image of its own place.
    """
    free = set(range(len(y))) - set(index.flatten().tolist())
    rows = []
    for batch in index:
        held = set(y[batch].tolist())
        row: list[int] = []
        order = [i for i in torch.randperm(len(y), generator=rng).tolist() if i in free]
        other = [i for i in order if int(y[i]) not in held]
        for place in batch.tolist():
            pool = [*other, *(i for i in order if y[i] != y[place]), *order]
            row.append(next(i for i in pool if i not in row))
        free -= set(row)
        rows.append(row)
    return torch.tensor(rows)
