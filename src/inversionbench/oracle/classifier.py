"""Oracles of a classifier: white-box with and without BN statistics, logits, scores, labels.

Black-box answers pass through the defense's release; white-box access gets the raw weights. One query is one
input evaluated once. The white-box module counts its forward passes, one per input, as `module` in the
ledger; each stands for a forward and a backward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inversionbench.core.defense import NONE, Defense
from inversionbench.models.base import Trace, trace
from inversionbench.oracle.base import InputSpec, Ledger, Oracle

LOG_FLOOR = 1e-6  # a released score of 0 has this logarithm, where a level answers in logits
CHUNK = 256  # inputs evaluated at once, few enough for the cache; answers do not depend on it


class WhiteBox(nn.Module):
    """A frozen copy of the target that counts its passes; `phase` is where they are booked. `charge(inputs, phase)`
    books passes that are made by other means; `ledger` shows what was booked."""

    def __init__(self, model: nn.Module, ledger: Ledger, phase: str = "search"):
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.ledger = ledger.shown()
        self.charge = lambda inputs, phase: ledger.charge("module", inputs, phase)
        self.phase = phase

    def trace(self, x: Tensor) -> Trace:
        self.charge(len(x), self.phase)
        return trace(self.model, x)

    def forward(self, x: Tensor) -> Tensor:
        return self.trace(x).logits


class Affine(nn.Module):
    """What batch normalisation does in evaluation mode, without saying by which mean and variance."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm):
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        shift = -norm.running_mean * scale
        if norm.affine:
            scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("shift", shift.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        form = (1, -1, *[1] * (x.dim() - 2))
        return x * self.scale.view(form) + self.shift.view(form)


def fold_norms(model: nn.Module) -> nn.Module:
    """A copy whose batch normalisation layers are `Affine`: same answers, no statistics to read."""
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.running_mean is not None:
                setattr(module, name, Affine(child))
    return model


def classifier_oracle(
    model: nn.Module,
    level: str,
    spec: InputSpec,
    classes: int,
    defense: Defense = NONE,
    rng: torch.Generator | None = None,
    budget: int | None = None,
    top_k: int | None = None,
    decimals: int | None = None,
    siblings: Sequence[nn.Module] = (),
) -> Oracle:
    """The oracle of a trained classifier for one level.

    spec: shape and range of an input. rng: for releases that draw. budget: largest number of queries.
    top_k, decimals: what the service itself gives away of its scores: all but the k highest become 0, the
    rest is rounded; the labels are not touched by it. siblings: further models of the same classes, which
    white-box levels hand out as `module(1)`, `module(2)`, ...; `module()` is the target.
    """
    ledger = Ledger(budget)
    if level in ("WB", "WB-noBN"):
        shown = [fold_norms(net) if level == "WB-noBN" else net for net in (model, *siblings)]
        calls: dict[str, Callable[..., Any]] = {"module": lambda which=0: WhiteBox(shown[which], ledger)}
        return Oracle(level, calls, ledger, spec, classes)
    answers = Answers(model, spec, ledger, defense, rng, top_k, decimals)
    call = {"BB-L": answers.logits, "BB-S": answers.scores, "LO": answers.labels}[level]

    def ask(x: Tensor, phase: str = "search") -> Tensor:
        return call(x, phase)

    name = {"BB-L": "logits", "BB-S": "scores", "LO": "labels"}[level]
    return Oracle(level, {name: ask}, ledger, spec, classes)


class Answers:
    """Charges, evaluates, releases. Lives only in the closures of an oracle."""

    def __init__(
        self, model: nn.Module, spec: InputSpec, ledger: Ledger, defense: Defense,
        rng: torch.Generator | None, top_k: int | None, decimals: int | None,
    ):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.spec, self.ledger, self.defense = spec, ledger, defense
        self.rng = rng if rng is not None else torch.Generator().manual_seed(0)
        self.top_k, self.decimals = top_k, decimals

    def _raw(self, x: Tensor, call: str, phase: str) -> Tensor:
        self.spec.check(x)
        self.ledger.charge(call, len(x), phase)
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            out = torch.cat([self.model(part.to(device)) for part in x.split(CHUNK)])
        return out.clone().to(x.device)

    def _released(self, logits: Tensor) -> Tensor:
        return self.defense.release(logits, self.rng).detach()

    def logits(self, x: Tensor, phase: str) -> Tensor:
        raw = self._raw(x, "logits", phase)
        if "release" not in self.defense.hooks:
            return raw
        return self._released(raw).clamp_min(LOG_FLOOR).log()

    def scores(self, x: Tensor, phase: str) -> Tensor:
        out = self._released(self._raw(x, "scores", phase))
        if self.top_k is not None:
            keep = out.topk(self.top_k, dim=1)
            out = torch.zeros_like(out).scatter(1, keep.indices, keep.values)
        return out.round(decimals=self.decimals) if self.decimals is not None else out

    def labels(self, x: Tensor, phase: str) -> Tensor:
        raw = self._raw(x, "labels", phase)
        if "release" not in self.defense.hooks or self.defense.keeps_labels:
            return raw.argmax(1)
        return self._released(raw).argmax(1)
