"""Imprint: an active server plants weights that sort the images of a batch, or of a sum of clients, into bins (beyond
the survey).

Fowl, Geiping, Czaja, Goldblum, Goldstein, "Robbing the Fed: Directly Obtaining Private Data in Federated Learning with
Modified Models", ICLR 2022. Level GR-A: the server chooses the weights. What it plants is said by the scenario
(`protocol.planted`, the number of bins) and made from public images before the round, with nothing but the
first two layers changed (`gradients.imprint`); the clients answer once, as they would answer any model. A bin with one
image gives it exactly, whatever else is in the sum: masks that hide single updates do not hide single images.

read: "view": what the protocol shows the server (with secure aggregation the sum of a group). "mean": the mean of the
whole round, which any server learns with the next model, also where it cannot read uploads (cahe).
disguised: the attacker who knows that clients screen weights: the answers to the weights with `protocol.disguise`.
tol: bins whose share of the bias gradient is below this part of the largest are empty.

Who sent an image is not in a sum: the answers of all clients behind it are one pool, matched as one batch
(`notes.pools`), and the chance that a control has in a pool of that size stands beside it.

Deviations: no module is put in front of the network, its own first layer is used; the measure is the mean pixel, its
distribution a normal one fitted to public images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from inversionbench.core.attack import Attack, Knowledge, LabelRule, Reconstruction
from inversionbench.core.ranges import ShareBelowOne

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class Imprint(Attack):
    """label_rule: of hidden labels, which the attack does not need."""

    id = "imprint"
    level = "GR-A"
    needs = "planted"

    read: Literal["view", "mean"] = "view"
    disguised: bool = False
    tol: ShareBelowOne = 1e-3
    label_rule: LabelRule = "bias_corrected"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        import torch

        from inversionbench.gradients.analytic import candidates, first_layer
        from inversionbench.gradients.imprint import differences
        from inversionbench.gradients.problem import Problem, labels_of, protocol_of
        from inversionbench.gradients.sums import summed

        protocol, which = protocol_of(oracle), "disguised" if self.disguised else "plain"
        model, seen = oracle.planted_model(which), oracle.planted_update(which, self.read)
        seen = {name: t * protocol.scale for name, t in seen.items()}
        problem = Problem(model, protocol, seen)
        clients, batch = problem.clients, protocol.batch_size
        told = [list(range(clients))] if self.read == "mean" else knowledge.defense.get("groups")
        groups = [[i for i in members if i < clients] for members in summed(seen, told)]
        dw, db = first_layer(seen, torch.Size(problem.shape[2:]).numel(), "an imprint")
        images = torch.zeros(problem.shape)
        found, pools = [0] * clients, [0] * clients
        for pool, members in enumerate(groups):
            parts = differences(dw[members[0]], db[members[0]], protocol.planted)
            fed, bins = candidates(*parts, len(members) * batch, model.front.box, self.tol)
            images[members] = model.front.pixels(fed).float().clamp(0, 1).view(len(members), *problem.shape[1:])
            for i in members:
                found[i], pools[i] = bins, pool
        labels, source = labels_of(problem, knowledge, self.label_rule, rng)
        notes = {"labels": source, "pools": pools, "full_bins": found, "read": self.read,
                 "clients_in_sum": max(map(len, groups)), **({"adaptive": True} if self.disguised else {})}  # fmt: skip
        return Reconstruction(images, labels, cost={"gradient_evaluations": 0}, notes=notes)
