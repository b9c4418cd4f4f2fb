"""The attacked round: from a scenario, a defense and data to what the server holds and what it must not know.

The attacked clients take part for the first time, so a defense with memory (residuals, momentum) enters with
an empty one: what they send depends on this one batch alone, which is the worst case. Where the protocol shows
several rounds, the first of them is their first. Decoy clients send in
the same round: images of other classes under the labels of the attacked batch of the same place, so that
only the images differ and not the labels.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inversionbench.defenses.base import Client, Defense
from inversionbench.errors import UserError
from inversionbench.models.federated import Victim, build
from inversionbench.tracks.base import Progress, Scenario, Target
from inversionbench.training._federation import read_federation
from inversionbench.training._protocol import Protocol, read_protocol
from inversionbench.training.client import Sent, observe, send

if TYPE_CHECKING:
    from inversionbench.data.base import Dataset


TRUTH = 1e-4  # cosine distance that float32 leaves at the true data; a wrong simulation gives 1e-2 and more


def stream(seed: int, *names: object) -> torch.Generator:
    """A generator of its own for each purpose, so that a defense's draws move nobody else's."""
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def make_target(
    scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress
) -> Target:
    """Train the global model as the scenario says, let the clients send, and check the attacker's simulation."""
    from inversionbench.training.self_check import self_check

    protocol = read_protocol(scenario.protocol, f"scenarios.{scenario.name}.protocol")
    federation = read_federation(scenario.training, f"scenarios.{scenario.name}.training")
    defense = defense.prepare(
        data, lambda rng: build(scenario.model, data.shape, data.classes, rng), stream(seed, "defense", "prepare")
    )
    x, y = defense.training_set(data.private.images(), data.private.labels(), stream(seed, "defense", "set"))
    model = new_model(scenario, defense, data.shape, data.classes, seed)
    index = choose(y, scenario.subjects, protocol, stream(seed, "subjects"))
    if federation.rounds:
        from inversionbench.training.federated_rounds import train

        train(model, x, y, data.classes, federation, federation.rounds, defense, stream(seed, "rounds"),
              stream(seed, "rounds", "defense"))  # fmt: skip
    decoy = choose_decoys(y, index, stream(seed, "decoys"))
    free = torch.ones(len(y), dtype=torch.bool)
    free[index.flatten()] = free[decoy.flatten()] = False
    owners = {
        name: [
            defense.for_client(torch.cat([x[row], x[free]]), torch.cat([y[given], y[free]]),
                               stream(seed, "defense", name, "local", i))
            for i, (row, given) in enumerate(zip(part, index))
        ]
        for name, part in (("client", index), ("decoy", decoy))
    }  # fmt: skip
    memory: list[dict[str, Any]] = [{} for _ in index]
    others: list[dict[str, Any]] = [{} for _ in decoy]
    earlier = []
    for back in reversed(range(1, protocol.rounds)):
        before = _clients(model, x[index], y[index], protocol, federation.rounds, owners["client"], data.classes, seed,
                          f"client -{back}", memory)  # fmt: skip
        earlier.append(_seen_round(model, before, protocol, defense))
    round = federation.rounds + len(earlier)
    sent = [
        _clients(model, x[part], y[index], protocol, round, owners[name], data.classes, seed, name, own)
        for name, part, own in (("client", index, memory), ("decoy", decoy, others))
    ]
    views = [observe(defense, s, [1.0] * len(s))[1] for s in sent]
    checks = self_check(model, protocol, sent[0], views[0], y[index])
    if not defense.hooks and max(checks["match_at_truth_undefended"]) > TRUTH:
        raise RuntimeError(f"the client is simulated wrongly: matching loss at the true data {checks}")
    public = defense.public_knowledge() | sent[0][0].public
    released = {
        "state": {n: t.detach().clone() for n, t in model.state_dict().items()},
        "shape": list(data.shape),
        "classes": data.classes,
        "updates": {"client": views[0], "decoy": views[1]},
        "statistics": _statistics(sent[0]) if protocol.bn == "train_shared" else None,
        "defense": public,
        "earlier": earlier,
    }
    if protocol.labels == "known":
        released["labels"] = y[index]
    truth = {"index": index, "labels": y[index], "decoy_index": decoy, "checks": checks}
    if "train_transform" in defense.hooks:
        truth["sent_images"] = torch.stack([s.x for s in sent[0]])
    utility = {
        "bytes_up": float(sum(s.size for s in sent[0]) / len(sent[0])),
        "bytes_dense": float(4 * sum(p.numel() for p in model.parameters())),
        "cos_sent_true": sum(checks["cos_sent_true"]) / len(checks["cos_sent_true"]),
        "match_at_truth": sum(checks["match_at_truth"]) / len(checks["match_at_truth"]),
        "match_at_truth_undefended": max(checks["match_at_truth_undefended"]),
    }
    utility |= {n: float(v) for n, v in sent[0][0].public.items() if isinstance(v, (int, float))}
    if federation.utility_rounds:
        from inversionbench.training.federated_rounds import utility as measure

        utility |= measure(scenario, defense, data, federation, seed, progress)
    return Target(released, truth, utility)


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
    """Indices (subjects, batch) of different private images.

    Raises `UserError` where the private set is too small or has too few classes for distinct labels.
    """
    batch = protocol.batch_size
    order = torch.randperm(len(y), generator=rng).tolist()
    if subjects * batch * 2 > len(y):
        raise UserError(f"{subjects} subjects and decoys of {batch} images need {2 * subjects * batch} private "
                        f"images, there are {len(y)}: fewer subjects or a smaller batch")  # fmt: skip
    if protocol.classes == "any":
        return torch.tensor(order[: subjects * batch]).view(subjects, batch)
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


def _clients(
    model: Victim, x: Tensor, y: Tensor, protocol: Protocol, round: int, owners: list[Defense], classes: int,
    seed: int, name: str, memory: list[dict[str, Any]],
) -> list[Sent]:
    """One round of clients with batches x (clients, batch, c, h, w), y (clients, batch), their own memories and the
    defense as each runs it. The local set of an attacked client is its batch and all images of no batch.
    """
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    return [
        send(model, x[i], y[i], protocol, owners[i],
             Client(round, round + 1, i, len(x), x.shape[1], parameters, stream(seed, "defense", name, i), memory[i]),
             classes)
        for i in range(len(x))
    ]  # fmt: skip


def _seen_round(model: Victim, sent: list[Sent], protocol: Protocol, defense: Defense) -> dict[str, Any]:
    """What the server held in a round before the attacked one; moves `model` to the next round."""
    state = {n: t.detach().clone() for n, t in model.state_dict().items()}
    mean, view = observe(defense, sent, [1.0] * len(sent))
    sign = 1 if protocol.sends == "delta" else -1
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(mean[name], alpha=sign * protocol.server_rate)
    return {"state": state, "update": view}


def _statistics(sent: list[Sent]) -> list[tuple[Tensor, Tensor]]:
    """Per batch norm the clients' (mean, variance), stacked."""
    return [
        (torch.stack([s.statistics[i][0] for s in sent]), torch.stack([s.statistics[i][1] for s in sent]))
        for i in range(len(sent[0].statistics))
    ]
