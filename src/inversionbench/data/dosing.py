"""dosing: a generated table of drug doses that depend on a patient's genes. No download, no network.

The story is that of Fredrikson et al. (2014): a model predicts the dose of a drug from genes and body, and is
asked for the genes. Here the response depends strongly on the sensitive column and is noisy, so there is
something to invert, and an overfitted model gives more about its own records than about others.

Each of n records, independently, N = standard normal, all draws independent:
    ancestry    0, 1, 2 with probabilities 0.5, 0.3, 0.2
    genotype    number of variant alleles, Binomial(2, f[ancestry]) with f = 0.25, 0.4, 0.6     (sensitive)
    second_gene number of variant alleles, Binomial(2, 0.3)
    age         clip(55 + 15 N, 18, 90), years
    weight      clip(75 + 15 N - 4 [ancestry = 1] - 8 [ancestry = 2], 40, 140), kg
    drug_a, drug_b, drug_c   taken or not, probabilities 0.3, 0.2, 0.1
    noise_1, noise_2, noise_3   N, without influence
    dose  = -effect * genotype - 0.4 * second_gene - 0.3 (age - 55)/15 + 0.4 (weight - 75)/15
            - 0.5 drug_a + 0.4 drug_b - 0.3 drug_c + 0.2 [ancestry = 1] - 0.1 [ancestry = 2] + 0.6 N
    y     = quintile of the dose among all n records, 0 (lowest) to 4
with effect = 0.8 per allele by default. The sum of the four parts is n.

Measured at the defaults (three seeds; genotype by the model's score of the true class, uniform prior; balanced
accuracy of members / non-members, chance 33 %): unpruned tree 82 / 45 %, tree of depth 8 72 / 52 %, network
with two layers of 64, 80 epochs 76 / 60 %, the same after 6 epochs 51 / 49 %. Guessing from the other columns
without any model (random forest on the public records): 42 %, with the true class 58 %.

Options: number of records of each part, effect, noise (standard deviation of the dose's own noise, 0.6).
`extra`: codes of the categorical columns (`ancestry`, `genotype`, ...), as `_table` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.ranges import Count, NonNegative
from inversionbench.data import _table
from inversionbench.data.base import PARTS, Card, DatasetSource

ANCESTRY = (0.5, 0.3, 0.2)
FREQUENCY = np.array([0.25, 0.4, 0.6])  # frequency of the variant allele by ancestry
ALLELES = ("none", "one", "two")
TAKEN = ("no", "yes")
COLUMNS = (
    _table.Column("ancestry", ("a", "b", "c"), sensitive=True),
    _table.Column("genotype", ALLELES, sensitive=True),
    _table.Column("second_gene", ALLELES, sensitive=True),
    _table.Column("age"),
    _table.Column("weight"),
    *(_table.Column(name, TAKEN) for name in ("drug_a", "drug_b", "drug_c")),
    *(_table.Column(name) for name in ("noise_1", "noise_2", "noise_3")),
)
CLASSES = ("lowest", "low", "middle", "high", "highest")


@dataclass(frozen=True)
class Dosing(DatasetSource):
    """Generated pharmacogenetics; options and equations in the module docstring."""

    id = "dosing"
    task = "5 dose levels"
    card = Card(
        name="Generated drug doses",
        modality="table",
        source="drawn by this package from a seed",
        terms="no real patient; same licence as this package",
        citation="after the setting of Fredrikson et al.: Privacy in Pharmacogenetics, USENIX Security 2014",
        notes="Ancestry stands for population structure only. Members are the private records.",
        embedded=True,
    )

    private: Count = 1000
    public: Count = 3000
    evaluation: Count = 2000
    heldout: Count = 2000
    effect: float = 0.8
    noise: NonNegative = 0.6

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        sizes = {part: getattr(self, part) for part in PARTS}
        n = sum(sizes.values())
        parts = _table.deal("data.dosing", n, sizes, rng)
        raw = patients(n, rng)
        amount = dose(raw, self.effect) + self.noise * rng.standard_normal(n)
        y, edges = _table.quantiles(amount, len(CLASSES), np.arange(n))
        _table.write(out, raw, COLUMNS, y, parts, CLASSES, "genotype", dose_edges=edges)


def patients(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """n records, codes and numbers by column, each (n,)."""
    ancestry = rng.choice(3, n, p=ANCESTRY)
    kilograms = np.array([75.0, 71.0, 67.0])[ancestry] + 15 * rng.standard_normal(n)
    raw = {
        "ancestry": ancestry,
        "genotype": rng.binomial(2, FREQUENCY[ancestry]),
        "second_gene": rng.binomial(2, 0.3, n),
        "age": np.clip(55 + 15 * rng.standard_normal(n), 18, 90),
        "weight": np.clip(kilograms, 40, 140),
    }
    for name, share in (("drug_a", 0.3), ("drug_b", 0.2), ("drug_c", 0.1)):
        raw[name] = (rng.random(n) < share).astype(np.int64)
    for name in ("noise_1", "noise_2", "noise_3"):
        raw[name] = rng.standard_normal(n)
    return raw


def dose(raw: dict[str, np.ndarray], effect: float) -> np.ndarray:
    """The dose without its noise, (n,), linear in the columns."""
    return (
        -effect * raw["genotype"]
        - 0.4 * raw["second_gene"]
        - 0.3 * (raw["age"] - 55) / 15
        + 0.4 * (raw["weight"] - 75) / 15
        - 0.5 * raw["drug_a"]
        + 0.4 * raw["drug_b"]
        - 0.3 * raw["drug_c"]
        + np.array([0.0, 0.2, -0.1])[raw["ancestry"]]
    )
