"""Figure of defenses with a proof: what attacks reach beside what no attack can pass (reconstruction robustness)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import beta

from inversionbench.defenses.differential_privacy._robustness import gaussian
from inversionbench.survey import words
from inversionbench.survey.defended import STRONGEST
from inversionbench.survey.figures import GREY, Picture, canvas, cues, end, legend, plain_log, quantity, save

SUCCESS = ("whole_rows", "success_20", "success_30", "exact_match")  # metrics whose mean is a chance of success
DISTANCE = "utility_mu_round"  # of the Gaussian release, by the defense's account


def bound(
    frame: pd.DataFrame, attacks: pd.DataFrame, defenses: pd.DataFrame, scenario: str, folder: Path
) -> Picture | None:
    """Success of the strongest attack of each level against the distance mu of the release; the line is the bound for
    the upper end (95 %) of what the best guess reaches. None without such defenses or such a metric."""
    rows = points(frame, attacks, defenses, scenario)
    if rows.empty:
        return None
    metric, kappa = quantity(rows), rows["kappa"].iloc[0]
    style = cues(set(rows["defense"]))
    with canvas(7.0, 4.0) as (figure, axes):
        ax = axes[0, 0]
        span = np.geomspace(rows["mu"].min() / 3, max(rows["mu"].max() * 3, 10.0), 200)
        ax.plot(span, [gaussian(kappa, mu) * metric.factor for mu in span], color="#111111", linewidth=1.6,
                label="no attack passes this")
        ax.axhline(kappa * metric.factor, color=GREY, linestyle="--", linewidth=1, label="best guess (upper end)")
        for row in rows.itertuples():
            marker, colour = style[row.defense]
            ax.errorbar(row.mu, row.mean * metric.factor, marker=marker, color=colour, linestyle="none", capsize=2.5,
                        yerr=np.clip([[row.mean - row.low], [row.high - row.mean]], 0, None) * metric.factor,
                        label=words.method("defense", row.defense))  # fmt: skip
            ax.annotate(f"{row.strength:g}", (row.mu, row.mean * metric.factor), (5, 4), textcoords="offset points",
                        fontsize=7, color=colour)
        ax.set_xscale("log")
        plain_log(ax.xaxis)
        ax.set_xlabel("mu of one round: sensitivity / noise; more is less private")
        ax.set_ylabel(f"{metric.title}; {words.arrow(metric.direction)}")
        legend(figure, axes)
        save(figure, folder / f"bound-{scenario}.png")
    caption = (f"Proof and practice on {scenario}: {metric.title} of the strongest attack of each level under defenses "
               "with Gaussian noise, and the bound on every attack that sees one round, from what the best guess "
               f"reaches ({100 * kappa:.1f} %, upper end of 95 %). Numbers are strengths. A line at the top proves "
               "nothing; the room under it is what stronger attacks might still find.")
    return Picture(folder / f"bound-{scenario}.png", caption, scenario, "bound")


def points(frame: pd.DataFrame, attacks: pd.DataFrame, defenses: pd.DataFrame, scenario: str) -> pd.DataFrame:
    """The strongest attack at every setting with a proof, with `mu`, `kappa` and `bound`; empty where there is none."""
    here = attacks[attacks["scenario"] == scenario]
    name = next((m for m in SUCCESS if m in set(here["metric"])), None)
    if name is None or DISTANCE not in frame:
        return pd.DataFrame()
    mus = frame[(frame["scenario"] == scenario) & frame[DISTANCE].notna()].groupby(["defense", "strength"])[DISTANCE]
    rows = defenses[(defenses["scenario"] == scenario) & (defenses["metric"] == name) & defenses["mean"].notna()]
    rows = rows[(rows["attack"] == STRONGEST) & (rows["inert"] != "inert")]
    rows = rows.merge(mus.mean().rename("mu").reset_index())
    own = here[here["metric"] == name]
    guess, n = end(own, "guess", "higher"), own["n"].max()
    if rows.empty or guess is None or not n > 0:
        return pd.DataFrame()
    hits = guess[1] * n
    kappa = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return rows.assign(kappa=kappa, bound=[gaussian(kappa, mu) for mu in rows["mu"]])
