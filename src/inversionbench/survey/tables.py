"""The survey's tables, from the tidy frame: attacks without defense, headline numbers, and their files.

`attacks` has one row per scenario, attack and metric. The table of defenses is made in `defended.py`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from inversionbench.core import catalogue
from inversionbench.core.files import write_json, write_text
from inversionbench.survey import verdicts
from inversionbench.survey.defended import PLACE, STRONGEST
from inversionbench.survey.figures import end
from inversionbench.survey.pool import Pooled, pool


def attacks(frame: pd.DataFrame) -> pd.DataFrame:
    """Every attack without defense. `control_*`: what the controls of the same cells reach in this metric. Of the
    headline also `above`, over the best guess, and of the strongest attack of a level those `tied` with it."""
    plain = frame[frame["defense"] == "none"]
    keys = [*PLACE, "attack", "method", "kind", "level", "metric"]
    columns = [c for c in frame.columns if c.startswith(("control_", "cost_"))]
    out = []
    for key, rows in plain.groupby(keys, sort=True):
        first = rows.iloc[0]
        out.append({
            **dict(zip(keys, key)),
            "direction": first["direction"], "headline": bool(first["headline"]),
            **entry(pool(rows.to_dict("records"))),
            "rebuilt": catalogue.rebuilt("attack", first["method"]),
            **{c: rows[c].mean() for c in columns},
            "records": f"{first['scenario']}/{first['attack']}/none/0/*/record.json",
            "record_seeds": " ".join(str(s) for s in rows["seed"]),
        })
    table = pd.DataFrame(out, columns=None if out else [*keys, "headline", "mean"])
    return table.merge(_compared(plain, table), how="left", on=["scenario", "attack", "level", "metric"])


def _compared(plain: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """`verdicts.compare` of the attacks of each scenario and level, in the headline."""
    found = []
    heads = plain[plain["headline"].astype(bool) & (plain["kind"] == "attack")]
    for (scenario, level, metric), part in heads.groupby(["scenario", "level", "metric"]):
        levels = table[(table["scenario"] == scenario) & (table["metric"] == metric) & (table["kind"] == "attack")]
        guess = end(levels[levels["level"] == level], "guess", part.iloc[0]["direction"])
        rows = {name: own.to_dict("records") for name, own in part.groupby("attack")}
        found += [{"scenario": scenario, "attack": name, "level": level, "metric": metric, **said}
                  for name, said in verdicts.compare(rows, guess[0] if guess else "").items()]
    return pd.DataFrame(found, columns=["scenario", "attack", "level", "metric", *verdicts.COMPARED])


def entry(pooled: Pooled) -> dict[str, Any]:
    """The columns of one entry."""
    return {"mean": pooled.mean, "low": pooled.low, "high": pooled.high, "median": pooled.median, "n": pooled.n,
            "units": pooled.units, "seeds": pooled.seeds, "status": pooled.status, "reason": pooled.reason}


def headlines(attack_table: pd.DataFrame, defense_table: pd.DataFrame) -> dict[str, float]:
    """Flat headline numbers for DVC: `scenario/attack/metric`, and for the strongest attack of a level
    `scenario/defense@strength/level/metric` and the utility `scenario/defense@strength/accuracy`."""
    out: dict[str, float] = {}
    for row in attack_table[attack_table["headline"].astype(bool)].itertuples():
        out[f"{row.scenario}/{row.attack}/{row.metric}"] = row.mean
    strongest = defense_table[defense_table["headline"].astype(bool) & (defense_table["attack"] == STRONGEST)]
    for row in strongest.itertuples():
        place = f"{row.scenario}/{row.defense}@{row.strength:g}"
        out[f"{place}/{row.level}/{row.metric}"] = row.mean
        out[f"{place}/{row.utility_name}"] = row.utility
    return {name: round(float(value), 6) for name, value in out.items() if not math.isnan(value)}


def write(path: Path, table: pd.DataFrame) -> None:
    """CSV with six significant digits, the same bytes for the same table."""
    write_text(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def write_headlines(path: Path, attack_table: pd.DataFrame, defense_table: pd.DataFrame) -> None:
    """`metrics.json`, which DVC compares between versions."""
    write_json(path, headlines(attack_table, defense_table))
