"""Rows of a table: a fully connected network, batches of several sizes, decoys that are other rows with the same
labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.errors import UserError
from inversionbench.core.seeds import draw_seed, stream
from inversionbench.federation.client import Sent, Update
from inversionbench.federation.inputs import Inputs, cosines, enough, padded
from inversionbench.federation.settings import Batches, Federation, batches_of_rows, federation_of_rows
from inversionbench.gradients.fully_connected import Matching, as_gradient, layers_of, observed_of
from inversionbench.models import tabular
from inversionbench.models.rows import RowNet, read_schema

if TYPE_CHECKING:
    from inversionbench.data.base import Dataset, Part


class Rows(Inputs):
    """x: (n, width), encoded rows; y: (n,)."""

    kind = "rows"
    facts = ("classes",)

    @property
    def batches(self) -> Batches:
        return batches_of_rows(self.scenario)

    @property
    def federation(self) -> Federation:
        return federation_of_rows(self.scenario)

    def samples(self, part: Part, about: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        return part.tensor(), part.labels()

    def about(self, data: Dataset) -> Mapping[str, Any]:
        """mean, std: (width,), of the public rows, by which the network standardises: part of its state."""
        schema = read_schema(data.meta, data.public.x)
        return {"classes": data.classes, "state": {"mean": schema.mean, "std": schema.std}}

    def fresh(self, about: Mapping[str, Any], rng: torch.Generator) -> RowNet:
        """PyTorch's initial weights."""
        mean, std = about["state"]["mean"], about["state"]["std"]
        hidden = tabular.options_of(self.scenario.model)["hidden"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(rng))
            return RowNet(mean, std, tabular.MLP(len(mean), hidden, about["classes"])).eval()

    def choose(self, y: Tensor, seed: int) -> dict[str, Tensor]:
        index, decoy = choose(y, self.batches, stream(seed, "subjects"))
        return {"client": index, "decoy": decoy}

    def check(self, model: nn.Module, sent: Sequence[Sent], view: Update) -> tuple[dict[str, Any], dict[str, float]]:
        numbers = {"cos_sent_true": float(cosines(sent, view).mean())}
        if not isinstance(model, RowNet):
            return {}, numbers
        checks = self_check(model, self.batches, sent, view)
        return checks, {
            **numbers, "match_at_truth": float(np.mean(checks["match_at_truth"])),
            "match_at_truth_undefended": max(checks["match_at_truth_undefended"]),
        }  # fmt: skip

    def truth(
        self, x: Tensor, y: Tensor, index: Mapping[str, Tensor], held: Tensor, transformed: Sequence[Tensor]
    ) -> dict[str, Any]:
        labels = y[index["client"]].masked_fill(~held, -1)
        return {"rows": x[index["client"]], "labels": labels, "decoys": x[index["decoy"]]}


def self_check(model: RowNet, batches: Batches, sent: Sequence[Sent], view: Update) -> dict[str, list[float]]:
    """Cosine distances at the true rows: see `Inputs.check`."""
    out: dict[str, list[float]] = {}
    before = {n: torch.stack([s.update[n] for s in sent]) for n in view}
    for name, update in (("match_at_truth_undefended", before), ("match_at_truth", view)):
        protocols = [p.plain for p, clients in batches.parts() for _ in clients]
        observed = observed_of(model, as_gradient(update, protocols))
        out[name] = []
        for protocol, clients in batches.parts():
            for i in clients:
                z = ((sent[i].x.detach() - model.mean) / model.std)[None, None]
                y = sent[i].y if sent[i].y.is_floating_point() else F.one_hot(sent[i].y, model.net.fc.out_features)
                matching = Matching(layers_of(model), [g[i : i + 1] for g in observed], protocol)
                with torch.no_grad():
                    out[name].append(float(matching(z, y.float()[None, None])))
    return out


def choose(y: Tensor, batches: Batches, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Row numbers of the attacked batches and of their decoys, (clients, largest batch) each.

    A decoy is another row with the label of the attacked row of the same place. No row is in two places, but
    for the unused places of smaller batches, which repeat the client's first row.
    """
    needed = sum(batches.sizes)
    enough(2 * needed, len(y), "rows", batches)
    order = torch.randperm(len(y), generator=rng)
    taken, free = order[:needed], order[needed:]
    pools = {c: free[y[free] == c].tolist() for c in y.unique().tolist()}
    for c, count in zip(*(v.tolist() for v in y[taken].unique(return_counts=True))):
        if len(pools[c]) < count:
            raise UserError(f"only {len(pools[c])} further private rows have label {c}, {count} decoys need one each")
    others = torch.tensor([pools[int(y[i])].pop() for i in taken])
    return padded(taken, batches), padded(others, batches)
