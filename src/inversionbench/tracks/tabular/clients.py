"""Clients that train on rows of a table: what the server gets to see, and what it must not know.

    private rows ── draw ──▶ attacked batches, decoys (other rows with the same labels), the federation's rows
    RowNet (default initial weights, H3) ── `rounds` rounds on the federation's rows ──▶ global model
    attacked batches, decoys ── federation/client.py, H2 … H7 ──▶ updates as the server reads them
    the same federation from the start for `utility_rounds` rounds ──▶ accuracy with the defense in the loop
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inversionbench.core.defense import Client, Defense
from inversionbench.core.errors import UserError
from inversionbench.core.protocol import Protocol
from inversionbench.core.seeds import stream
from inversionbench.federation.batches import Batches, read_batches
from inversionbench.federation.client import observe
from inversionbench.federation.rounds import Rounds, read_rounds
from inversionbench.federation.senders import attacked_round, price, send
from inversionbench.models import tabular
from inversionbench.models.rows import RowNet, read_schema

if TYPE_CHECKING:
    from inversionbench.core.scenario import Progress, Scenario
    from inversionbench.data.base import Dataset

OWN = ("ask",)  # settings of the protocol that are the track's
TRUTH = 1e-4  # cosine distance that float32 leaves at the true rows; a wrong simulation gives 1e-2 and more


def batches_of(scenario: Scenario) -> Batches:
    return read_batches(scenario.protocol, scenario.subjects, "protocol", OWN)


def publish_rows(
    scenario: Scenario, data: Dataset, defense: Defense, seed: int, progress: Progress | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
    """What is released, what is true, and the price of the defense."""
    from inversionbench.tracks.tabular.evaluate_rows import self_check

    batches, settings = batches_of(scenario), read_rounds(scenario.training, "training")
    schema = read_schema(data.meta, data.public.x)
    x, y = data.private.tensor(), data.private.labels()
    used_x, used_y = defense.training_set(x, y, stream(seed, "defense", "set"))
    if len(used_x) != len(x):
        raise UserError(f"defense '{defense.id}' turns {len(x)} rows into {len(used_x)}: no row to recover is left")
    index, decoy, rest = choose(y, batches, stream(seed, "subjects"))
    others = used_x[rest], used_y[rest]
    model = new_net(scenario, schema.mean, schema.std, data.classes, defense, seed)
    if settings.rounds:
        federate(model, *others, settings.rounds, settings, defense, data.classes, seed, progress)
    views, sent = {}, {}
    for name, rows in (("client", index), ("decoy", decoy)):
        views[name], sent[name] = attacked_round(model, used_x[rows], used_y[rows], batches, defense, data.classes,
                                                 seed, name, settings.rounds)  # fmt: skip
    held = torch.arange(batches.largest) < torch.tensor(batches.sizes)[:, None]
    released = {
        "state": {n: t.detach().clone() for n, t in model.state_dict().items()},
        "classes": data.classes,
        "updates": views,
        "defense": defense.public_knowledge() | sent["client"][0].public,
    }
    if batches.labels == "known":
        released["labels"] = y[index].masked_fill(~held, -1)
    checks = self_check(model, batches, sent["client"], views["client"])
    if not defense.hooks and max(checks["match_at_truth_undefended"]) > TRUTH:
        raise RuntimeError(f"the client is simulated wrongly: matching loss at the true rows {checks}")
    truth = {"rows": x[index], "labels": y[index].masked_fill(~held, -1), "decoys": x[decoy], "checks": checks}
    utility = price(sent["client"], model, views["client"])
    utility["match_at_truth"] = float(np.mean(checks["match_at_truth"]))
    utility["match_at_truth_undefended"] = max(checks["match_at_truth_undefended"])
    if settings.utility_rounds:
        trained = new_net(scenario, schema.mean, schema.std, data.classes, defense, seed)
        federate(trained, *others, settings.utility_rounds, settings, defense, data.classes, seed, progress)
        utility |= accuracy(trained, data)
    return released, truth, utility


def new_net(scenario: Scenario, mean: Tensor, std: Tensor, classes: int, defense: Defense, seed: int) -> RowNet:
    """The global model at round 0: PyTorch's initial weights, with H3. mean, std: (width,), of the public rows."""
    hidden = tabular.options_of(scenario.model)["hidden"]
    factory = lambda: RowNet(mean, std, tabular.MLP(len(mean), hidden, classes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=stream(seed, "model"))))
        return defense.build_model(factory).eval()  # type: ignore[return-value]


