"""Oracles of a service that answered private inputs, whose answers the attacker observed.

observe(kind)   what was released for the victims: "scores" (n, classes), or a kind of explanation (n, maps, h, w)
scores(x)       what the service answers to inputs x, with the defense in it; one query each
explain(x, kind)  explanations of its answers to x, (n, maps, h, w); a query for each class explained    (AN-EX)
undefended(x)   what it answered before the defense was deployed                                          (AN-OLD)

maps: the channels of one map, for the predicted class, or for all classes one after the other, as the service gives
them. A defense of the scores leaves explanations alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inversionbench.core.defense import NONE, Defense
from inversionbench.core.errors import AccessDenied
from inversionbench.core.levels import LEVELS
from inversionbench.models.explain import explain
from inversionbench.oracle.base import InputSpec, Ledger, Oracle
from inversionbench.oracle.classifier import CHUNK, Answers


def explained(net: nn.Module, x: Tensor, kind: str, every: bool) -> Tensor:
    """Maps (n, maps, h, w) on the CPU, for the predicted class of x or, where `every`, for all classes."""
    out = []
    for part in x.to(next(net.parameters()).device).split(CHUNK):
        with torch.no_grad():
            z = net(part)
        classes = torch.arange(z.shape[1], device=z.device).expand_as(z) if every else z.argmax(1, keepdim=True)
        out.append(explain(net, part, kind, classes).flatten(1, 2).cpu())
    return torch.cat(out)


def answers_oracle(
    net: nn.Module, observed: Mapping[str, Tensor], level: str, spec: InputSpec, classes: int, defense: Defense,
    rng: torch.Generator, budget: int | None = None, every: bool = False,
) -> Oracle:
    """observed: of the victims, "logits" (n, classes), and the explanations that the service gives, by kind. every:
    it explains all classes. budget: most queries."""
    ledger = Ledger(budget)
    given, before = (Answers(net, spec, ledger, by, rng, None, None) for by in (defense, NONE))

    def offered(kind: str) -> None:
        if kind == "logits" or kind not in observed:
            names = ", ".join(name for name in observed if name != "logits") or "none"
            raise AccessDenied(f"explanations of kind '{kind}' are not given; the service gives {names}")

    def observe(kind: str = "scores", phase: str = "search") -> Tensor:
        if kind == "scores":
            return defense.release(observed["logits"], rng).detach()
        if "explain" not in LEVELS[level].calls:
            raise AccessDenied(f"level {level} observes scores, not '{kind}'")
        offered(kind)
        return observed[kind].clone()

    def maps(x: Tensor, phase: str = "train", kind: str = "gradient") -> Tensor:
        offered(kind)
        spec.check(x)
        ledger.charge("explain", len(x) * (classes if every else 1), phase)
        return explained(given.model, x, kind, every)

    def scores(x: Tensor, phase: str = "train") -> Tensor:
        return given.scores(x, phase)

    def undefended(x: Tensor, phase: str = "train") -> Tensor:
        return before.scores(x, phase)

    calls: dict[str, Callable[..., Any]] = {
        "observe": observe, "scores": scores, "explain": maps, "undefended": undefended,
    }  # fmt: skip
    return Oracle(level, {name: calls[name] for name in LEVELS[level].calls}, ledger, spec, classes)
