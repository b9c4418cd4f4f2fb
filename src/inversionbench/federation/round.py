"""The attacked round: from a scenario, a defense and data to what the server holds and what it must not know.

The attacked clients take part for the first time, so a defense with memory (residuals, momentum) enters with
an empty one: what they send depends on this one batch alone, which is the worst case. Where the protocol shows
several rounds, the first of them is their first. Decoy clients, where a kind of input has them, send in the same
round: other samples under the labels of the attacked batch of the same place, so that only the samples differ.
Clients of one batch size make one round: what H7 mixes, it mixes among them. Where a protocol of the defense needs more
clients than are attacked (`Defense.crowd`), others with batches of their own fill each round up; nobody attacks these.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inversionbench.core.defense import Client, Defense
from inversionbench.core.errors import UserError
from inversionbench.core.exchange import Round
from inversionbench.core.protocol import Protocol
from inversionbench.core.scenario import Progress, Target
from inversionbench.core.seeds import stream
from inversionbench.federation.client import Sent, Update, exchange, send
from inversionbench.federation.inputs import Inputs
from inversionbench.federation.settings import Batches
from inversionbench.federation.trainer import train

if TYPE_CHECKING:
    from inversionbench.data.base import Dataset

TRUTH = 1e-4  # cosine distance that float32 leaves at the true data; a wrong simulation gives 1e-2 and more


@dataclass
class Group:
    """Clients of one round, those that fill it up last. ids: their numbers among all clients of the cell, attacked ones
    before others. x, y: (clients, batch, ...). owners: the defense as each runs it. attacked: how many of them are.
    """

    protocol: Protocol
    ids: list[int]
    x: Tensor
    y: Tensor
    owners: list[Defense]
    attacked: int
    memory: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Result:
    """What was sent, and seen by the observer, of the attacked clients of all batch sizes; the mean update of each
    size's round; bytes of every client; public facts of the rounds; processor seconds."""

    sent: list[Sent]
    view: Update
    means: list[Update]
    bytes_up: list[float]
    bytes_down: list[float]
    facts: dict[str, Any]
    seconds: dict[str, float]


