"""Attribute inference against the truth: members apart from non-members, with what is known without a model.

Every number is of one target and all its victims; the unit of an interval is therefore the target (the seed).
`gap_low`, `gap_high` among the facts are of this one target: 95 % over its records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inversionbench.metrics.attribute_inference import AttributeInference, attribute_inference
from inversionbench.metrics.base import Unavailable
from inversionbench.models.columns import Question
from inversionbench.models.imputers import impute, train_imputer
from inversionbench.tracks.base import Evaluation

if TYPE_CHECKING:
    from inversionbench.attacks.base import Reconstruction
    from inversionbench.data.base import Dataset

DRAWS = 2000
NEEDS_JUDGE = "needs an imputer: name one under the scenario's `judges`"


def train_judges(data: Dataset, question: Question, seed: int) -> dict[str, Any]:
    """The imputers that stand beside every attack: with and without the response, natural and balanced."""
    x, y = np.asarray(data.public.x), np.asarray(data.public.y)
    out: dict[str, Any] = {"sensitive": question.name, "classes": data.classes}
    for response in (True, False):
        for balanced in (True, False):
            model = train_imputer(question, x, y if response else None, data.classes, seed, balanced=balanced)
            out[_judge(response, balanced)] = model
    return out


def evaluate(
    reconstruction: Reconstruction, released: Mapping[str, Any], truth: Mapping[str, torch.Tensor],
    judges: Mapping[str, Any], seed: int,
) -> Evaluation:
    """All metrics of one reconstruction (data: int64 (n,), scores: (n, V) or None)."""
    value, member = truth["value"].numpy(), truth["member"].numpy()
    guess, question = reconstruction.data.numpy(), Question(**released["question"])
    scores = None if reconstruction.scores is None else reconstruction.scores.double().numpy()
    scores = None if scores is None else scores / scores.sum(1, keepdims=True)
    found = {
        name: attribute_inference(guess[rows], value[rows], scores=None if scores is None else scores[rows])
        for name, rows in (("members", member), ("nonmembers", ~member))
    }
    metrics: dict[str, float | Unavailable] = {"member_gap": found["members"].balanced - found["nonmembers"].balanced}
    for name, ending in (("members", ""), ("nonmembers", "_nonmembers")):
        metrics |= _metrics(found[name], ending)
    low, high = gap_interval(guess == value, value, member, seed)
    out = Evaluation({}, np.zeros(1, dtype=np.int64))
    details = _facts(found, guess, value, member, truth["flips"].numpy(), question)
    out.facts = {"gap_low": low, "gap_high": high, **details}
    mode = np.full(len(value), int(released["marginal"].argmax()))
    out.controls = {"mode": _control(mode, value, member)}
    if judges.get("sensitive") == question.name:
        out.controls |= _imputed(released, value, member, judges)
        metrics |= _advantage(found, out.controls["imputation"])
    else:
        metrics |= dict.fromkeys(("advantage", "advantage_nonmembers"), Unavailable(NEEDS_JUDGE))
    out.metrics = {name: np.array([v]) for name, v in metrics.items() if not isinstance(v, Unavailable)}
    out.unavailable = {name: v.reason for name, v in metrics.items() if isinstance(v, Unavailable)}
    return out


def gap_interval(right: np.ndarray, value: np.ndarray, member: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % interval of the member gap in balanced accuracy: bootstrap of the records within each true value
    and membership, which needs only the number of hits in each of these groups."""
    rng = np.random.default_rng(seed)
    balanced = []
    for rows in (member, ~member):
        recalls = []
        for v in np.unique(value[rows]):
            group = right[rows & (value == v)]
            recalls.append(rng.binomial(len(group), group.mean(), DRAWS) / len(group))
        balanced.append(np.mean(recalls, axis=0))
    low, high = np.quantile(balanced[0] - balanced[1], [0.025, 0.975])
    return float(low), float(high)


def _metrics(found: AttributeInference, ending: str) -> dict[str, float | Unavailable]:
    return {
        f"balanced_accuracy{ending}": found.balanced,
        f"accuracy{ending}": found.accuracy,
        f"f1{ending}": found.f1,
        f"auc{ending}": found.auroc,
    }


def _facts(
    found: Mapping[str, AttributeInference], guess: np.ndarray, value: np.ndarray, member: np.ndarray,
    flips: np.ndarray, question: Question,
) -> dict[str, Any]:
    """Recall per value; the share of records whose prediction depends on the sensitive value at all, and how
    well the attack does on those and on the others (balanced accuracy, None where there are none)."""
    out: dict[str, Any] = {}
    for name, rows in (("members", member), ("nonmembers", ~member)):
        out[f"recall_{name}"] = {question.values[v]: round(r, 6) for v, r in found[name].recall.items()}
        out[f"flip_share_{name}"] = float(flips[rows].mean())
        for kind, part in (("flipping", rows & flips), ("fixed", rows & ~flips)):
            out[f"balanced_accuracy_{kind}_{name}"] = _balanced(guess[part], value[part])
    return out


def _balanced(guess: np.ndarray, value: np.ndarray) -> float | None:
    recalls = [(guess[value == v] == v).mean() for v in np.unique(value)]
    return float(np.mean(recalls)) if recalls else None


def _control(guess: np.ndarray, value: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
    """What guesses without the target are worth, by metric."""
    inside, outside = _balanced(guess[member], value[member]), _balanced(guess[~member], value[~member])
    assert inside is not None
    assert outside is not None
    values = {
        "balanced_accuracy": inside, "balanced_accuracy_nonmembers": outside, "member_gap": inside - outside,
        "accuracy": (guess == value)[member].mean(), "accuracy_nonmembers": (guess == value)[~member].mean(),
    }  # fmt: skip
    return {name: np.array([v]) for name, v in values.items()}


def _judge(response: bool, balanced: bool) -> str:
    return f"{'response' if response else 'alone'}_{'balanced' if balanced else 'natural'}"


def _imputed(
    released: Mapping[str, Any], value: np.ndarray, member: np.ndarray, judges: Mapping[str, Any]
) -> dict[str, dict[str, np.ndarray]]:
    """The better of the natural and the balanced imputer (in balanced accuracy), with and without response."""
    records, y, out = released["records"].numpy(), released["responses"].numpy(), {}
    for response, name in ((True, "imputation"), (False, "imputation_without_response")):
        done = []
        for balanced in (True, False):
            share = impute(judges[_judge(response, balanced)], records, y if response else None, judges["classes"])
            done.append(_control(share.argmax(1), value, member))
        out[name] = max(done, key=lambda d: float(d["balanced_accuracy"][0] + d["balanced_accuracy_nonmembers"][0]))
    return out


def _advantage(found: Mapping[str, AttributeInference], imputed: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Balanced accuracy above the imputer that also knows the response."""
    return {
        "advantage": found["members"].balanced - float(imputed["balanced_accuracy"][0]),
        "advantage_nonmembers": found["nonmembers"].balanced - float(imputed["balanced_accuracy_nonmembers"][0]),
    }
