"""What attacks that only ask cost for all classes and for one alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from survey_cells import record

from inversionbench.survey import build, shared


def found(queries):
    """Two seeds of an attack whose queries serve all classes, and one that asks for each."""
    out = []
    for seed in (0, 1):
        for attack in ("brep_mi", "gmi"):
            one = record("portraits", attack, "none", 0.0, seed)
            if attack == "brep_mi" and queries:
                one["facts"] = {**one["facts"], "shared_queries": queries}
            out.append(one)
    return out


def test_shared_queries_are_divided_or_charged_to_one(tmp_path: Path) -> None:
    survey = build.make(found(2000), "smoke")
    picture = shared.draw(survey, "portraits", tmp_path)
    assert picture is not None
    assert picture.path.stat().st_size > 5000
    one = next(r for r in survey.records if r["attack"] == "brep_mi")
    rows, classes = shared.points(one, "agreement"), len(set(one["groups"]))
    answers = len(one["groups"])
    assert [row["all"] for row in rows] == [b * answers / classes for b in (10, 100, 1000)]
    assert rows[-1]["alone"] == pytest.approx(2000 + (1000 * answers - 2000) / classes)
    assert rows[0]["alone"] == pytest.approx(10 * answers)


def test_there_is_no_picture_where_nothing_is_shared(tmp_path: Path) -> None:
    assert shared.draw(build.make(found(0), "smoke"), "portraits", tmp_path) is None
