"""Attack accuracy: do independent evaluators recognise the attacked class in the reconstructions?

acc@k = 1/N sum_i 1[y_i among the k largest outputs of E(x_i)]: the main measure of class-level model
inversion (GMI, KED-DMI, VMI, PPA and others). The evaluator E is trained on the same private classes as the
target, has another architecture and seed, is at least as accurate (its own test accuracy caps the value), and
no attack or selection ever sees it. Scored by the target itself, adversarial noise reaches 100 %.

One evaluator is fooled too, and so are two: `agreement` is the share that two evaluators of other architectures, the
second trained with noise and blur, both get right, and texture reaches 100 % of it (docs/verifier.md). It stands beside
`identified`, whose judge learnt from other people. Restarts of one class are
not independent: the interval is Wilson's over classes. Top-5 says nothing for 10 classes or fewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inversionbench.core.errors import UserError
from inversionbench.core.quantity import Quantity
from inversionbench.metrics._aggregate import wilson
from inversionbench.metrics.base import Spec, Unavailable, check_features, check_labels

SPEC = Spec(
    "attack_accuracy",
    "attack accuracy",
    unit="%",
    digits=1,
    factor=100,
    direction="higher",
    range=(0.0, 1.0),
    kind="protocol",
)
FURTHER = (
    Quantity(
        "agreement",
        "both evaluators agree",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="share of reconstructions in which both evaluators see the attacked class",
    ),
    Quantity(
        "top1",
        "first evaluator",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="share of reconstructions in which the first evaluator sees the attacked class",
    ),
    Quantity(
        "top5",
        "first evaluator top 5",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="share of reconstructions for which the attacked class is among the first evaluator's five best",
    ),
    Quantity(
        "second",
        "second evaluator",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="share of reconstructions in which the second evaluator sees the attacked class",
    ),
    Quantity(
        "target_top1",
        "target's own opinion",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="share of reconstructions in which the attacked model itself sees the class; proves nothing alone",
    ),
)
VOID = 10  # classes: up to this number top-5 is half of them or more


@dataclass(frozen=True)
class AttackAccuracy:
    """Shares in [0, 1]. `low`, `high`: Wilson interval of `both` if there is a second evaluator, else of
    `top1`, over classes. `chance`: of top-1, 1 / classes of the model."""

    top1: float
    top5: float | Unavailable
    second: float | Unavailable
    both: float | Unavailable
    low: float
    high: float
    classes: int
    n: int
    chance: float


def attack_accuracy(logits: Any, target: Any, second: Any = None) -> AttackAccuracy:
    """Scores of reconstructions with attacked classes `target`.

    logits: float (n, classes), outputs of the first evaluator on the reconstructions. target: int (n,).
    second: float (n, classes), outputs of the second evaluator. Higher means more leakage; chance is
    1 / classes. Raises `UserError` for other shapes or classes out of range.

    >>> score = attack_accuracy(torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]]), [2, 0])
    >>> score.top1, score.n, score.classes
    (0.5, 2, 2)
    """
    first = hits(logits, target)
    outputs = torch.as_tensor(logits).shape[1]
    labels = torch.as_tensor(target)
    other = None if second is None else hits(second, target)
    both = None if other is None else first & other
    none = Unavailable("needs a second evaluator")
    low, high = interval_over_classes(first if both is None else both, labels)
    return AttackAccuracy(
        top1=_share(first),
        top5=_share(hits(logits, target, 5))
        if outputs > VOID
        else Unavailable(f"top-5 says nothing with {VOID} classes or fewer"),
        second=none if other is None else _share(other),
        both=none if both is None else _share(both),
        low=low,
        high=high,
        classes=len(labels.unique()),
        n=len(labels),
        chance=1 / outputs,
    )


def hits(logits: Any, target: Any, k: int = 1) -> Tensor:
    """Whether the class of each is among the k largest outputs: bool (n,).

    Ties count as misses as far as they matter: a constant output recognises nothing.

    >>> hits(torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]]), [2, 0], k=2)
    tensor([True, True])
    """
    scores = check_features(logits, "attack_accuracy", "logits")
    labels = check_labels(target, len(scores), "attack_accuracy", "target").to(scores.device)
    classes = scores.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(
            f"attack_accuracy: target must lie in 0..{classes - 1}, got {int(labels.min())}..{int(labels.max())}"
        )
    if not 1 <= k <= classes:
        raise UserError(f"attack_accuracy: k must lie in 1..{classes}, got {k}")
    own = scores.gather(1, labels[:, None])
    return (scores >= own).sum(dim=1) <= k


def agreement(logits: Any, second: Any, target: Any, k: int = 1) -> Tensor:
    """Whether both evaluators recognise the class: bool (n,).

    >>> agreement(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]), [0, 1])
    tensor([ True, False])
    """
    return hits(logits, target, k) & hits(second, target, k)


def interval_over_classes(hit: Tensor, target: Any) -> tuple[float, float]:
    """Wilson interval of the mean accuracy per class, with classes as the independent units."""
    labels = check_labels(target, len(hit), "attack_accuracy", "target").to(hit.device)
    _, place = labels.unique(return_inverse=True)
    counts = torch.bincount(place)
    per_class = torch.bincount(place, weights=hit.double()) / counts
    return wilson(min(float(per_class.sum()), len(counts)), len(counts))


def _share(hit: Tensor) -> float:
    return float(hit.double().mean())
