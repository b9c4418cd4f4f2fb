"""breast_cancer: 569 biopsies, 28 measurements of cell nuclei and a texture quartile. No download, no network.

Class: malignant or benign. Sensitive column: mean texture in quartiles (of the public rows), as in attribute
inference on this table. "Worst texture" is left out: it nearly repeats the sensitive column, so a record with
another quartile and the old worst texture would be no record at all.

Little to invert here: the diagnosis hardly depends on texture once the other measurements are known. The row
is for comparison with the literature; `dosing` is the table on which attribute inference says something.

Options: number of records of each part. `extra`: `mean_texture` int64 (n,), the quartile 0-3.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.ranges import Count
from inversionbench.data import _table
from inversionbench.data.base import PARTS, Card, DatasetSource

SENSITIVE = "mean_texture"
TWIN = "worst_texture"


@dataclass(frozen=True)
class BreastCancer(DatasetSource):
    """Wisconsin diagnostic breast cancer; options in the module docstring."""

    id = "breast_cancer"
    task = "malignant or benign"
    card = Card(
        name="Breast Cancer Wisconsin (Diagnostic)",
        modality="table",
        source="inside the installed scikit-learn package; UCI repository, id 17",
        terms="CC BY 4.0",
        citation="Street, Wolberg, Mangasarian: Nuclear feature extraction for breast tumor diagnosis, 1993",
        notes="37 % malignant: report balanced accuracy. Quartile edges come from the public rows.",
        embedded=True,
    )

    private: Count = 200
    public: Count = 180
    evaluation: Count = 60
    heldout: Count = 129

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        from sklearn.datasets import load_breast_cancer

        source = load_breast_cancer()
        names = [str(name).replace(" ", "_") for name in source.feature_names]
        raw = dict(zip(names, source.data.T))
        sizes = {part: getattr(self, part) for part in PARTS}
        parts = _table.deal("data.breast_cancer", len(source.target), sizes, rng)
        raw[SENSITIVE], edges = _table.quantiles(raw[SENSITIVE], 4, parts["public"])
        shown = [f"below {edges[0]:.2f}", *(f"{a:.2f} to {b:.2f}" for a, b in pairwise(edges)),
                 f"above {edges[-1]:.2f}"]  # fmt: skip
        columns = [
            _table.Column(name, tuple(shown) if name == SENSITIVE else (), name == SENSITIVE)
            for name in names
            if name != TWIN
        ]
        classes = [str(name) for name in source.target_names]
        _table.write(out, raw, columns, source.target, parts, classes, SENSITIVE)