def make_target(inputs: Inputs, defense: Defense, data: Dataset, seed: int, progress: Progress | None) -> Target:
    """Train the global model as the scenario says, let the clients send, and check the attacker's simulation."""
    batches, federation, about = inputs.batches, inputs.federation, inputs.about(data)
    protocol, classes = batches.protocols[0], inputs.classes(about)
    architecture = {"id": defense.id, **asdict(defense)}
    defense = inputs.prepared(defense, data, seed)
    x, y = _private(inputs, about, defense, data, seed)
    model = inputs.start(data, defense, seed, progress)
    utility = {} if defense.hooks else inputs.quality(model, data)  # of the model before any defended round
    model = inputs.ready(model)
    index = inputs.choose(y, seed)
    if federation.rounds:
        train(model, x, y, classes, federation, federation.rounds, defense, stream(seed, "rounds"),
              stream(seed, "rounds", "defense"))  # fmt: skip
    rounds = max(federation.rounds + protocol.rounds, federation.utility_rounds)  # the attacked ones are among them
    views = _groups(x, y, index, batches, defense, seed)
    earlier: list[dict[str, Any]] = []
    for back in reversed(range(1, protocol.rounds)):
        number = federation.rounds + len(earlier)
        before = attacked_round(model, views["client"], number, rounds, defense, seed, f"client -{back}", classes)
        earlier.append(_earlier(model, before, protocol))
    number = federation.rounds + len(earlier)
    done = {v: attacked_round(model, g, number, rounds, defense, seed, v, classes) for v, g in views.items()}
    own = done["client"]
    planted = {
        name: _planted(bad, views["client"], number, rounds, defense, seed, classes)
        for name, bad in inputs.planted(model, data, seed).items()
    }
    active = {"planted": {name: held for name, (held, _) in planted.items()}} if planted else {}
    refused = {f"refused_{name}": share for name, (_, share) in planted.items() if share is not None}
    checks, numbers = inputs.check(model, own.sent, own.view)
    if not defense.hooks and max(checks.get("match_at_truth_undefended", [0.0])) > TRUTH:
        raise RuntimeError(f"the client is simulated wrongly: matching loss at the true data {checks}")
    # a client that a skewed split leaves hardly a batch draws nearly all of it: no credit for sampling
    drawn = 1.0 if federation.skew else federation.batch * federation.clients / len(y)
    taken = drawn, rounds * max(len(p.steps) for p in batches.protocols)
    parameters = sum(p.numel() for p in model.parameters())
    stated = defense.statements(*taken, parameters, rounds)
    held = torch.arange(batches.largest) < torch.tensor(batches.sizes)[:, None]
    told = own.sent[0].public | own.facts
    released = {
        "state": {n: t.detach().clone() for n, t in model.state_dict().items()},
        **{name: about[name] for name in inputs.facts},
        "updates": {name: result.view for name, result in done.items()},
        "defense": defense.public_knowledge() | told | ({"guarantee": "; ".join(stated)} if stated else {}),
        **inputs.released(own.sent, earlier, architecture), **active,
    }
    if protocol.labels == "known":
        released["labels"] = y[index["client"]].masked_fill(~held, -1)
    transformed = [s.x for s in own.sent] if "train_transform" in defense.hooks else []
    truth = inputs.truth(x, y, index, held, transformed) | ({"checks": checks} if checks else {})
    utility |= {
        "bytes_up": sum(own.bytes_up) / len(own.bytes_up), "bytes_down": sum(own.bytes_down) / len(own.bytes_down),
        "bytes_dense": float(4 * parameters), **numbers,
        **{n: float(v) for n, v in told.items() if isinstance(v, (int, float))},
        **defense.guarantee(*taken), **refused,
    }  # fmt: skip
    if "mu_step" in utility:  # noise in every local step
        utility["mu_round"] = utility["mu_step"] * max(len(p.steps) for p in batches.protocols) ** 0.5
    return Target(released, truth, utility, own.seconds)


def _private(
    inputs: Inputs, about: Any, defense: Defense, data: Dataset, seed: int
) -> tuple[Tensor, Tensor]:
    """All private samples as the clients hold them, with H1."""
    x, y = inputs.samples(data.private, about)
    used_x, used_y = defense.training_set(x, y, stream(seed, "defense", "set"))
    if len(used_x) != len(x):
        raise UserError(f"defense '{defense.id}' turns {len(x)} {inputs.kind} into {len(used_x)}: none is left to find")
    return used_x, used_y


def _groups(
    x: Tensor, y: Tensor, index: dict[str, Tensor], batches: Batches, defense: Defense, seed: int
) -> dict[str, list[Group]]:
    """The attacked clients, and the decoys, one group for each batch size, filled up to what the defense's protocol
    needs. The local set of a client is its batch and all samples of no batch.
    """
    free = torch.ones(len(y), dtype=torch.bool)
    for rows in index.values():
        free[rows.flatten()] = False
    spare = [-batches.subjects % defense.crowd * p.batch_size for p in batches.protocols]
    more = iter(_companions(free, len(index) * sum(spare), stream(seed, "companions")).split(spare * len(index)))
    labels = index["client"]
    out: dict[str, list[Group]] = {}
    for name, rows in index.items():
        out[name] = []
        first = len(rows)
        for protocol, clients in batches.parts():
            n, extra = protocol.batch_size, next(more).view(-1, protocol.batch_size)
            part = torch.cat([rows[clients.start : clients.stop, :n], extra])
            given = torch.cat([y[labels[clients.start : clients.stop, :n]], y[extra]])
            ids = [*clients, *range(first, first + len(extra))]
            first += len(extra)
            owners = [
                defense.for_client(torch.cat([x[row], x[free]]), torch.cat([own, y[free]]),
                                   stream(seed, "defense", name, "local", i))
                for i, row, own in zip(ids, part, given)
            ]  # fmt: skip
            out[name].append(Group(protocol, ids, x[part], given, owners, len(clients), [{} for _ in ids]))
    return out


