"""Attribute inference against the truth: members apart from non-members, with what is known without a model.

Every number is of one target and all its victims; the unit of an interval is therefore the target (the seed).
`gap_low`, `gap_high` and `auroc_gap_low`, `auroc_gap_high` among the facts are of this one target: 95 % over its
records.

Balanced accuracy, F1 and AUROC average over the values with at least `ENOUGH` records among the members and as many
among the non-members, the same for both: else one record of a rare value decides, and the two sides average over
different values. What is left out stands in the facts, and counts in plain accuracy alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inversionbench.core.scenario import Evaluation
from inversionbench.metrics._aggregate import wilson
from inversionbench.metrics.attribute_inference import AttributeInference, attribute_inference
from inversionbench.metrics.auroc_gap import auroc_gap
from inversionbench.metrics.base import Unavailable
from inversionbench.models.columns import Question
from inversionbench.models.imputers import impute, train_imputer

if TYPE_CHECKING:
    from inversionbench.core.attack import Reconstruction
    from inversionbench.data.base import Dataset

ENOUGH = 20  # records: the standard error of a recall is then at most 0.11
FEW = f"fewer than two values of the attribute have {ENOUGH} records among members and among non-members"
AVERAGED = ("member_gap", "auroc_gap", *(f"{name}{ending}" for ending in ("", "_nonmembers")
                                         for name in ("balanced_accuracy", "f1", "auc", "advantage")))  # fmt: skip
NEEDS_SCORES = "needs a score for each value"
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
    judges: Mapping[str, Any],
) -> Evaluation:
    """All metrics of one reconstruction (data: int64 (n,), scores: (n, V) or None)."""
    value, member = truth["value"].numpy(), truth["member"].numpy()
    guess, question = reconstruction.data.numpy(), Question(**released["question"])
    scores = None if reconstruction.scores is None else reconstruction.scores.double().numpy()
    scores = None if scores is None else scores / scores.sum(1, keepdims=True)
    numbers = np.stack([np.bincount(value[rows], minlength=len(question.values)) for rows in (member, ~member)])
    counted = np.flatnonzero((numbers >= ENOUGH).all(0)).tolist()
    counted = counted if len(counted) > 1 else []
    found = {
        ending: attribute_inference(
            guess[rows], value[rows], scores=None if scores is None else scores[rows], values=counted or None
        )
        for ending, rows in (("", member), ("_nonmembers", ~member))
    }
    out = Evaluation({}, np.zeros(1, dtype=np.int64))
    out.facts = _facts(found, guess, value, member, truth["flips"].numpy(), question, counted, numbers)
    if "guarantee" in released:
        out.facts["guarantee"] = released["guarantee"]
    metrics = _metrics(found)
    mode = np.full(len(value), int(released["marginal"].argmax()))
    out.controls = {"mode": _control(mode, value, member, counted)}
    if judges.get("sensitive") == question.name:
        out.controls |= _imputed(released, value, member, judges, counted)
        metrics |= _advantage(found, out.controls["imputation"]) if counted else {}
    else:
        metrics |= dict.fromkeys(("advantage", "advantage_nonmembers"), Unavailable(NEEDS_JUDGE))
    if counted:
        ranked = Unavailable(NEEDS_SCORES) if scores is None else auroc_gap(value, scores, member, counted)
        metrics |= {"member_gap": found[""].balanced - found["_nonmembers"].balanced,
                    "auroc_gap": ranked if isinstance(ranked, Unavailable) else ranked.gap}  # fmt: skip
        out.facts["gap_low"], out.facts["gap_high"] = gap_interval(guess == value, value, member, counted)
        if not isinstance(ranked, Unavailable):
            out.facts |= {"auroc_gap_low": ranked.low, "auroc_gap_high": ranked.high}
    else:
        metrics |= dict.fromkeys(AVERAGED, Unavailable(FEW))
    out.metrics = {name: np.array([v]) for name, v in metrics.items() if not isinstance(v, Unavailable)}
    out.unavailable = {name: v.reason for name, v in metrics.items() if isinstance(v, Unavailable)}
    return out


def gap_interval(
    right: np.ndarray, value: np.ndarray, member: np.ndarray, counted: Sequence[int]
) -> tuple[float, float]:
    """95 % interval of the member gap in balanced accuracy over the values `counted`, over the records.

    Wilson's interval of every recall, put together by squares (Newcombe, Statistics in Medicine 1998, for one
    difference; Zou and Donner, ibid. 2008, for sums): a recall of 0 or 1 keeps its variance.
    """
    gap, below, above = 0.0, 0.0, 0.0
    for sign, rows in ((1, member), (-1, ~member)):
        for v in counted:
            hits = right[rows & (value == v)]
            recall, (low, high) = hits.mean(), wilson(int(hits.sum()), len(hits))
            down, up = recall - low, high - recall
            gap += sign * recall
            below += (down if sign > 0 else up) ** 2
            above += (up if sign > 0 else down) ** 2
    return float((gap - below**0.5) / len(counted)), float((gap + above**0.5) / len(counted))


def _metrics(found: Mapping[str, AttributeInference]) -> dict[str, float | Unavailable]:
    return {
        f"{name}{ending}": value
        for ending, of in found.items()
        for name, value in (
            ("balanced_accuracy", of.balanced), ("accuracy", of.accuracy), ("f1", of.f1), ("auc", of.auroc)
        )
    }  # fmt: skip


def _facts(
    found: Mapping[str, AttributeInference], guess: np.ndarray, value: np.ndarray, member: np.ndarray,
    flips: np.ndarray, question: Question, counted: Sequence[int], numbers: np.ndarray,
) -> dict[str, Any]:
    """Recall per value; which values are left out, with their records [members, non-members]; the share of records
    whose prediction depends on the sensitive value at all, and how well the attack does on those and on the others
    (balanced accuracy, None where there are none)."""
    left = {name: numbers[:, v].tolist() for v, name in enumerate(question.values) if v not in counted}
    out: dict[str, Any] = {"left_out": left}
    if left:
        why = f"fewer than {ENOUGH} records among members or among non-members, counted in accuracy alone"
        out["warnings"] = [f"{question.name}: {why}: {', '.join(left)}"]
    for name, ending, rows in (("members", "", member), ("nonmembers", "_nonmembers", ~member)):
        out[f"recall_{name}"] = {question.values[v]: round(r, 6) for v, r in found[ending].recall.items()}
        out[f"flip_share_{name}"] = float(flips[rows].mean())
        for kind, part in (("flipping", rows & flips), ("fixed", rows & ~flips)):
            there = [v for v in counted if (value[part] == v).any()]
            balanced = _balanced(guess[part], value[part], there) if there else None
            out[f"balanced_accuracy_{kind}_{name}"] = balanced
    return out


def _balanced(guess: np.ndarray, value: np.ndarray, counted: Sequence[int]) -> float:
    return float(np.mean([(guess[value == v] == v).mean() for v in counted]))


def _control(guess: np.ndarray, value: np.ndarray, member: np.ndarray, counted: Sequence[int]) -> dict[str, np.ndarray]:
    """What guesses without the target are worth, by metric."""
    right = guess == value
    values = {"accuracy": right[member].mean(), "accuracy_nonmembers": right[~member].mean()}
    if counted:
        inside, outside = (_balanced(guess[rows], value[rows], counted) for rows in (member, ~member))
        values |= {
            "balanced_accuracy": inside, "balanced_accuracy_nonmembers": outside, "member_gap": inside - outside
        }  # fmt: skip
    return {name: np.array([v]) for name, v in values.items()}


def _judge(response: bool, balanced: bool) -> str:
    return f"{'response' if response else 'alone'}_{'balanced' if balanced else 'natural'}"


def _imputed(
    released: Mapping[str, Any], value: np.ndarray, member: np.ndarray, judges: Mapping[str, Any],
    counted: Sequence[int],
) -> dict[str, dict[str, np.ndarray]]:
    """The better of the natural and the balanced imputer (in balanced accuracy), with and without response."""
    records, y, out = released["records"].numpy(), released["responses"].numpy(), {}
    better = "balanced_accuracy" if counted else "accuracy"
    for response, name in ((True, "imputation"), (False, "imputation_without_response")):
        done = []
        for balanced in (True, False):
            share = impute(judges[_judge(response, balanced)], records, y if response else None, judges["classes"])
            done.append(_control(share.argmax(1), value, member, counted))
        out[name] = max(done, key=lambda d: float(d[better][0] + d[f"{better}_nonmembers"][0]))
    return out


def _advantage(found: Mapping[str, AttributeInference], imputed: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Balanced accuracy above the imputer that also knows the response."""
    return {f"advantage{ending}": of.balanced - float(imputed[f"balanced_accuracy{ending}"][0])
            for ending, of in found.items()}  # fmt: skip
