"""census: a generated table of people, like a census. No download, no network, no real person.

Made for the recovery of whole rows from a federated update: seven categorical and five numeric columns that
depend on each other and differ in skew, and a response that most of them explain. Attribute inference can ask
it too. `group` and `birthplace` stand for the structure of a population and for nobody's traits.

Each record, N = standard normal, U = uniform in [0, 1), all draws independent, [.] = 1 where true:
    age         17 + floor(73 Beta(1.8, 3)), years
    sex         f, m with 1/2 each
    group       a .. e with probabilities 0.55, 0.2, 0.12, 0.08, 0.05
    birthplace  local with probability 0.95, 0.7, 0.5, 0.6, 0.8 by group, else near (0.6) or far (0.4)
    education   0 (none) .. 6 (doctor): how many of -1.6, -0.9, 0.1, 0.6, 1.2, 1.9 are below
                0.2 + N - [age < 22] - 0.25 max(0, age - 55)/15 + s[group], s = 0, -0.2, 0.2, 0, -0.1
    marital     softmax of single 1.2 - 0.11 (age - 22), married 0.6 - 0.9 [age < 22],
                divorced -1.6 + 0.02 (age - 30), separated -2.6, widowed -6.5 + 0.09 age + 0.6 [sex = f]
    children    Poisson(min(1, max(0, age - 20)/15) c[marital]), c = 0.2, 1.6, 1.1, 1.1, 1.6; at most 8
    occupation  softmax of b + a (education - 3) + m [sex = m], table `WORK`; for none also
                3.5 [age > 66] + [age < 20]
    employer    none without occupation; else softmax of private 1.5, public 0.1 + 0.25 (education - 3),
                self -0.4 + 0.03 (age - 40)
    hours       0 without occupation; else 40 with probability 0.45, else
                round(40 + 5 [employer = self] - 6 [sex = f][children > 0] + 9 N) in 5 .. 95
    tenure      0 without occupation; else floor(U U' (age - 16)), years in the job
    savings     0 with probability 1/(1 + exp(-0.4 + 0.03 (age - 40) + 0.3 (education - 3))), else
                exp(0.6 + 0.02 age + 0.25 education + N) to one decimal, in thousands
    pay         0.35 (education - 3) + w[occupation] + 0.02 (hours - 40) + 0.02 tenure + 0.3 [married]
                - 0.0008 (age - 50)^2 + noise N, w of `WORK`; noise 0.7 by default
    y           whether pay lies above its upper quartile among all n records

Records that repeat another in every column are drawn again. Options: number of records of each part, noise.
`extra`: codes of the categorical columns, as `_table` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.ranges import Count, NonNegative
from inversionbench.data import _table
from inversionbench.data.base import PARTS, Card, DatasetSource

GROUPS, GROUP_SHARE = ("a", "b", "c", "d", "e"), (0.55, 0.2, 0.12, 0.08, 0.05)
LOCAL = np.array([0.95, 0.7, 0.5, 0.6, 0.8])
SCHOOLS = ("none", "primary", "secondary", "vocational", "bachelor", "master", "doctor")
SCHOOLING = np.array([0.0, -0.2, 0.2, 0.0, -0.1])  # shift by group
CUTS = (-1.6, -0.9, 0.1, 0.6, 1.2, 1.9)
MARITAL = ("single", "married", "divorced", "separated", "widowed")
CHILDREN = np.array([0.2, 1.6, 1.1, 1.1, 1.6])
WORK = {  # occupation: b, a (per level of education), m (men), w (pay)
    "none": (-0.4, -0.25, -0.3, -0.9),
    "service": (0.3, -0.35, -0.6, -0.5),
    "clerical": (0.4, 0.0, -0.8, -0.1),
    "sales": (0.2, 0.0, 0.1, 0.1),
    "crafts": (0.0, -0.3, 1.2, 0.0),
    "machine": (-0.3, -0.4, 0.6, -0.2),
    "transport": (-0.5, -0.3, 1.1, -0.1),
    "technical": (-0.4, 0.3, 0.3, 0.4),
    "professional": (-0.3, 0.7, 0.0, 0.6),
    "managerial": (-0.4, 0.4, 0.3, 0.8),
}
EMPLOYER = ("none", "private", "public", "self")
COLUMNS = (
    _table.Column("age"),
    _table.Column("sex", ("f", "m"), sensitive=True),
    _table.Column("group", GROUPS, sensitive=True),
    _table.Column("birthplace", ("local", "near", "far"), sensitive=True),
    _table.Column("education", SCHOOLS, sensitive=True),
    _table.Column("marital", MARITAL, sensitive=True),
    _table.Column("children"),
    _table.Column("occupation", tuple(WORK)),
    _table.Column("employer", EMPLOYER),
    _table.Column("hours"),
    _table.Column("tenure"),
    _table.Column("savings"),
)
CLASSES = ("below", "above")
SURPLUS = 1.1  # records drawn for each one wanted, since repeated ones are left out


@dataclass(frozen=True)
class Census(DatasetSource):
    """Generated people; options and equations in the module docstring."""

    id = "census"
    task = "pay in the upper quarter or not"
    card = Card(
        name="Generated census",
        modality="table",
        source="drawn by this package from a seed",
        terms="no real person; same licence as this package",
        notes="A quarter earns more: majority accuracy 75 %. Columns stand in for those of census tables.",
        embedded=True,
    )

    private: Count = 4000
    public: Count = 2000
    evaluation: Count = 500
    heldout: Count = 1500
    noise: NonNegative = 0.7

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        sizes = {part: getattr(self, part) for part in PARTS}
        n = sum(sizes.values())
        parts = _table.deal("data.census", n, sizes, rng)
        raw = people(round(SURPLUS * n) + 10, rng)
        whole = np.stack([raw[c.name].astype(np.float64) for c in COLUMNS], axis=1)
        first = np.sort(np.unique(whole, axis=0, return_index=True)[1])[:n]
        assert len(first) == n, f"only {len(first)} of {n} records differ: raise SURPLUS"
        raw = {name: value[first] for name, value in raw.items()}
        amount = pay(raw) + self.noise * rng.standard_normal(n)
        y = (amount > np.quantile(amount, 0.75)).astype(np.int64)
        _table.write(out, raw, COLUMNS, y, parts, CLASSES, "marital")


def people(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """n records, codes and numbers by column, each (n,)."""
    age = 17 + np.floor(73 * rng.beta(1.8, 3, n))
    sex = rng.integers(2, size=n)
    group = rng.choice(5, n, p=GROUP_SHARE)
    local = rng.random(n) < LOCAL[group]
    birthplace = np.where(local, 0, 1 + (rng.random(n) < 0.4))
    school = 0.2 + rng.standard_normal(n) - (age < 22) - 0.25 * np.maximum(0, age - 55) / 15 + SCHOOLING[group]
    education = np.searchsorted(CUTS, school)
    marital = _marital(age, sex, rng)
    share = np.minimum(1, np.maximum(0, age - 20) / 15)
    children = np.minimum(8, rng.poisson(share * CHILDREN[marital]))
    return {
        "age": age, "sex": sex, "group": group, "birthplace": birthplace, "education": education,
        "marital": marital, "children": children, **_work(age, sex, education, children, rng),
    }  # fmt: skip


def pay(raw: dict[str, np.ndarray]) -> np.ndarray:
    """What a person earns, without noise, (n,)."""
    return (
        0.35 * (raw["education"] - 3.0)
        + np.array([row[3] for row in WORK.values()])[raw["occupation"]]
        + 0.02 * (raw["hours"] - 40)
        + 0.02 * raw["tenure"]
        + 0.3 * (raw["marital"] == MARITAL.index("married"))
        - 0.0008 * (raw["age"] - 50) ** 2
    )


def _marital(age: np.ndarray, sex: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    logits = [
        1.2 - 0.11 * (age - 22), 0.6 - 0.9 * (age < 22), -1.6 + 0.02 * (age - 30), np.full(len(age), -2.6),
        -6.5 + 0.09 * age + 0.6 * (sex == 0),
    ]  # fmt: skip
    return _choose(np.stack(logits, axis=1), rng)


def _work(
    age: np.ndarray, sex: np.ndarray, education: np.ndarray, children: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Occupation, employer, hours, tenure and savings."""
    b, a, m, _ = (np.array(column) for column in zip(*WORK.values()))
    logits = b + np.outer(education - 3, a) + np.outer(sex, m)
    logits[:, 0] += 3.5 * (age > 66) + (age < 20)
    occupation = _choose(logits, rng)
    idle = occupation == 0
    kinds = np.stack([np.full(len(age), 1.5), 0.1 + 0.25 * (education - 3), -0.4 + 0.03 * (age - 40)], axis=1)
    employer = np.where(idle, 0, 1 + _choose(kinds, rng))
    own = 40 + 5 * (employer == 3) - 6 * ((sex == 0) & (children > 0)) + 9 * rng.standard_normal(len(age))
    hours = np.where(rng.random(len(age)) < 0.45, 40, np.clip(np.round(own), 5, 95))
    tenure = np.floor(rng.random(len(age)) * rng.random(len(age)) * (age - 16))
    nothing = rng.random(len(age)) < 1 / (1 + np.exp(-0.4 + 0.03 * (age - 40) + 0.3 * (education - 3)))
    amount = np.exp(0.6 + 0.02 * age + 0.25 * education + rng.standard_normal(len(age)))
    return {
        "occupation": occupation, "employer": employer, "hours": np.where(idle, 0, hours),
        "tenure": np.where(idle, 0, tenure), "savings": np.where(nothing, 0, np.round(amount, 1)),
    }  # fmt: skip


def _choose(logits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One draw per row from the softmax of logits (n, k): int64 (n,), by the Gumbel maximum."""
    return (logits + rng.gumbel(size=logits.shape)).argmax(1)
