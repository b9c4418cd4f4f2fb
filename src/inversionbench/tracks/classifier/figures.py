"""What explains the leakage of defended classifiers: robust accuracy, dependence on the input, or accuracy alone?

One point is one target: a defense at one strength, trained with one seed. Its leakage is the headline of the attack
that takes most from it, mean over the attack's seeds. For each explanation in a target's utility a line is fitted by
least squares over all targets of a scenario, the undefended ones included; R^2 is the share of the variance that it
explains.
Targets of one setting (defense and strength) are not independent: intervals are percentiles of a bootstrap over
settings, in which both explanations are fitted to the same draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from inversionbench.survey import words
from inversionbench.survey.figures import COLOURS, GREY, Picture, canvas, save

if TYPE_CHECKING:
    from inversionbench.survey.build import Survey

TRACK = "classifier"
EXPLAIN = {"robust_accuracy": "robust accuracy", "effect_dependence_input": "dependence on the input (HSIC)",
           "accuracy": "accuracy"}  # fmt: skip
LEAST = 8  # settings, below which nothing is said of what explains what
DRAWS = 2000


def draw(survey: Survey, folder: Path) -> list[Picture]:
    found = []
    for scenario in sorted({r["scenario"] for r in survey.records if r["track"] == TRACK}):
        points = targets([r for r in survey.records if r["scenario"] == scenario])
        if points.groupby(["defense", "strength"]).ngroups >= LEAST:
            found.append(explained(points, scenario, folder))
    return found


def targets(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per target: defense, strength, target_seed, leak, and the explanations. Attacks only, no controls."""
    main = words.headline(TRACK, {m for r in records for m in r["metrics"]})
    columns = ["defense", "strength", "target_seed", "attack", "leak", *EXPLAIN]
    rows = [
        {**{n: r[n] for n in columns[:4]}, "leak": r["metrics"][main]["mean"], **{n: r["utility"][n] for n in EXPLAIN}}
        for r in records
        if r["kind"] == "attack" and main in r["metrics"] and all(n in r["utility"] for n in EXPLAIN)
    ]
    by_attack = pd.DataFrame(rows, columns=columns).groupby(columns[:4], as_index=False).mean()
    return by_attack.drop(columns="attack").groupby(columns[:3], as_index=False).max()


def r_squared(x: np.ndarray, y: np.ndarray) -> float:
    """Share of the variance of y (n,) that a line in x (n,) explains; 0 where either is constant.

    >>> r_squared(np.array([0.0, 1.0, 2.0]), np.array([5.0, 3.0, 1.0]))
    1.0
    """
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return round(float(np.corrcoef(x, y)[0, 1] ** 2), 12)


def difference(points: pd.DataFrame, first: str, second: str, seed: int = 0) -> tuple[float, float, float]:
    """R^2 of `first` minus that of `second`, and its 95 % interval over settings."""
    groups = [part for _, part in points.groupby(["defense", "strength"])]
    rng = np.random.default_rng(seed)

    def of(part: pd.DataFrame) -> float:
        leak = part["leak"].to_numpy()
        return r_squared(part[first].to_numpy(), leak) - r_squared(part[second].to_numpy(), leak)

    drawn = [of(pd.concat([groups[i] for i in rng.integers(len(groups), size=len(groups))])) for _ in range(DRAWS)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return of(points), float(low), float(high)


def explained(points: pd.DataFrame, scenario: str, folder: Path) -> Picture:
    """Leakage against each explanation, a panel each, every target a point."""
    kinds = sorted(set(points["defense"]), key=lambda name: (name != "none", name))
    shades = [GREY, *COLOURS]
    path = folder / f"explained-{scenario}.png"
    with canvas(11.5, 4.2, 1, len(EXPLAIN), sharey=True) as (figure, axes):
        for ax, (name, label) in zip(axes[0], EXPLAIN.items()):
            for i, kind in enumerate(kinds):
                own = points[points["defense"] == kind]
                ax.scatter(own[name], 100 * own["leak"], s=26, color=shades[i % len(shades)],
                           marker="osD^vPX*"[i // len(shades) % 8], label=words.method("defense", kind))
            ax.set_xlabel(label)
            ax.set_title(f"R\N{SUPERSCRIPT TWO} {r_squared(points[name].to_numpy(), points['leak'].to_numpy()):.2f}")
        axes[0, 0].set_ylabel("leak to the strongest attack (%)")
        save(figure, path, axes)
    own, low, high = difference(points, "robust_accuracy", "effect_dependence_input")
    side, other = difference(points, "robust_accuracy", "accuracy"), "accuracy alone"
    verdict = "robust accuracy explains more" if low > 0 else "dependence explains more" if high < 0 else "not shown"
    caption = (f"What explains leakage over {len(points)} targets of {scenario} "
               f"({points.groupby(['defense', 'strength']).ngroups} settings): R\N{SUPERSCRIPT TWO} of robust accuracy "
               f"minus that of dependence {own:+.2f} [{low:.2f}, {high:.2f}], {verdict}; minus that of {other} "
               f"{side[0]:+.2f} [{side[1]:.2f}, {side[2]:.2f}]. 95 % intervals over settings; lines by least squares.")
    return Picture(path, caption, scenario, "tradeoff")
