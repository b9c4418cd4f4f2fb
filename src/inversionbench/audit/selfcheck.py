"""Does the attacker's simulation of the client give the client's update, and if not, which single change makes it so?

The update is computed again from the true batch as the protocol says it was made. Where it differs, everything that
people get wrong is tried, one change at a time. An attack on an update that it cannot even compute from the truth
would find nothing, and its low number would say nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.protocol import Protocol, read_protocol
from inversionbench.models.federated import BN_MODES
from inversionbench.models.own import PREFIX, Inputs, OwnVictim

PRECISION = 1e-4  # relative error of two float32 computations of one update, in different order
ROUNDING = 2.0**-24  # of a float32 weight: a difference of weights keeps no more
PLAIN = Inputs()
NORMALISATIONS = {
    "pixels in [0, 1] as they are": PLAIN,
    "mean 0.5, std 0.5 (values in [-1, 1])": Inputs((0.5,), (0.5,)),
    "pixels from 0 to 255": Inputs((0.0,), (1 / 255,)),
    "ImageNet's mean and std": Inputs((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10's mean and std": Inputs((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
    "CIFAR-10's mean and std (0.2023, ...)": Inputs((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201)),
    "MNIST's mean and std": Inputs((0.1307,), (0.3081,)),
}
ORDERED = 4  # batches up to this size: every order of the samples is tried


@dataclass(frozen=True)
class Claim:
    """How an update was made. reduction: of the loss over a step's samples. sign: -1 where the update points the other
    way. order: of the samples, None as they are given."""

    protocol: Protocol
    inputs: Inputs = PLAIN
    reduction: str = "mean"
    sign: float = 1.0
    order: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Checked:
    """error: |simulated - observed| / |observed|, at most `allowed` where they match. changed: the single change that
    made it match, in words, or "". claim: with that change. hints: what else was seen."""

    error: float
    allowed: float
    claim: Claim
    changed: str = ""
    hints: list[str] = field(default_factory=list)

    @property
    def matches(self) -> bool:
        return self.error <= self.allowed

    @property
    def said(self) -> str:
        if not self.matches:
            return (
                "the update is not the one that this batch, network and protocol give: relative error "
                f"{self.error:.2g}, {self.allowed:.1g} would be rounding; no single change makes it match"
            )
        how = f"matches once {self.changed}" if self.changed else "matches as declared"
        return f"{how}: relative error {self.error:.1g} of {self.allowed:.1g} that rounding allows"


def named(update: Mapping[str, Tensor], net: OwnVictim) -> tuple[dict[str, Tensor], list[str]]:
    """The update with the names of `net`, float32, and the names of the parameters that it lacks.

    A leading `module.` of data-parallel training is taken away, and what a state dict holds beside parameters (running
    statistics) is passed over. Raises `UserError` for unknown names, other shapes and
    values that are not finite.
    """
    shapes = {n.removeprefix(PREFIX): p.shape for n, p in net.named_parameters()}
    found = {}
    for name, value in update.items():
        if name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked"):
            continue
        own = name if name in shapes else name.removeprefix("module.")
        if own not in shapes:
            raise UserError(f"the update has '{name}', the network does not: {suggest(own, shapes)}")
        if value.shape != shapes[own]:
            raise UserError(f"the update's {name} has shape {tuple(value.shape)}, the network's {tuple(shapes[own])}")
        if not value.isfinite().all():
            raise UserError(f"the update's {name} holds values that are not finite")
        found[PREFIX + own] = value.float()
    if not found:
        raise UserError("the update is empty")
    return found, [name for name in shapes if PREFIX + name not in found]


def check(net: OwnVictim, update: Mapping[str, Tensor], x: Tensor, y: Tensor, claim: Claim) -> Checked:
    """Compare the update (with the names of `net`) with what the batch x (n, c, h, w) in [0, 1], y (n,) gives.

    Names that the update lacks are left out. Leaves `net` in the mode that matches.
    """
    seen = torch.cat([t.flatten() for t in update.values()]).double()
    if not seen.any():
        raise UserError("the update is zero everywhere")
    allowed = PRECISION
    if claim.protocol.sends == "delta":
        weights = torch.cat([net.get_parameter(n).detach().flatten() for n in update]).double()
        allowed += 8 * ROUNDING * float(weights.norm() / seen.norm())

    def error(tried: Claim) -> float:
        made = simulate(net, list(update), x, y, tried)
        return float((made - seen).norm() / seen.norm())

    first = error(claim)
    if first <= allowed:
        return Checked(first, allowed, claim)
    for changed, tried in changes(net, list(update), seen, x, y, claim):
        if (now := error(tried)) <= allowed:
            return Checked(now, allowed, tried, changed)
    return Checked(first, allowed, claim, hints=_hints(net, update, claim))


def simulate(net: OwnVictim, names: list[str], x: Tensor, y: Tensor, claim: Claim) -> Tensor:
    """The update as the claim says it was made, flat, double, of the parameters `names`."""
    p = claim.protocol
    net.bn_mode(p.bn)
    net.body.mean.data = torch.tensor(claim.inputs.mean).view(1, -1, 1, 1)
    net.body.std.data = torch.tensor(claim.inputs.std).view(1, -1, 1, 1)
    if claim.order is not None:
        x, y = x[list(claim.order)], y[list(claim.order)]
    weights = dict(net.named_parameters())
    start = {n: w.detach().clone() for n, w in weights.items()}
    try:
        for i, j in p.steps:
            loss = F.cross_entropy(net(x[i:j]), y[i:j], reduction=claim.reduction)
            parts = dict(zip(weights, torch.autograd.grad(loss, list(weights.values()), allow_unused=True)))
            made = {n: torch.zeros_like(weights[n]) if g is None else g for n, g in parts.items()}
            if p.sends == "delta":
                with torch.no_grad():
                    for n, w in weights.items():
                        w.sub_(made[n], alpha=p.local_rate)
        if p.sends == "delta":
            made = {n: w.detach() - start[n] for n, w in weights.items()}
    finally:
        with torch.no_grad():
            for n, w in weights.items():
                w.copy_(start[n])
    return claim.sign * torch.cat([made[n].flatten() for n in names]).double()


def changes(
    net: OwnVictim, names: list[str], seen: Tensor, x: Tensor, y: Tensor, claim: Claim
) -> Iterator[tuple[str, Claim]]:
    """Every single change, in words and as a claim; the likeliest first."""
    p, batch = claim.protocol, len(x)
    if net.batch_norms():
        for mode in BN_MODES[:2]:
            if mode != p.bn:
                train = "the statistics of the batch (train mode)"
                used = train if mode == "train_private" else "their running statistics (eval mode)"
                yield (
                    f"batch norms use {used}, bn: {mode}",
                    replace(claim, protocol=read_protocol({**p.plain, "bn": mode}, "")),
                )
    yield "the sign is turned: the update points the other way", replace(claim, sign=-claim.sign)
    other = "sum" if claim.reduction == "mean" else "mean"
    yield (
        f"the loss of a step is the {other} over its samples, not the {claim.reduction}",
        replace(claim, reduction=other),
    )
    yield from _kinds(net, names, seen, x, y, claim)
    for label, inputs in NORMALISATIONS.items():
        if inputs != claim.inputs and len(inputs.mean) in (1, x.shape[1]):
            yield f"inputs are normalised otherwise: {label}", replace(claim, inputs=inputs)
    if p.sends == "delta":
        yield from _steps(claim, batch)
    if batch > 1 and len(p.steps) > 1:
        orders = permutations(range(batch)) if batch <= ORDERED else [tuple(reversed(range(batch)))]
        for order in orders:
            told = ", ".join(str(i + 1) for i in order)
            yield f"the samples are taken in the order {told}", replace(claim, order=order)


def _kinds(
    net: OwnVictim, names: list[str], seen: Tensor, x: Tensor, y: Tensor, claim: Claim
) -> Iterator[tuple[str, Claim]]:
    """A gradient instead of a difference of weights, or the other way round; another learning rate."""
    p = claim.protocol
    if p.sends == "delta":
        yield "the update is the gradient of one step, not a difference of weights", replace(
            claim, protocol=replace(p, sends="gradient", epochs=1, local_batch=0))  # fmt: skip
        rate = p.local_rate
        for _ in range(8):
            made = simulate(net, names, x, y, replace(claim, protocol=replace(p, local_rate=rate)))
            ratio = float(made @ seen / (made @ made).clamp_min(1e-300))
            if not 0 < ratio < float("inf"):
                return
            rate *= ratio
        tidy = float(f"{rate:.3g}")
        for value in dict.fromkeys((tidy, rate)):
            yield f"the learning rate of the client is {value:g}, not {p.local_rate:g}", replace(
                claim, protocol=replace(p, local_rate=value))  # fmt: skip
        return
    made = simulate(net, names, x, y, claim)
    ratio = float(made @ seen / (made @ made).clamp_min(1e-300))
    if ratio < 0:
        rate = float(f"{-ratio:.3g}")
        for value in dict.fromkeys((rate, -ratio)):
            yield (
                f"the update is the difference of weights after a step at learning rate {value:g}, no gradient",
                (replace(claim, protocol=replace(p, sends="delta", local_rate=value))),
            )


def _steps(claim: Claim, batch: int) -> Iterator[tuple[str, Claim]]:
    """Other numbers of local steps."""
    p = claim.protocol
    sizes = sorted({size for size in (1, 2, 4, 8, 16, 32, 64) if size < batch})
    for size in (0, *sizes):
        if size != p.local_batch:
            n = len(replace(p, local_batch=size).steps)
            yield f"the client takes {n} local steps of {size or batch} samples", replace(
                claim, protocol=replace(p, local_batch=size))  # fmt: skip
    for epochs in range(1, 11):
        if epochs != p.epochs:
            other = replace(claim, protocol=replace(p, epochs=epochs))
            yield f"the client trains {epochs} epochs, not {p.epochs}", other


def _hints(net: OwnVictim, update: Mapping[str, Tensor], claim: Claim) -> list[str]:
    """What may be wrong and cannot be computed again."""
    out = []
    if net.dropout:
        dead = [n.removeprefix(PREFIX) for n, t in update.items() if t.ndim == 2 and _dead(t)]
        where = f"; whole columns of {', '.join(dead)} are zero, as dropout leaves them" if dead else ""
        out.append(
            f"the network has dropout ({', '.join(net.dropout)}), which draws other masks each time{where}: "
            "record the update in eval mode, or with its probability 0"
        )
    out.append(
        "more than one thing may differ; or the weights are not those that the client started from, the labels or "
        "images are others, the optimiser has momentum or weight decay, or a defense changed the update"
    )
    return out


def _dead(gradient: Tensor) -> bool:
    columns = (gradient == 0).all(0)
    return 0 < int(columns.sum()) < len(columns)
