"""Federated training with several clients: the global model before an attack, and the price of a defense.

    for each round: every client draws a batch of its samples ── gradient ── H6 ──▶ payload
                    server: H7 mean, momentum, one step

Every client goes through `client.local_update`, the code of the attacked round. (One gradient for all clients
at once is not faster here: at 16 images a client the convolutions are compute-bound. Channels last they take two
thirds of the time, and held-out samples in parts that fit the cache less than half.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inversionbench.core.defense import Client, Defense
from inversionbench.core.exchange import Round
from inversionbench.core.protocol import Protocol
from inversionbench.core.records import pack
from inversionbench.core.seeds import stream
from inversionbench.federation.client import Update, batch_norms, local_update, upload
from inversionbench.federation.settings import Federation
from inversionbench.models.base import channels_last

if TYPE_CHECKING:
    from inversionbench.core.scenario import Progress
    from inversionbench.data.base import Dataset
    from inversionbench.federation.inputs import Inputs

DROP_AT, DROP = 0.6, 0.2  # the rate drops to a fifth after 60 % of the rounds
MEASUREMENTS = 30  # of the accuracy, equally far apart
PART = 64  # held-out samples at once


@dataclass
class Meter:
    """Sums over all clients and rounds: bytes to and from a client; rounds that clients refused, where they may."""

    up: float = 0.0
    down: float = 0.0
    sent: int = 0
    refused: float | None = None


def train(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    classes: int,
    federation: Federation,
    rounds: int,
    defense: Defense,
    rng: torch.Generator,
    defense_rng: torch.Generator,
    on_round: Callable[[int], None] | None = None,
    meter: Meter | None = None,
    owners: list[Defense] | None = None,
) -> float:
    """Train `model` in place; returns the mean bytes that a client sent per round.

    x: (n, ...), y: (n,) or (n, ...). `on_round(rounds done)` is called after every round. meter: adds up what it cost.
    owners: a list that receives the defense as each client runs it.
    """
    shares = split(y, federation, rng)
    draws = [_Draws(share, federation.batch, rng, defense.poisson) for share in shares]
    owners = [] if owners is None else owners
    owners += [defense.for_client(x[share], y[share], defense_rng) for share in shares]
    states: list[dict[str, object]] = [{} for _ in shares]
    velocity: Update = {}
    momentum = 0.0 if defense.client_momentum else federation.momentum
    meter = meter or Meter()
    before = meter.up
    expected = float(federation.batch) if defense.poisson else 0.0
    for t in range(rounds):
        batches = [draw.next() for draw in draws]
        trained = gradients(model, [x[b] for b in batches], [y[b] for b in batches], classes, owners, defense_rng,
                            expected)  # fmt: skip
        parameters = {n: p.detach() for n, p in model.named_parameters()}
        sent = [
            upload(model, *update, owners[i],
                   Client(t, rounds, i, len(shares), len(batches[i]), parameters, defense_rng, states[i]))
            for i, update in enumerate(trained)
        ]  # fmt: skip
        weights = [expected or float(len(b)) for b in batches]
        done = defense.exchange([s.payload for s in sent], weights, Round(t, defense_rng, [s.size for s in sent]))
        meter.up, meter.down = meter.up + sum(done.bytes_up), meter.down + sum(done.bytes_down)
        meter.sent += len(sent)
        if "refused" in sent[0].public:
            meter.refused = (meter.refused or 0.0) + sum(s.public["refused"] for s in sent)
        mean = done.mean
        rate = _rate(federation, t, rounds)
        with torch.no_grad():
            for name, p in model.named_parameters():
                velocity[name] = momentum * velocity[name] + mean[name] if name in velocity else mean[name].clone()
                p.sub_(velocity[name], alpha=rate)
        if on_round is not None:
            on_round(t + 1)
    return (meter.up - before) / max(1, rounds * len(shares))


def gradients(
    model: nn.Module, xs: list[Tensor], ys: list[Tensor], classes: int, owners: list[Defense], rng: torch.Generator,
    expected: float = 0.0,
) -> list[tuple[Update, Tensor, Tensor]]:
    """Each client's gradient of one step, with H2, H4 and H5, and the samples and labels after H2. Batch norms use and
    track batch statistics. owners: the defense as each client runs it.
    """
    norms = batch_norms(model)
    for norm in norms:
        norm.batch = norm.track = True
    out = [
        local_update(model, x, y, Protocol(batch_size=max(1, len(x))), own, classes, rng, expected)
        for x, y, own in zip(xs, ys, owners)
    ]
    for norm in norms:
        norm.batch = norm.track = False
    return out


def split(y: Tensor, federation: Federation, rng: torch.Generator) -> list[Tensor]:
    """Indices of each client's samples: even shares at random, or skewed over classes."""
    order = torch.randperm(len(y), generator=rng)
    if not federation.skew:
        return list(order.tensor_split(federation.clients))
    shares: list[list[Tensor]] = [[] for _ in range(federation.clients)]
    for c in y.unique():
        members = order[y[order] == c]
        gamma = torch._standard_gamma(torch.full((federation.clients,), federation.skew), generator=rng)
        ends = (gamma.cumsum(0) / gamma.sum() * len(members)).round().long()[:-1]
        for i, part in enumerate(members.tensor_split(ends)):
            shares[i].append(part)
    joined = [torch.cat(parts) for parts in shares]
    return [s if len(s) else order[:1] for s in joined]