def _companions(free: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Indices (count,) of samples marked in `free` (n,), for clients that only fill a round up."""
    places = free.nonzero().flatten()
    if count > len(places):
        raise UserError(f"the defense needs {count} further private samples for clients that fill its sessions up, "
                        f"{len(places)} are left: fewer subjects, or smaller sessions")  # fmt: skip
    return places[torch.randperm(len(places), generator=rng)[:count]]


def attacked_round(
    model: nn.Module, groups: Sequence[Group], number: int, rounds: int, defense: Defense, seed: int, name: str,
    classes: int,
) -> Result:
    """One round of all groups from local training to what the observer sees. name: of the random streams."""
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    out = Result([], {}, [], [], [], {}, {"client": 0.0, "exchange": 0.0})
    views, clients = [], sum(len(g.ids) for g in groups)
    for g in groups:
        started = time.process_time()
        sent = [
            send(model, g.x[place], g.y[place], g.protocol, own,
                 Client(number, rounds, place, len(g.ids), g.protocol.batch_size, parameters,
                        stream(seed, "defense", name, g.ids[place]), g.memory[place]), classes)
            for place, own in enumerate(g.owners)
        ]  # fmt: skip
        between = time.process_time()
        rng = stream(seed, "protocol", name, *(() if g is groups[0] else (g.protocol.batch_size,)))
        session = Round(number, rng, [s.size for s in sent], g.protocol.observer, True)
        done, view = exchange(defense, sent, [1.0] * len(sent), session)
        out.seconds["client"] += (between - started) / clients
        out.seconds["exchange"] += time.process_time() - between
        out.sent += sent[: g.attacked]
        out.means.append(done.mean)
        out.bytes_up, out.bytes_down = [*out.bytes_up, *done.bytes_up], [*out.bytes_down, *done.bytes_down]
        out.facts = _joined(out.facts, done.facts, g.ids)
        views.append({n: t[: g.attacked] for n, t in view.items()})
    out.view = {n: torch.cat([view[n] for view in views]) for n in views[0]}
    return out


def _planted(
    model: nn.Module, groups: Sequence[Group], number: int, rounds: int, defense: Defense, seed: int, classes: int
) -> tuple[dict[str, Any], float | None]:
    """What an active server holds of the same clients, who meet its weights instead of the honest ones, and the share
    of them that refused to answer, where the defense can."""
    fresh = [replace(g, memory=[{} for _ in g.ids]) for g in groups]
    seen = attacked_round(model, fresh, number, rounds, defense, seed, "planted", classes)
    mean = {n: t.expand(len(seen.sent), *t.shape).clone() for n, t in seen.means[0].items()}
    state = {n: t.detach().clone() for n, t in model.state_dict().items()}
    said = [s.public["refused"] for s in seen.sent if "refused" in s.public]
    return {"state": state, "view": seen.view, "mean": mean}, sum(said) / len(said) if said else None


def _joined(before: dict[str, Any], facts: dict[str, Any], ids: list[int]) -> dict[str, Any]:
    """Public facts of the rounds of several batch sizes: those of the first, sums by the numbers of their clients."""
    groups = [[ids[place] for place in members] for members in facts.get("groups", ())]
    out = before or facts
    return {**out, "groups": [*before.get("groups", ()), *groups]} if groups else out


def _earlier(model: nn.Module, seen: Result, protocol: Protocol) -> dict[str, Any]:
    """What the attacker held in a round before the attacked one; moves `model` to the next round."""
    state = {n: t.detach().clone() for n, t in model.state_dict().items()}
    sign = 1 if protocol.sends == "delta" else -1
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(seen.means[0][name], alpha=sign * protocol.server_rate)
    return {"state": state, "update": seen.view}
