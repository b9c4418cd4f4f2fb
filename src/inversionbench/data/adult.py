"""adult: UCI Adult (census income), 48,842 people, 14 inputs, income above 50,000 or not (not in section 6).

adult.data and adult.test are read as one table and dealt anew, since records repeat across the two files. A
missing value ("?") is a value of its own, "unknown". Dropped by default: fnlwgt (a sampling weight),
education_num (repeats education) and relationship (husband and wife tell sex and marital status, so that a
record with another sensitive value would be no record at all); TabLeak uses all 14, `drop` [] does so.

Options: response, sensitive (one of marital_status, sex, race, relationship, native_country), drop,
public_share, evaluation_share, heldout_share, private, public, evaluation, heldout (largest number of rows,
0: all). `extra`: codes of the categorical columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Share, Whole
from inversionbench.data import _formats, _records
from inversionbench.data.base import Card, DatasetSource, File

COLUMNS = (
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation",
    "relationship", "race", "sex", "capital_gain", "capital_loss", "hours_per_week", "native_country", "income",
)  # fmt: skip
NUMERIC = ("age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week")
SENSITIVE = ("marital_status", "sex", "race", "relationship", "native_country")
SITE = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/"


@dataclass(frozen=True)
class Adult(DatasetSource):
    """UCI Adult; options in the module docstring."""

    id = "adult"
    task = "income above 50K or not"
    card = Card(
        name="Adult",
        modality="table",
        source="B. Becker, R. Kohavi, UCI machine learning repository, id 2",
        terms="CC BY 4.0",
        citation="Kohavi: Scaling up the accuracy of naive-Bayes classifiers, KDD 1996",
        files=(
            File(
                "adult.data", url=SITE + "adult.data",
                sha256="5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
            ),
            File(
                "adult.test", url=SITE + "adult.test",
                sha256="a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
            ),
        ),
        manual_steps="put adult.data and adult.test (from the archive of the UCI page) into adult/",
        notes="24 % earn more: majority accuracy 76 %",
    )  # fmt: skip

    response: str = "income"
    sensitive: str = "marital_status"
    drop: tuple[str, ...] = ("fnlwgt", "education_num", "relationship")
    public_share: Share = 0.2
    evaluation_share: Share = 0.1
    heldout_share: Share = 0.1
    private: Whole = 0
    public: Whole = 0
    evaluation: Whole = 0
    heldout: Whole = 0

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        assert root is not None
        rows = [row for name in ("adult.data", "adult.test") for row in _read(root / name)]
        table = {name: [row[i] for row in rows] for i, name in enumerate(COLUMNS)}
        _records.build(self, out, rng, table, NUMERIC, SENSITIVE)


def _read(path: Path) -> list[list[str]]:
    """The records of one file. adult.test starts with a comment, and its classes end with a full stop."""
    lines = _formats.text(path.read_bytes(), str(path)).splitlines()
    rows = []
    for line in lines:
        if not line.strip() or line.startswith("|"):
            continue
        row = ["unknown" if word.strip() == "?" else word.strip() for word in line.rstrip(".").split(",")]
        if len(row) != len(COLUMNS):
            raise UserError(f"{path}: a line with {len(row)} values, expected {len(COLUMNS)}; get it again")
        rows.append(row)
    return rows
