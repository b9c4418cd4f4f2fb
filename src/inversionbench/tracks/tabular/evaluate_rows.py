"""Recovered rows against the true ones, and the check that comes before every attack on them.

A batch is matched once by the record error (see `metrics/tabular_recovery.py`); every number uses that order.
A number is right within 0.319 standard deviations of the public rows, which are drawn as the training rows are
(the authors take those of the training rows).

After matching, chance is high and grows with the batch, so every value stands beside controls that are matched in
the same way: rows drawn column by column from the public marginals, the public mode and median for every row, and
the true rows of other clients, which know the population but not the batch. What the same restarts give by other
rules (`Reconstruction.notes["variants"]`) stands beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inversionbench.core.scenario import Evaluation
from inversionbench.federation.settings import Batches
from inversionbench.metrics.certified import certified
from inversionbench.metrics.label_recovery import label_recovery
from inversionbench.metrics.tabular_recovery import marginal_rows, tabular_recovery
from inversionbench.models.rows import Schema
from inversionbench.tracks._by_size import by_size, table

if TYPE_CHECKING:
    from inversionbench.core.attack import Reconstruction

DRAWS = 5  # guesses per batch of the controls that are drawn
Values = dict[str, float]


def evaluate_rows(
    reconstruction: Reconstruction, truth: Mapping[str, Any], schema: Schema, batches: Batches, public: np.ndarray,
    classes: int, seed: int,
) -> Evaluation:
    """All numbers of one cell. public: the public rows, encoded (n, width). classes: of the label."""
    rng = np.random.default_rng(seed)
    sizes = batches.sizes
    rows = [r[:size].numpy() for r, size in zip(schema.decode(truth["rows"]), sizes)]
    known = schema.decode(torch.from_numpy(np.array(public, dtype=np.float32))).numpy()
    guesses = [r[:size].numpy() for r, size in zip(reconstruction.data, sizes)]
    values = [_score(guess, true, schema) for guess, true in zip(guesses, rows)]
    out = Evaluation(by_size(_columns(values), sizes), np.arange(batches.subjects))
    out.facts["by_batch_size"] = table(_columns(values), sizes)
    variants = reconstruction.notes.get("variants", {})
    answers: dict[str, list[list[np.ndarray]]] = {
        "marginals": [[marginal_rows(known, size, rng) for _ in range(DRAWS)] for size in sizes],
        "mode": [[np.repeat(_middle(known, schema)[None], size, axis=0)] for size in sizes],
        "other_batch": [[rows[j] for j in _others(i, batches)] for i in range(len(rows))],
        **{name: [[held[i, :size].numpy()] for i, size in enumerate(sizes)] for name, held in variants.items()},
    }
    if batches.subjects == 1:
        del answers["other_batch"]
        out.facts["other_batch"] = "needs at least two subjects"
    for name, each in answers.items():
        scored = [_mean([_score(g, true, schema) for g in several]) for several, true in zip(each, rows)]
        out.controls[name] = by_size(_columns(scored), sizes)
    out.facts |= {"checks": truth["checks"], "doubt": _doubt(reconstruction.scores, values, schema, sizes)}
    out.facts["variants"] = sorted(variants)  # their rows are among the controls
    out.facts["example"] = _example(rows[-1][0], values[-1]["right"][0], schema)
    if "certified" in reconstruction.notes:
        exact = [v["whole_rows"] == 1 for v in values]
        claims, out.facts["certified_wrong"] = certified(reconstruction.notes["certified"], exact)
        out.metrics |= by_size({"certified": claims}, sizes)
    if reconstruction.notes.get("labels") == "none":
        out.unavailable["label_recovery"] = "the attack reads no labels"
    elif reconstruction.notes.get("labels") == "given":
        out.unavailable["label_recovery"] = "the labels were given to the attacker"
    else:
        overlap = [label_recovery(guess[:n], true[:n], classes).overlap
                   for guess, true, n in zip(reconstruction.labels, truth["labels"], sizes)]  # fmt: skip
        out.metrics |= by_size({"label_recovery": np.array(overlap)}, sizes)
    return out


def _score(guess: np.ndarray, true: np.ndarray, schema: Schema) -> dict[str, Any]:
    """Means over one batch, and `right`, bool (B, columns), in the order of the truth."""
    found = tabular_recovery(guess, true, schema.categorical, schema.unit.numpy())
    out: dict[str, Any] = {"tabular_recovery": float(found.accuracy.mean()), "order": found.permutation}
    for name, part in (("categorical", found.categorical), ("numeric", found.continuous)):
        if part is not None:
            out[name] = float(part.mean())
    return out | {"whole_rows": float(found.right.all(1).mean()), "right": found.right}


def _columns(values: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    names = [n for n in values[0] if n not in ("right", "order")]
    return {name: np.array([v[name] for v in values]) for name in names}


def _mean(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: float(each.mean()) for name, each in _columns(values).items()}


def _middle(known: np.ndarray, schema: Schema) -> np.ndarray:
    """The most frequent category and the median number of every column."""
    return np.array([
        np.bincount(column.astype(np.int64)).argmax() if categorical else np.median(column)
        for column, categorical in zip(known.T, schema.categorical)
    ])


def _others(client: int, batches: Batches) -> list[int]:
    """Up to `DRAWS` further clients with the same batch size."""
    clients = next(list(c) for _, c in batches.parts() if client in c)
    place = clients.index(client)
    return [clients[(place + k) % len(clients)] for k in range(1, min(DRAWS, len(clients) - 1) + 1)]


def _doubt(scores: Tensor | None, values: Sequence[Mapping[str, Any]], schema: Schema, sizes: Sequence[int]) -> Any:
    """Share of right cells in the quarter of least doubt and in all, per kind of column and batch size."""
    if scores is None:
        return None
    out: dict[str, Any] = {}
    for size in dict.fromkeys(sizes):
        for kind, chosen in (("categorical", schema.categorical), ("numeric", ~schema.categorical)):
            if not chosen.any():
                continue
            own = [i for i, s in enumerate(sizes) if s == size]
            sure = np.concatenate([scores[i, :size].numpy()[values[i]["order"]][:, chosen].ravel() for i in own])
            right = np.concatenate([values[i]["right"][:, chosen].ravel() for i in own])
            first = np.argsort(sure, kind="stable")[: max(1, len(sure) // 4)]
            out[f"{kind}[B={size}]"] = {"least_doubt": float(right[first].mean()), "all": float(right.mean())}
    return out


def _example(true: np.ndarray, right: np.ndarray, schema: Schema) -> dict[str, str]:
    """One true row of the last client, each cell with a mark whether it was recovered."""
    words = [values[int(cell)] if values else f"{round(float(cell), 4):g}" for cell, values in zip(true, schema.values)]
    return {name: f"{word} ({'yes' if hit else 'no'})" for name, word, hit in zip(schema.names, words, right)}
