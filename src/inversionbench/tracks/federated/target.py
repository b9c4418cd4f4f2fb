"""The attacked round: from a scenario, a defense and data to what the server holds and what it must not know.

The attacked clients take part for the first time, so a defense with memory (residuals, momentum) enters with
an empty one: what they send depends on this one batch alone, which is the worst case. Where the protocol shows
several rounds, the first of them is their first. Decoy clients send in
the same round: images of other classes under the labels of the attacked batch of the same place, so that
only the images differ and not the labels. Where a protocol of the defense needs more clients than are attacked
(`Defense.crowd`), others with batches of their own fill each round up; nobody attacks these.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inversionbench.core.defense import Client, Defense
from inversionbench.core.errors import UserError
from inversionbench.core.exchange import Exchange, Round
from inversionbench.core.protocol import Protocol, read_protocol
from inversionbench.core.scenario import Progress, Scenario, Target
from inversionbench.core.seeds import stream
from inversionbench.federation.client import Sent, Update, exchange, send
from inversionbench.federation.settings import read_federation
from inversionbench.models.federated import Victim, build

if TYPE_CHECKING:
    from inversionbench.data.base import Dataset


TRUTH = 1e-4  # cosine distance that float32 leaves at the true data; a wrong simulation gives 1e-2 and more


def prepared(scenario: Scenario, defense: Defense, data: Dataset, seed: int) -> Defense:
    """The defense made ready for the data set and the architecture of a scenario."""
    return defense.prepare(
        data, lambda rng: build(scenario.model, tuple(data.shape), data.classes, rng),  # type: ignore[arg-type]
        stream(seed, "defense", "prepare")
    )


def make_target(
    scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress
) -> Target:
    """Train the global model as the scenario says, let the clients send, and check the attacker's simulation."""
    from inversionbench.tracks.federated.self_check import self_check

    protocol = read_protocol(scenario.protocol, f"scenarios.{scenario.name}.protocol")
    federation = read_federation(scenario.training, f"scenarios.{scenario.name}.training")
    architecture = {"id": defense.id, **asdict(defense)}
    defense = prepared(scenario, defense, data, seed)
    x, y = defense.training_set(data.private.images(), data.private.labels(), stream(seed, "defense", "set"))
    model = new_model(scenario, defense, data.shape, data.classes, seed)
    index = choose(y, scenario.subjects, protocol, stream(seed, "subjects"))
    if federation.rounds:
        from inversionbench.tracks.federated.rounds import train

        train(model, x, y, data.classes, federation, federation.rounds, defense, stream(seed, "rounds"),
              stream(seed, "rounds", "defense"))  # fmt: skip
    rounds = max(federation.rounds + protocol.rounds, federation.utility_rounds)  # the attacked ones are among them
    decoy = choose_decoys(y, index, stream(seed, "decoys"))
    clients, decoys = _groups(x, y, index, decoy, defense, seed)
    earlier: list[dict[str, Any]] = []
    for back in reversed(range(1, protocol.rounds)):
        number = federation.rounds + len(earlier)
        before = _round(model, clients, protocol, number, rounds, defense, seed, f"client -{back}")
        earlier.append(_seen_round(model, before, protocol))
    number = federation.rounds + len(earlier)
    done, away = (_round(model, g, protocol, number, rounds, defense, seed, g.name) for g in (clients, decoys))
    checks = self_check(model, protocol, done.sent, done.view, y[index])
    if not defense.hooks and max(checks["match_at_truth_undefended"]) > TRUTH:
        raise RuntimeError(f"the client is simulated wrongly: matching loss at the true data {checks}")
    # a client that a skewed split leaves hardly a batch draws nearly all of it: no credit for sampling
    drawn = 1.0 if federation.skew else federation.batch * federation.clients / len(y)
    taken = drawn, rounds * len(protocol.steps)
    said = defense.statements(*taken, sum(p.numel() for p in model.parameters()), rounds)
    released = {
        "state": {n: t.detach().clone() for n, t in model.state_dict().items()},
        "shape": list(data.shape),
        "classes": data.classes,
        "updates": {"client": done.view, "decoy": away.view},
        "statistics": _statistics(done.sent) if protocol.bn == "train_shared" else None,
        "defense": defense.public_knowledge() | done.sent[0].public | done.exchange.facts | _stated(said),
        "earlier": earlier,
        "architecture": architecture,
    }
    if protocol.labels == "known":
        released["labels"] = y[index]
    truth = {"index": index, "labels": y[index], "decoy_index": decoy, "checks": checks}
    if "train_transform" in defense.hooks:
        truth["sent_images"] = torch.stack([s.x for s in done.sent])
    utility = _price(model, done, checks)
    utility |= defense.guarantee(*taken)
    return Target(released, truth, utility, done.seconds)


def _stated(said: tuple[str, ...]) -> dict[str, str]:
    return {"guarantee": "; ".join(said)} if said else {}


@dataclass
class Group:
    """Clients of one round, those that fill it up last. x: (clients, batch, c, h, w). y: (clients, batch). owners:
    the defense as each runs it. kept: how many of them are looked at.
    """

    name: str
    x: Tensor
    y: Tensor
    owners: list[Defense]
    kept: int
    memory: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Seen:
    """One round of a group. sent, view: of the clients that are looked at."""

    sent: list[Sent]
    exchange: Exchange
    view: Update
    seconds: dict[str, float]


