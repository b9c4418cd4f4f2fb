"""Pairs that differ in one thing: which they are, what their difference is, and that report and figures show it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from survey_cells import noise, record, summary

from inversionbench.survey import build, changes, report

PRIOR = {"kedmi_gan": {"entry": "kedmi_gan", "method": "kedmi_gan", "steps": 440}}
SHORT = {"kedmi_gan": {"entry": "kedmi_gan_third", "method": "kedmi_gan", "steps": 147}}
BASE = {"base": "kedmi_gan", "latent": "gaussian", "iterations": 1200, "box": 1.0, "keep_at": [100]}


def cells(entry, agreement, knn, *, scenario="portraits", priors=PRIOR, dataset=None, passes=1200, **attack):
    """Three seeds of one entry. agreement, knn: levels, the same noise for every entry of a seed."""
    out = []
    for seed in range(3):
        values = {"agreement": agreement + 0.02 * noise(seed), "knn_distance": knn + 5 * noise(seed, "knn")}
        curves = {m: [[10, float(v.mean()) / 2], [1200, float(v.mean())]] for m, v in values.items()}
        made = record("portraits", "gmi", "none", 0.0, seed, curves=curves, cost={"passes": passes},
                      metrics={m: summary(v) for m, v in values.items()})  # fmt: skip
        public = dataset["public_from"] if dataset else "faces"
        made |= {"key": f"{scenario}/{entry}/none/0/{seed}", "scenario": scenario, "attack": entry, "method": "kedmi",
                 "dataset": "faces" if public == "faces" else "apart",
                 "parameters": {"attack": BASE | attack, "priors": priors, "defense": {}, "scenario": {"subjects": 6},
                                "dataset": dataset or {}}}  # fmt: skip
        out.append(made)
    return out


POINT = {"latent": "point", "iterations": 300}
FOUND = [
    *cells("kedmi", 0.9, 250.0),
    *cells("kedmi_kept", 0.9, 250.0, keep_at=[1, 2]),  # the same attack
    *cells("kedmi_third", 0.7, 250.0, priors=SHORT),
    *cells("kedmi_point", 0.9, 150.0, **POINT),
    *cells("kedmi_twice", 0.9, 250.0, iterations=2400, box=0.5, passes=2400),  # two things
    *cells("kedmi_wide", 0.9, 250.0, box=1.5),
    *cells("kedmi_wider", 0.9, 260.0, box=3.0),
]


def said(found):
    pairs = changes.find(found, "classifier")
    return {(c.before[1], c.after[1]): c.said for c in pairs if "kept" not in c.before[1] + c.after[1]}


def test_pairs_differ_in_one_thing_and_neighbouring_numbers_only():
    arrow = "\N{RIGHTWARDS ARROW}"
    assert said(FOUND) == {
        ("kedmi_third", "kedmi"): f"kedmi gan: steps 147 {arrow} 440",
        ("kedmi", "kedmi_point"): f"latent gaussian {arrow} point",
        ("kedmi", "kedmi_wide"): f"box 1 {arrow} 1.5",
        ("kedmi_wide", "kedmi_wider"): f"box 1.5 {arrow} 3",
    }


def test_more_passes_are_a_thing_of_their_own():
    more = cells("kedmi_more", 0.9, 250.0, iterations=2400, passes=2400)
    assert said([*cells("kedmi", 0.9, 250.0), *more]) == {
        ("kedmi", "kedmi_more"): "iterations 1200 \N{RIGHTWARDS ARROW} 2400"
    }
    both = cells("kedmi_more", 0.9, 250.0, latent="point", iterations=2400, passes=2400)
    assert said([*cells("kedmi", 0.9, 250.0), *both]) == {}


def test_other_stages_are_a_thing_and_their_lengths_a_budget():
    two, long, odd = ({"steps": s, **more} for s, more in
                      (([60, 10], {}), ([60], {"box": 2.0}), ([120, 20], {"box": 2.0})))
    first = cells("kedmi", 0.9, 250.0, **two)
    assert said([*first, *cells("kedmi_long", 0.9, 250.0, **long)]) == {}
    assert list(said([*first, *cells("kedmi_odd", 0.9, 250.0, **odd)]).values()) == ["box 1 \N{RIGHTWARDS ARROW} 2"]


def test_a_chosen_prior_is_one_thing():
    shared = cells("kedmi_shared", 0.5, 250.0, priors={"dcgan": {"entry": "dcgan", "steps": 2000}}, base="dcgan")
    assert list(said([*cells("kedmi", 0.9, 250.0), *shared])) == [("kedmi_shared", "kedmi")]


def test_scenarios_with_the_same_private_and_other_public_data():
    data = {"private_from": "faces", "public_from": "other_people"}
    shifted = cells("kedmi", 0.4, 500.0, scenario="shifted", dataset=data)
    (change,) = changes.find([*cells("kedmi", 0.9, 250.0), *shifted], "classifier")
    assert change.before == ("portraits", "kedmi")
    assert change.after == ("shifted", "kedmi")
    assert change.said == "public data faces \N{RIGHTWARDS ARROW} other people"
    foreign = cells("kedmi", 0.4, 500.0, scenario="shifted", dataset={**data, "private_from": "other"})
    assert changes.find([*cells("kedmi", 0.9, 250.0), *foreign], "classifier") == []


def test_differences_are_paired_and_shown_only_where_seeds_agree():
    split = cells("kedmi_split", 0.9, 250.0, box=2.0)
    for made, shift in zip(split, (0.3, -0.01, 0.3)):
        values = np.array(made["metrics"]["agreement"]["values"]) + shift
        made["metrics"]["agreement"] = summary(values)
    found = [r for r in FOUND if r["attack"] in ("kedmi", "kedmi_third", "kedmi_point")] + split
    rows = changes.measured(build.make(found, "smoke"))["classifier"].set_index(["before", "after", "metric"])
    third = rows.loc["kedmi_third", "kedmi", "agreement"]
    assert third["difference"] == pytest.approx(0.2)
    assert third["by_seed"] == pytest.approx([0.2] * 3)
    assert third["shown"]
    assert not rows.loc["kedmi_third", "kedmi", "knn_distance"]["shown"]
    assert rows.loc["kedmi", "kedmi_point", "knn_distance"]["difference"] == pytest.approx(-100)
    split = rows.loc["kedmi", "kedmi_split", "agreement"]
    assert split["low"] > 0
    assert not split["shown"]  # one seed says the contrary


def test_report_and_figures_hold_them(tmp_path: Path):
    survey = build.make(FOUND, "smoke")
    pictures = changes.draw(survey, tmp_path)
    assert {p.path.name for p in pictures} == {"changes-classifier.png"}
    assert all(p.path.stat().st_size > 5000 for p in pictures)
    text = report.markdown(survey)
    assert "kedmi gan: steps 147" in text
    assert "+20.0" in text
    assert report.html(survey, pictures).count("One thing changed at a time") == 1


def test_a_survey_without_pairs_has_neither(survey: build.Survey, tmp_path: Path):
    assert changes.measured(survey) == {}
    assert [p.path.name for p in changes.draw(survey, tmp_path)] == []
    assert "One thing changed" not in report.markdown(survey)