def load_net(scenario: Scenario, released: dict[str, Any], defense: Defense) -> RowNet:
    """The model that the server sent out, from what was released."""
    state = released["state"]
    net = new_net(scenario, state["mean"], state["std"], released["classes"], defense, 0)
    net.load_state_dict(released["state"])
    return net


def choose(y: Tensor, batches: Batches, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Row numbers of the attacked batches and of their decoys, (clients, largest batch) each, and of the rest.

    A decoy is another row with the label of the attacked row of the same place. No row is in two places, but
    for the unused places of smaller batches, which repeat the client's first row.
    """
    needed = sum(batches.sizes)
    if 4 * needed > len(y):
        raise UserError(f"{len(batches.sizes)} clients hold {needed} rows; with as many decoys and twice as many for "
                        f"the federation that is more than the {len(y)} private rows: fewer subjects")  # fmt: skip
    order = torch.randperm(len(y), generator=rng)
    taken, free = order[:needed], order[needed:]
    pools = {c: free[y[free] == c].tolist() for c in y.unique().tolist()}
    for c, count in zip(*(v.tolist() for v in y[taken].unique(return_counts=True))):
        if len(pools[c]) < count:
            raise UserError(f"only {len(pools[c])} further private rows have label {c}, {count} decoys need one each")
    others = [pools[int(y[i])].pop() for i in taken]
    parts = zip(taken.split(batches.sizes), torch.tensor(others).split(batches.sizes))
    filled = [[torch.cat([p, p[:1].expand(batches.largest - len(p))]) for p in pair] for pair in parts]
    rest = torch.tensor(sorted(i for pool in pools.values() for i in pool))
    return torch.stack([a for a, _ in filled]), torch.stack([b for _, b in filled]), rest


def federate(
    model: RowNet, x: Tensor, y: Tensor, rounds: int, settings: Rounds, defense: Defense, classes: int, seed: int,
    progress: Progress | None,
) -> None:
    """Train `model` for some rounds, in place: each client keeps its own rows and its own memory."""
    protocol = Protocol(batch_size=settings.batch)
    order = stream(seed, "federation")
    shards = torch.randperm(len(x), generator=order).tensor_split(settings.clients)
    if min(map(len, shards)) < settings.batch:
        raise UserError(f"training: {settings.clients} clients with {settings.batch} rows each need more than the "
                        f"{len(x)} private rows that are left")  # fmt: skip
    memory: list[dict[str, Any]] = [{} for _ in shards]
    velocity = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    momentum = 0.0 if getattr(defense, "client_momentum", False) else settings.momentum
    own = [stream(seed, "federation", "defense", k) for k in range(settings.clients)]
    for r in progress(range(rounds), desc="federation", total=rounds) if progress else range(rounds):
        parameters = {n: p.detach() for n, p in model.named_parameters()}
        sent = []
        for k, shard in enumerate(shards):
            rows = shard[torch.randperm(len(shard), generator=order)[: settings.batch]]
            client = Client(r, rounds, k, settings.clients, len(rows), parameters, own[k], memory[k])
            sent.append(send(model, x[rows], y[rows], protocol, defense, client, classes))
        mean, _ = observe(defense, sent, [1.0] * len(sent))
        with torch.no_grad():
            for n, p in model.named_parameters():
                velocity[n].mul_(momentum).add_(mean[n])
                p.sub_(velocity[n], alpha=settings.rate)


@torch.no_grad()
def accuracy(model: RowNet, data: Dataset) -> dict[str, float]:
    """accuracy and balanced_accuracy of a model on held-out rows, in [0, 1]."""
    y = data.heldout.labels()
    right = (model(data.heldout.tensor()).argmax(1) == y).double()
    per_class = [float(right[y == c].mean()) for c in y.unique().tolist()]
    return {"accuracy": float(right.mean()), "balanced_accuracy": float(np.mean(per_class))}
