"""The audit of one update: what does this client's gradient, or difference of weights, give away of its batch?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inversionbench.audit.selfcheck import Checked, Claim, check, named, simulate
from inversionbench.audit.verdict import Row, Verdict
from inversionbench.core import registry
from inversionbench.core.attack import Knowledge, Reconstruction
from inversionbench.core.errors import UserError, suggest
from inversionbench.core.protocol import Protocol
from inversionbench.core.seeds import stream
from inversionbench.federation.oracle import update_oracle
from inversionbench.federation.settings import Batches
from inversionbench.gradients.analytic import candidates
from inversionbench.metrics._pairwise import pairwise
from inversionbench.models.own import PREFIX, Inputs, OwnVictim

METRICS = ("psnr", "ssim", "mse")
CLEAR = 25.0  # dB of every image: nothing is left to be shown by a longer search
# attack, parameters and how many times the work of the first, in order of cost
SETS: Mapping[str, tuple[tuple[str, Mapping[str, Any]], ...]] = {
    "fast": (("inverting_gradients", {"steps": 300}),),
    "thorough": (
        ("inverting_gradients", {"steps": 300}),
        ("inverting_gradients", {"steps": 1000, "restarts": 4}),
        ("inverting_gradients", {"steps": 1000, "restarts": 2, "tv": 1e-4}),
    ),
}


@dataclass(frozen=True)
class Update:
    """One client's update and all that is needed to judge what it gives away.

    update: parameter name -> tensor. x: the true batch, (batch, c, h, w) in [0, 1]; y: its labels (batch,). public:
    pictures that the attacker may have, (n, c, h, w) in [0, 1], or None. protocol: how the update was made; its
    `batch_size` is that of x.
    """

    net: OwnVictim
    update: Mapping[str, Tensor]
    missing: list[str]
    x: Tensor
    y: Tensor
    public: Tensor | None
    claim: Claim
    seed: int = 0

    @classmethod
    def of(
        cls,
        model: nn.Module,
        update: Mapping[str, Tensor],
        x: Tensor,
        y: Tensor,
        protocol: Protocol,
        inputs: Inputs,
        public: Tensor | None,
        seed: int = 0,
    ) -> Update:
        """Checks that all of it fits together; `UserError` says what does not."""
        if x.ndim != 4 or not x.is_floating_point() or not x.isfinite().all() or x.min() < 0 or x.max() > 1:
            raise UserError(f"the true batch must be numbers in [0, 1] of shape (batch, c, h, w), got {tuple(x.shape)}")
        net = OwnVictim(model, tuple(x.shape[1:]), inputs)  # type: ignore[arg-type]
        if y.shape != x.shape[:1] or y.is_floating_point():
            raise UserError(f"labels must be whole numbers of shape ({len(x)},), got {tuple(y.shape)}")
        if int(y.min()) < 0 or int(y.max()) >= net.classes:
            raise UserError(f"labels must lie in 0 to {net.classes - 1}, got {int(y.min())} to {int(y.max())}")
        if public is not None and public.shape[1:] != x.shape[1:]:
            raise UserError(f"public pictures have shape {tuple(public.shape[1:])}, the batch {tuple(x.shape[1:])}")
        if protocol.batch_size not in (1, len(x)):
            raise UserError(f"protocol: batch_size {protocol.batch_size}, but the true batch has {len(x)} samples")
        given, missing = named(update, net)
        claim = Claim(replace(protocol, batch_size=len(x)), inputs)
        return cls(net, given, missing, x.float(), y.long(), public, claim, seed)

    def run(self, attacks: str = "fast", progress: Callable[[str], None] = lambda said: None) -> Verdict:
        """Self-check, then attacks, the cheapest first, then controls. Stops when every image is clear.

        attacks: "fast" or "thorough". An update that cannot be computed from its own batch is not attacked.
        """
        if attacks not in SETS:
            raise UserError(f"attacks: '{attacks}': {suggest(attacks, SETS)}")
        progress("self-check")
        checked = check(self.net, self.update, self.x, self.y, self.claim)
        verdict = Verdict(self.about(attacks), checked.said, checked.hints, matches=checked.matches)
        if self.missing:
            verdict.hints.append(f"the update lacks {', '.join(self.missing)}: everything is judged on the rest")
        if not checked.matches:
            return verdict
        verdict.pictures["original"] = self.x
        round_ = _Round(self, checked)
        verdict.rows += round_.controls()
        for name, attack in round_.attacks(SETS[attacks]):
            progress(name)
            row = attack()
            if row is None:
                continue
            verdict.rows.append(row)
            if min(row.values["psnr"]) > CLEAR:
                verdict.stopped = f"every image is above {CLEAR:.0f} dB: longer attacks were not run"
                break
        progress("control: the same search on another client's update")
        verdict.rows.append(round_.wrong(SETS[attacks][0][1]))
        verdict.pictures |= {row.name: row.images for row in verdict.rows if row.shown}
        return verdict

    def about(self, attacks: str) -> dict[str, Any]:
        p = self.claim.protocol
        told = ("sends", "batch_size", "bn", "epochs", "local_batch", "local_rate")
        plain = {name: p.plain[name] for name in told[: 3 if p.sends == "gradient" else None]}
        size = sum(t.numel() for t in self.net.parameters())
        return {
            "network": f"{type(self.net.body.net).__name__}, {size:,} parameters, {self.net.classes} classes",
            "images": "x".join(map(str, self.x.shape[1:])), "protocol": plain, "attacks": attacks, "seed": self.seed,
            "public images": 0 if self.public is None else len(self.public),
        }  # fmt: skip


class _Round:
    """The oracle's view of the checked update, and the attacks on it."""

    def __init__(self, audit: Update, checked: Checked):
        self.audit, self.net = audit, audit.net
        self.claim = checked.claim
        self.protocol = _in_means(checked.claim)
        # with local steps in another order, labels meet their images in that order
        order = checked.claim.order
        self.y = audit.y if order is None else audit.y[list(order)]
        names = list(dict(self.net.named_parameters()))
        zeros = {n: torch.zeros_like(p) for n, p in self.net.named_parameters()}
        simulate(self.net, names, audit.x, audit.y, checked.claim)  # leaves the network as the claim has it
        self.update = {n: checked.claim.sign * audit.update.get(n, zeros[n]) for n in names}
        if checked.claim.reduction == "sum" and self.protocol.sends == "gradient":
            self.update = {n: t / len(audit.x) for n, t in self.update.items()}
        self.decoy = self._decoy(names)

    def _decoy(self, names: list[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Other images under the labels of the batch, and the update that they give."""
        x, rng = self.audit.x, stream(self.audit.seed, "decoy")
        if self.audit.public is None:
            images = torch.rand(x.shape, generator=rng)
        else:
            images = self.audit.public[torch.randint(len(self.audit.public), (len(x),), generator=rng)]
        plain = replace(self.claim, protocol=self.protocol, sign=1.0, reduction="mean")
        flat, out, at = simulate(self.net, names, images, self.audit.y, plain).float(), {}, 0
        for n, p in self.net.named_parameters():
            out[n] = flat[at : at + p.numel()].view(p.shape)
            at += p.numel()
        return images, out

    def attacks(self, chosen: tuple[tuple[str, Mapping[str, Any]], ...]) -> list[tuple[str, Callable[[], Row | None]]]:
        found: list[tuple[str, Callable[[], Row | None]]] = [("read off the first layer", self.read_off)]
        return found + [(_title(name, given), lambda name=name, given=given: self.search(name, given))
                        for name, given in chosen]  # fmt: skip

    def read_off(self) -> Row | None:
        """The input of a first linear layer on the pixels, in closed form (see `gradients.analytic`)."""
        first, second = list(self.update)[:2]
        if not {first, second} <= self.audit.update.keys():
            return None
        dw, db = self.update[first], self.update[second]
        x, inputs = self.audit.x, self.claim.inputs
        if dw.ndim != 2 or dw.shape[1] != x[0].numel() or db.shape != dw.shape[:1] or len(self.protocol.steps) > 1:
            return None
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (inputs.mean, inputs.std))
        box = (float((0 - mean).div(std).min()), float((1 - mean).div(std).max()))
        started = time.process_time()
        found, _ = candidates(dw, db, len(x), box, 1e-6)
        images = (found.float().view_as(x) * std + mean).clamp(0, 1)
        return self._row("read off the first layer", images, time.process_time() - started, 0)

    def search(self, name: str, given: Mapping[str, Any], view: str = "client") -> Row:
        """One attack of the table on this update."""
        left_out = [PREFIX + n for n in self.audit.missing]  # compared by nobody: they were not sent
        method = registry.get("attack", name)(**{**given, **({"match": "drop_layer"} if left_out else {})})
        released = {"updates": {"client": _stacked(self.update), "decoy": _stacked(self.decoy[1])}}
        batches = Batches((replace(self.protocol, labels="known"),), 1)
        oracle = update_oracle(self.net, released, batches, self.net.classes)
        rng = stream(self.audit.seed, "attack", name)
        started = time.process_time()
        answer: Reconstruction = method.run(oracle, Knowledge(labels=self.y[None], defense={"layers": left_out}), rng)
        title = _title(name, given) if view == "client" else view
        passes = answer.cost.get("gradient_evaluations", 0)
        return self._row(title, answer.data[0], time.process_time() - started, passes, control=view != "client")

    def wrong(self, given: Mapping[str, Any]) -> Row:
        whose = "the update of noise" if self.audit.public is None else "another client's update"
        return self.search("wrong_gradient", given, whose)

    def controls(self) -> list[Row]:
        """Images that know nothing of the update."""
        x, public = self.audit.x, self.audit.public
        rng = stream(self.audit.seed, "controls")
        out = [self._row("uniform noise", torch.rand(x.shape, generator=rng), 0, 0, control=True)]
        mean = x.new_full(x.shape, 0.5) if public is None else public.mean(0, keepdim=True).expand_as(x)
        out.append(self._row("grey" if public is None else "mean public image", mean, 0, 0, control=True))
        if public is not None:
            drawn = public[torch.randint(len(public), (len(x),), generator=rng)]
            out.append(self._row("random public image", drawn, 0, 0, control=True))
        return out

    def _row(self, name: str, images: Tensor, seconds: float, passes: int, control: bool = False) -> Row:
        found = pairwise(self.audit.x, images, METRICS, match=len(images) > 1)
        values = {m: [float(v) for v in np.asarray(found.values[m])] for m in METRICS if m in found.values}
        order = torch.arange(len(images)) if found.permutation is None else torch.from_numpy(found.permutation)
        return Row(name, control, values, images[order].clamp(0, 1), seconds, passes)


def _in_means(claim: Claim) -> Protocol:
    """The protocol as one of mean losses: steps down a sum are steps down the mean at a rate that many times higher."""
    p = claim.protocol
    if claim.reduction == "mean" or p.sends == "gradient":
        return p
    return replace(p, local_rate=p.local_rate * (p.local_batch or p.batch_size))


def _stacked(update: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n: t[None] for n, t in update.items()}


def _title(name: str, given: Mapping[str, Any]) -> str:
    return f"{name.replace('_', ' ')} ({', '.join(f'{k} {v:g}' for k, v in given.items())})"