class _Draws:
    """Batches of one client's samples, without replacement until all were used; with `poisson` every sample on its
    own, with the probability that makes `batch` the mean size."""

    def __init__(self, share: Tensor, batch: int, rng: torch.Generator, poisson: bool = False):
        self.share, self.batch, self.rng, self.poisson = share, min(batch, len(share)), rng, poisson
        self.left: Tensor = share[:0]

    def next(self) -> Tensor:
        if self.poisson:
            return self.share[torch.rand(len(self.share), generator=self.rng) < self.batch / len(self.share)]
        if len(self.left) < self.batch:
            self.left = self.share[torch.randperm(len(self.share), generator=self.rng)]
        taken, self.left = self.left[: self.batch], self.left[self.batch :]
        return taken


def _rate(federation: Federation, t: int, rounds: int) -> float:
    rise = min(1.0, (t + 1) / federation.warm_up) if federation.warm_up else 1.0
    return federation.rate * rise * (DROP if t >= DROP_AT * rounds else 1.0)


@torch.no_grad()
def hits(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Whether the model is right, bool (n,); batch norms with running statistics."""
    for norm in batch_norms(model):
        norm.mode("eval_public")
    return torch.cat([model(part).argmax(1) for part in x.split(PART)]) == y


def price(
    inputs: Inputs, defense: Defense, data: Dataset, seed: int, progress: Progress
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """What a defense costs: `utility_seeds` federations trained from scratch with it. Returns means over them, by
    name, and one trial for each (see `records`), by which the survey compares it with the undefended price: equal
    seeds share clients, initial weights and batches.

    accuracy: on held-out samples after the last round, where `Defense.personal` each sample at one of the clients;
    accuracy_early: after a quarter of the rounds; bytes_round, bytes_down_round: sent and received by one client per
    round; refused: share of honest rounds that a client refused, where it may; diverged: share of federations that
    ended with values that are not finite, or below twice chance (of two or three classes: below chance); chance:
    accuracy of always saying the most frequent class.
    """
    federation = inputs.federation
    if not federation.utility_rounds:
        return {}, []
    defense = inputs.prepared(defense, data, seed)
    sums: dict[str, float] = {}
    trials = []
    floor = (2 if data.classes > 3 else 1) / data.classes
    for s in progress(range(federation.utility_seeds), desc="utility"):
        curve, right, meter, finite = _federation(inputs, defense, data, seed, s)
        row = {
            "accuracy": curve[federation.utility_rounds],
            "accuracy_early": curve[min(curve, key=lambda t: abs(t - federation.utility_rounds / 4))],
            "bytes_round": meter.up / meter.sent,
            "bytes_down_round": meter.down / meter.sent,
            "diverged": float(not finite or curve[federation.utility_rounds] < floor),
            **({} if meter.refused is None else {"refused": meter.refused / meter.sent}),
        }
        sums = {k: sums.get(k, 0.0) + v / federation.utility_seeds for k, v in row.items()}
        trials.append({"seed": s, **pack(right), "curve": [[t, round(a, 4)] for t, a in curve.items()]})
    held = data.heldout.labels()
    return {**sums, "chance": held.bincount().max().item() / len(held)}, trials


def _federation(
    inputs: Inputs, defense: Defense, data: Dataset, seed: int, s: int
) -> tuple[dict[int, float], Tensor, Meter, bool]:
    """One federation from scratch: rounds -> accuracy on held-out samples, what it is right on in the end, (n,) bool,
    what it cost, and whether its weights are finite."""
    about = inputs.about(data)
    held, truth = inputs.samples(data.heldout, about)
    x, y = defense.training_set(*inputs.samples(data.private, about), stream(seed, "utility set", s))
    model = channels_last(inputs.ready(inputs.start(data, defense, seed + s)))
    curve: dict[int, float] = {}
    owners: list[Defense] = []
    meter, test = Meter(), stream(seed, "utility", "deployed", s)
    rounds, last = inputs.federation.utility_rounds, truth == truth

    def measure(t: int) -> None:
        nonlocal last
        if t % max(1, rounds // MEASUREMENTS) and t != rounds:
            return
        shown = held
        if defense.personal:  # the order of the held-out part takes turns over the classes: so does every share
            shown = torch.cat([own.deployed(part, test) for own, part in zip(owners, held.tensor_split(len(owners)))])
        last = hits(model, shown, truth)
        curve[t] = float(last.double().mean())

    rng, own_rng = stream(seed, "utility", s), stream(seed, "utility", "defense", s)
    train(model, x, y, inputs.classes(about), inputs.federation, rounds, defense, rng, own_rng, measure, meter, owners)
    return curve, last, meter, all(bool(p.isfinite().all()) for p in model.parameters())