def _groups(
    x: Tensor, y: Tensor, index: Tensor, decoy: Tensor, defense: Defense, seed: int
) -> tuple[Group, Group]:
    """The attacked clients and the decoys, each filled up to what the defense's protocol needs.

    The local set of a client is its batch and all images of no batch.
    """
    free = torch.ones(len(y), dtype=torch.bool)
    free[index.flatten()] = free[decoy.flatten()] = False
    fill = -len(index) % defense.crowd
    more = choose_more(free, 2 * fill, index.shape[1], stream(seed, "companions"))
    more = more.view(2, fill, index.shape[1])
    out = []
    for name, part, extra in (("client", index, more[0]), ("decoy", decoy, more[1])):
        rows, labels = torch.cat([part, extra]), torch.cat([y[index], y[extra]])
        owners = [
            defense.for_client(torch.cat([x[row], x[free]]), torch.cat([given, y[free]]),
                               stream(seed, "defense", name, "local", i))
            for i, (row, given) in enumerate(zip(rows, labels))
        ]  # fmt: skip
        out.append(Group(name, x[rows], labels, owners, len(part), [{} for _ in rows]))
    return out[0], out[1]


def _round(
    model: Victim, group: Group, protocol: Protocol, number: int, rounds: int, defense: Defense, seed: int, name: str
) -> Seen:
    """One round of a group from local training to what the observer sees."""
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    started = time.process_time()
    sent = [
        send(model, group.x[i], group.y[i], protocol, own,
             Client(number, rounds, i, len(group.x), group.x.shape[1], parameters,
                    stream(seed, "defense", name, i), group.memory[i]), model.classes)
        for i, own in enumerate(group.owners)
    ]  # fmt: skip
    between = time.process_time()
    round = Round(number, stream(seed, "protocol", name), [s.size for s in sent], protocol.observer, True)
    done, view = exchange(defense, sent, [1.0] * len(sent), round)
    seconds = {"client": (between - started) / len(sent), "exchange": time.process_time() - between}
    kept = group.kept
    return Seen(sent[:kept], done, {n: t[:kept] for n, t in view.items()}, seconds)


def _price(model: Victim, done: Seen, checks: dict[str, list[float]]) -> dict[str, float]:
    """Bytes of a client in the attacked round, how far its update was changed, and the numbers that the defense
    says of the round."""
    told = done.sent[0].public | done.exchange.facts
    return {
        "bytes_up": sum(done.exchange.bytes_up) / len(done.exchange.bytes_up),
        "bytes_down": sum(done.exchange.bytes_down) / len(done.exchange.bytes_down),
        "bytes_dense": float(4 * sum(p.numel() for p in model.parameters())),
        "cos_sent_true": sum(checks["cos_sent_true"]) / len(checks["cos_sent_true"]),
        "match_at_truth": sum(checks["match_at_truth"]) / len(checks["match_at_truth"]),
        "match_at_truth_undefended": max(checks["match_at_truth_undefended"]),
        **{n: float(v) for n, v in told.items() if isinstance(v, (int, float))},
    }


def new_model(
    scenario: Scenario, defense: Defense, shape: tuple[int, ...], classes: int, seed: int
) -> Victim:
    """The global model at round 0, with H3."""
    rng = stream(seed, "model")
    return defense.build_model(lambda: build(scenario.model, tuple(shape), classes, rng))  # type: ignore[arg-type, return-value]


def global_model(scenario: Scenario, defense: Defense, released: dict[str, Any]) -> Victim:
    """The model that the server sent out, from what was released."""
    model = new_model(scenario, defense, tuple(released["shape"]), released["classes"], 0)
    model.load_state_dict(released["state"])
    return model


def choose(y: Tensor, subjects: int, protocol: Protocol, rng: torch.Generator) -> Tensor:
    """Indices (subjects, batch) of different private images; a larger batch holds the images of a smaller one.

    Raises `UserError` where the private set is too small or has too few classes for distinct labels.
    """
    batch = protocol.batch_size
    order = torch.randperm(len(y), generator=rng).tolist()
    if subjects * batch * 2 > len(y):
        raise UserError(f"{subjects} subjects and decoys of {batch} images need {2 * subjects * batch} private "
                        f"images, there are {len(y)}: fewer subjects or a smaller batch")  # fmt: skip
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


def choose_more(free: Tensor, clients: int, batch: int, rng: torch.Generator) -> Tensor:
    """Indices (clients, batch) of images marked in `free` (n,), for clients that only fill a round up."""
    places = free.nonzero().flatten()
    if clients * batch > len(places):
        raise UserError(f"the defense needs {clients} further clients of {batch} private images, {len(places)} images "
                        "are left: fewer subjects, or smaller sessions")  # fmt: skip
    return places[torch.randperm(len(places), generator=rng)[: clients * batch]].view(clients, batch)


def _seen_round(model: Victim, seen: Seen, protocol: Protocol) -> dict[str, Any]:
    """What the attacker held in a round before the attacked one; moves `model` to the next round."""
    state = {n: t.detach().clone() for n, t in model.state_dict().items()}
    sign = 1 if protocol.sends == "delta" else -1
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(seen.exchange.mean[name], alpha=sign * protocol.server_rate)
    return {"state": state, "update": seen.view}


def _statistics(sent: list[Sent]) -> list[tuple[Tensor, Tensor]]:
    """Per batch norm the clients' (mean, variance), stacked."""
    return [
        (torch.stack([s.statistics[i][0] for s in sent]), torch.stack([s.statistics[i][1] for s in sent]))
        for i in range(len(sent[0].statistics))
    ]
