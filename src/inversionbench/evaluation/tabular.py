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
    out.controls = {"mode": _mode(released, value, member)}
    metrics |= _advantage(found, released, value, member, judges, question, out)
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


def _mode(released: Mapping[str, Any], value: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
    """The most frequent public value for everybody."""
    guess = np.full(len(value), int(released["marginal"].argmax()))
    return _control({"members": attribute_inference(guess[member], value[member]),
                     "nonmembers": attribute_inference(guess[~member], value[~member])})  # fmt: skip


def _control(found: Mapping[str, AttributeInference]) -> dict[str, np.ndarray]:
    inside, outside = found["members"], found["nonmembers"]
    values = {
        "balanced_accuracy": inside.balanced, "balanced_accuracy_nonmembers": outside.balanced,
        "accuracy": inside.accuracy, "accuracy_nonmembers": outside.accuracy,
        "member_gap": inside.balanced - outside.balanced,
    }  # fmt: skip
    return {name: np.array([v]) for name, v in values.items()}


def _judge(response: bool, balanced: bool) -> str:
    return f"{'response' if response else 'alone'}_{'balanced' if balanced else 'natural'}"


def _advantage(
    found: Mapping[str, AttributeInference], released: Mapping[str, Any], value: np.ndarray, member: np.ndarray,
    judges: Mapping[str, Any], question: Question, out: Evaluation,
) -> dict[str, float | Unavailable]:
    """Balanced accuracy above the best imputer that also knows the response; the imputers become controls."""
    names = ("advantage", "advantage_nonmembers")
    if judges.get("sensitive") != question.name:
        return dict.fromkeys(names, Unavailable(NEEDS_JUDGE))
    records, y = released["records"].numpy(), released["responses"].numpy()
    for response, control in ((True, "imputation"), (False, "imputation_without_response")):
        results = []
        for balanced in (True, False):
            model = judges[_judge(response, balanced)]
            guess = impute(model, records, y if response else None, judges["classes"]).argmax(1)
            results.append({name: attribute_inference(guess[rows], value[rows])
                            for name, rows in (("members", member), ("nonmembers", ~member))})  # fmt: skip
        best = max(results, key=lambda r: r["members"].balanced + r["nonmembers"].balanced)
        out.controls[control] = _control(best)
    imputed = out.controls["imputation"]
    return {
        "advantage": found["members"].balanced - float(imputed["balanced_accuracy"][0]),
        "advantage_nonmembers": found["nonmembers"].balanced - float(imputed["balanced_accuracy_nonmembers"][0]),
    }
