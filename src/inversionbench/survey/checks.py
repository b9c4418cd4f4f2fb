"""What must hold between cells: a defense that cannot act must leave every value as it was.

Two kinds of cells must equal the undefended cell of the same scenario, attack and seed bit for bit: inert
ones (by its hooks the defense cannot reach what the attack sees), and those of a defense at strength 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Check:
    """One comparison. verdict: "inert" (equal), "differs" or "unchecked" (nothing to compare with)."""

    key: str
    verdict: str
    detail: str = ""


def verify(found: Iterable[Mapping[str, Any]]) -> list[Check]:
    """Compare all inert cells, and all of strength 0, with the undefended ones."""
    found = list(found)
    plain = {_place(record): record for record in found if record["defense"] == "none"}
    return [
        _compare(record, plain.get(_place(record)))
        for record in sorted(found, key=lambda record: record["key"])
        if record["defense"] != "none" and (record["inert"] or record["strength"] == 0)
    ]


def problems(checks: Iterable[Check]) -> list[str]:
    """One sentence per comparison that failed; empty where all is well."""
    return [f"{c.key}: the defense cannot act here, yet {c.detail}" for c in checks if c.verdict == "differs"]


def alarms(defenses: pd.DataFrame) -> list[str]:
    """One sentence per post-processing of answers under which an attack gets more out of them than without it: anybody
    can process the answers that he gets, so the attack without defense is too weak. `defenses`: the table."""
    rows = defenses[defenses["alarm"].astype(bool) & defenses["headline"].astype(bool)]
    return [f"{r.scenario}: {r.defense} {r.strength:g} gives {r.entry} ({r.level}) more than no defense does; it only "
            "processes answers, so the same attack can do it to an undefended target" for r in rows.itertuples()]


def _place(record: Mapping[str, Any]) -> tuple[str, str, int]:
    return record["scenario"], record["attack"], record["seed"]


def _compare(record: Mapping[str, Any], plain: Mapping[str, Any] | None) -> Check:
    if plain is None:
        return Check(record["key"], "unchecked", "the undefended cell is missing")
    if "failed" in (record["status"], plain["status"]):
        return Check(record["key"], "unchecked", "one of the two cells failed")
    if record["status"] != plain["status"]:
        return Check(record["key"], "differs",
                     f"its status is {record['status']}, without defense {plain['status']}")
    names = sorted({*record["metrics"], *plain["metrics"]})
    different = [
        name for name in names
        if record["metrics"].get(name, {}).get("values") != plain["metrics"].get(name, {}).get("values")
    ]
    if different:
        return Check(record["key"], "differs", f"{', '.join(different)} differ from the undefended cell")
    return Check(record["key"], "inert")
