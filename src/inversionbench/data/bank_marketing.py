"""bank_marketing: UCI Bank Marketing, phone calls of a Portuguese bank (survey: UBMD, section 6).

The survey's "41,188 instances with 17-dimensional data" mixes two files: bank-additional-full.csv has 41,188
rows and 20 inputs, bank-full.csv 45,211 rows and 16 inputs. Releases: "additional" (bank-additional.zip),
"full" (bank-full.csv.gz or bank-full.csv) and "full_zip" (bank.zip); the title says which one.

By default 60 % of the rows are private, 20 % public, 10 % each evaluation and held out. The call's duration
is dropped: it is known only after the call. The economic columns of bank-additional take one to three values
a month, so that an imputer recovers them from `month` without any model: report with and without them, i.e.
with their names added to `drop`.

Options: release, response (class; "subscribed" by default, any other column works, a numeric one in
quartiles: subscription hardly depends on the sensitive columns, a job on education does), sensitive (one of
marital, housing, loan, default, education, job), drop, public_share, evaluation_share, heldout_share, private,
public, evaluation, heldout (largest number of rows, 0: all). `extra`: codes of the categorical columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Share, Whole
from inversionbench.data import _archives, _formats, _records, sources
from inversionbench.data.base import Card, DatasetSource, File

NUMERIC = (
    "age", "balance", "day", "duration", "campaign", "pdays", "previous", "emp.var.rate", "cons.price.idx",
    "cons.conf.idx", "euribor3m", "nr.employed",
)  # fmt: skip
SENSITIVE = ("marital", "housing", "loan", "default", "education", "job")
ZIP, MEMBER = "bank-additional.zip", "bank-additional/bank-additional-full.csv"
SHA256 = "74adfc578bf77a7ff4bb1ba4a9f8709d9e3c6907342959c2c8416847e0afb4d8"  # of the member
FULL_SHA256 = "d1513ec63b385506f7cfce9f2c5caa9fe99e7ba4e8c3fa264b3aaf0f849ed32d"  # of bank-full.csv
LIMIT = 1 << 25


@dataclass(frozen=True)
class BankMarketing(DatasetSource):
    """UCI Bank Marketing; options in the module docstring."""

    id = "bank_marketing"
    task = "subscribed or not"
    titles = {
        "additional": "Bank Marketing (bank-additional-full)",
        "full": "Bank Marketing (bank-full)", "full_zip": "Bank Marketing (bank-full)",
    }  # fmt: skip
    _member_sha256 = SHA256
    _full_sha256 = FULL_SHA256
    card = Card(
        name="Bank Marketing",
        modality="table",
        source="S. Moro, P. Cortez, P. Rita, UCI machine learning repository, id 222",
        terms="CC BY 4.0",
        citation="Moro, Cortez, Rita: A data-driven approach to predict the success of bank telemarketing, 2014",
        files=(
            File(ZIP),
            File("bank-full.csv.gz", content_sha256=FULL_SHA256),
            File(
                "bank.zip", sha256="99d7e8eb12401ed278b793984423915411ea8df099e1795f9fefe254f513fe5e",
                size=579043, url="https://archive.ics.uci.edu/ml/machine-learning-databases/00222/bank.zip",
            ),
        ),
        manual_steps=(
            "unpack the archive of the UCI page once and put bank-additional.zip (41,188 rows) or bank.zip "
            "(45,211 rows; bank-full.csv or bank-full.csv.gz will do too) into bank_marketing/"
        ),
        notes="11 % say yes: majority accuracy 88.7 %, report balanced accuracy or AUROC",
    )  # fmt: skip

    release: str = "auto"
    response: str = "subscribed"
    sensitive: str = "marital"
    drop: tuple[str, ...] = ("duration",)
    public_share: Share = 0.2
    evaluation_share: Share = 0.1
    heldout_share: Share = 0.1
    private: Whole = 0
    public: Whole = 0
    evaluation: Whole = 0
    heldout: Whole = 0

    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"additional": (ZIP,), "full": ("bank-full.csv.gz",), "full_zip": ("bank.zip",)}

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        assert root is not None
        release = sources.release_of(self, root)
        path = sources.path_of(self, root, self.needs()[release][0])
        if release == "additional":
            data = _archives.member(path, MEMBER, sha256=self._member_sha256)
        elif release == "full_zip":
            data = _archives.member(path, "bank-full.csv", sha256=self._full_sha256)
        else:
            data = _archives.gunzip(path, LIMIT)
        rows = _formats.table(_formats.text(data, str(path)), str(path), ("age", "job", "y"), ";")
        table = {("subscribed" if name == "y" else name): [r[name] for r in rows] for name in rows[0]}
        if len(table) not in (17, 21):
            raise UserError(f"{path}: {len(table)} columns; expected 17 or 21")
        _records.build(self, out, rng, table, NUMERIC, SENSITIVE)
