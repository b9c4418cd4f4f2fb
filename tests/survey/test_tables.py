"""Pooling, the table of attacks, the table of defenses, and the checks behind the word "–"."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from survey_cells import all_records, empty, record, summary

from inversionbench.metrics import wilson
from inversionbench.survey import build, checks, collect, defended, price, report, tables
from inversionbench.survey.pool import difference, pool


def row(values: list[float], groups: list[str], seed: int = 0, status: str = "ok") -> dict:
    return {"values": values, "groups": groups, "seed": seed, "status": status, "reason": ""}


def line(table: pd.DataFrame, **where: object) -> pd.Series:
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def made(found: list[dict]) -> tuple[pd.DataFrame, list[checks.Check]]:
    verified = checks.verify(found)
    return defended.defenses(collect.tidy(found), verified, price.measured(found)), verified


class TestPool:
    def test_targets_are_the_units_and_not_their_repeated_values(self) -> None:
        values, groups = [0.0] * 50 + [0.4] * 50 + [1.0] * 50, ["a"] * 50 + ["b"] * 50 + ["c"] * 50
        clustered, free = pool([row(values, groups)]), pool([row(values, [str(i) for i in range(150)])])
        assert clustered.high - clustered.low > 2
        assert free.high - free.low < 0.25
        assert (clustered.units, free.units, clustered.n) == (3, 150, 150)

    def test_a_target_seen_with_two_seeds_is_one_target(self) -> None:
        entry = pool([row([1.0, 2.0, 6.0], ["a", "b", "c"], 0), row([3.0, 4.0, 2.0], ["a", "b", "c"], 1)])
        once = pool([row([2.0, 3.0, 4.0], ["a", "b", "c"])])
        assert (entry.n, entry.units, entry.seeds, entry.mean) == (6, 3, 2, 3.0)
        assert (entry.low, entry.high) == pytest.approx((once.low, once.high))

    def test_with_one_target_the_seeds_are_the_units_and_two_have_no_interval(self) -> None:
        three = pool([row([v], ["a"], seed) for seed, v in enumerate((1.0, 2.0, 3.0))])
        assert (three.low, three.high) == (pytest.approx(-0.484, abs=1e-3), pytest.approx(4.484, abs=1e-3))
        assert three.units == 3
        for values in ([1.0], [1.0, 3.0]):
            few = pool([row([v], ["a"], seed) for seed, v in enumerate(values)])
            assert math.isnan(few.low)
            assert (few.mean, few.units) == (np.mean(values), len(values))

    @pytest.mark.parametrize(("hit", "bounds"), [(0.0, (0.0, 0.3244)), (1.0, (0.6756, 1.0))])
    def test_a_share_that_all_targets_agree_on_has_a_width(self, hit: float, bounds: tuple[float, float]) -> None:
        several = [row([hit] * 8, list("abcdefgh"), seed) for seed in range(3)]
        entry = pool([{**r, "metric": "agreement"} for r in several])
        assert (entry.low, entry.high) == pytest.approx(bounds, abs=1e-4)  # 8 people, not 24 answers
        exact = pool([{**r, "metric": "mse"} for r in several])
        assert (exact.low, exact.high) == (hit, hit)
        one = pool([row([hit], ["a"], seed) | {"metric": "agreement"} for seed in range(3)])
        assert (one.low, one.high) == (hit, hit)  # one target only: seeds are no sample of targets

    @pytest.mark.parametrize("hits", [1, 3])
    def test_a_share_of_few_hits_has_wilsons_interval(self, hits: int) -> None:
        entry = pool([row([1.0] * hits + [0.0] * (8 - hits), list("abcdefgh")) | {"metric": "agreement"}])
        assert (entry.low, entry.high) == pytest.approx(wilson(hits, 8))

    def test_the_difference_is_paired(self) -> None:
        rng = np.random.default_rng(0)
        before = list(rng.normal(0, 10, 20))
        groups = [str(i) for i in range(20)]
        change = difference([row([v - 1 for v in before], groups)], [row(before, groups)])
        assert change.mean == pytest.approx(-1)
        assert change.low == pytest.approx(-1)
        assert change.high == pytest.approx(-1)
        assert (change.pairs, change.units, change.targets) == (20, 20, 1)

    def test_changes_of_hits_that_all_agree_have_a_width(self) -> None:
        hit, miss = (row([v] * 8, list("abcdefgh")) | {"metric": "agreement"} for v in (1.0, 0.0))
        lost, same = difference([miss], [hit]), difference([hit], [hit])
        assert (lost.mean, lost.low, lost.high, lost.sign()) == (-1, -1, pytest.approx(-0.4281, abs=1e-4), -1)
        assert (same.low, same.high) == (pytest.approx(-0.2772, abs=1e-4), pytest.approx(0.2772, abs=1e-4))
        assert same.sign() == 0
        assert difference([miss], [hit], 0.999).high > lost.high

    def test_attacked_models_are_counted(self) -> None:
        one = [row([1.0, 2.0, 4.0], ["a", "b", "c"], seed) | {"target": f"model {seed}"} for seed in range(3)]
        assert difference(one, [r | {"target": "shared"} for r in one]).targets == 1
        assert difference(one, one[:2]).targets == 2

    def test_without_common_targets_there_is_no_interval(self) -> None:
        change = difference([row([1.0], ["a"], 0)], [row([3.0], ["a"], 1)])
        assert (change.mean, change.pairs) == (-2.0, 0)
        assert math.isnan(change.low)


class TestAttacks:
    def test_numbers_are_pooled_over_seeds(self, survey: build.Survey) -> None:
        both = np.concatenate([record("photos", "dlg", "none", 0.0, s)["metrics"]["psnr"]["values"] for s in (0, 1)])
        entry = line(survey.attacks, attack="dlg", metric="psnr")
        assert entry["mean"] == pytest.approx(both.mean())
        assert entry["median"] == pytest.approx(np.median(both))
        assert entry["low"] < entry["mean"] < entry["high"]
        assert (entry["n"], entry["units"], entry["seeds"]) == (12, 6, 2)
        assert entry["control_mean_image"] == 12.5

    def test_only_undefended_cells_are_in_it(self, survey: build.Survey) -> None:
        assert set(survey.attacks["attack"]) == {r["attack"] for r in all_records()}
        assert survey.attacks["records"].str.contains("/none/0/").all()

    def test_a_failed_seed_is_said_and_not_hidden(self, survey: build.Survey) -> None:
        entry = line(survey.attacks, attack="lomma", metric="agreement")
        assert (entry["status"], entry["seeds"], entry["n"]) == ("partial", 1, 6)
        assert entry["reason"] == "seed 1: RuntimeError: out of memory"

    def test_denied_is_denied_and_not_zero(self, survey: build.Survey) -> None:
        entry = line(survey.attacks, attack="rlb_mi", metric="agreement")
        assert entry["status"] == "denied"
        assert math.isnan(entry["mean"])


class TestDefenses:
    def test_the_headline_is_the_worse_of_the_attackers(self, survey: build.Survey) -> None:
        entry = line(survey.defenses, attack="inverting_gradients", defense="dgc", strength=0.999, metric="psnr")
        assert entry["worse"] == "aware"
        assert entry["mean"] == entry["aware_mean"] > entry["naive_mean"]
        assert entry["entry"] == "inverting_gradients_aware"
        lower = line(survey.defenses, attack="inverting_gradients", defense="dgc", strength=0.999, metric="mse")
        assert lower["worse"] == "aware"
        assert lower["mean"] == lower["aware_mean"] < lower["naive_mean"]

    def test_the_strongest_attack_is_no_control(self) -> None:
        found = [record("photos", a, d, s, 0) for a in ("dlg", "wrong_gradient")
                 for d, s in (("none", 0.0), ("dgc", 0.9))]
        for cell in found[2:]:  # a control that beats the attack, as one with a lucky seed may
            cell["metrics"]["psnr"] = summary(np.array(cell["metrics"]["psnr"]["values"]) + 20)
        entry = line(made(found)[0], attack=defended.STRONGEST, metric="psnr")
        assert entry["entry"] == "dlg"
        assert entry["mean"] == pytest.approx(found[1]["metrics"]["psnr"]["mean"])
        assert entry["undefended"] == pytest.approx(found[0]["metrics"]["psnr"]["mean"])

    def test_difference_and_utility_against_no_defense(self, survey: build.Survey) -> None:
        entry = line(survey.defenses, attack="gmi", defense="bido", strength=0.5, metric="agreement")
        before, after = (
            np.concatenate([record("portraits", "gmi", *d, s)["metrics"]["agreement"]["values"] for s in (0, 1)])
            for d in (("none", 0.0), ("bido", 0.5))
        )
        assert entry["difference"] == pytest.approx((after - before).mean())
        assert entry["difference_low"] < entry["difference"] < entry["difference_high"] < 0
        assert entry["pairs"] == 12
        assert entry["utility"] == pytest.approx(0.8)
        assert entry["utility_difference"] == pytest.approx(-0.1)

    def test_a_defense_that_cannot_act_shows_the_undefended_number_at_every_strength(self, survey) -> None:
        table = survey.defenses
        rows = table[(table["defense"] == "confidence_rounding") & (table["attack"] == "plg_mi")]
        rows = rows[rows["metric"] == "agreement"]
        assert list(rows["strength"]) == [0.05, 0.1]
        assert set(rows["inert"]) == {"inert"}
        assert set(rows["mean"]) == {line(survey.attacks, attack="plg_mi", metric="agreement")["mean"]}
        assert set(rows["difference"]) == {0.0}
        acting = line(table, defense="confidence_rounding", strength=0.1, attack="brep_mi", metric="agreement")
        assert acting["inert"] == ""
        assert acting["difference"] < 0

    def test_the_worst_entry_counts_whatever_its_name(self) -> None:
        """Both attackers of one method ignore the defense: the one that leaks more is the method's result."""
        found = [record("photos", a, d, s, 0) for a in ("inverting_gradients", "inverting_gradients_aware")
                 for d, s in (("none", 0.0), ("dgc", 0.9))]
        for cell in found:
            cell["knowledge"] = {"used": []}
        entry = line(made(found)[0], attack="inverting_gradients", metric="psnr")
        assert (entry["worse"], entry["entry"]) == ("naive", "inverting_gradients_aware")
        assert entry["aware_status"] == "absent"

    def test_an_attack_rewritten_against_a_defense_is_the_same_attacker(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(collect, "attacker", lambda method: {"ggi": "dlg"}.get(method, method))
        found = [record("photos", "dlg", d, s, 0) for d, s in (("none", 0.0), ("dgc", 0.9))]
        own = [{**c, "attack": "ggi", "method": "ggi", "key": c["key"].replace("dlg", "ggi"),
                "facts": {"adaptive": True}} for c in found]
        own[1]["metrics"] = {k: summary(np.array(m["values"]) + 2) for k, m in found[1]["metrics"].items()}
        entry = line(made([*found, *own])[0], attack="dlg", metric="psnr")
        assert (entry["worse"], entry["entry"]) == ("aware", "ggi")
        assert entry["aware_mean"] == pytest.approx(entry["naive_mean"] + 2)


    def test_what_a_defense_states_stands_in_every_row_of_it(self) -> None:
        found = [record("photos", a, d, s, 0) for a in ("dlg", "wrong_gradient")
                 for d, s in (("none", 0.0), ("dgc", 0.9), ("dgc", 0.99))]
        found[1]["facts"]["guarantee"] = "epsilon 3 | INSECURE"
        survey = build.make(found, "smoke")
        rows = survey.defenses[survey.defenses["strength"] == 0.9]
        assert set(rows["guarantee"]) == {"epsilon 3 | INSECURE"}
        assert set(survey.defenses[survey.defenses["strength"] == 0.99]["guarantee"]) == {""}
        assert set(survey.frame.loc[survey.frame["strength"] == 0.9, "guarantee"]) == {"epsilon 3 | INSECURE", ""}
        assert "guarantee |" in report.markdown(survey)
        assert "epsilon 3 \\| INSECURE |" in report.markdown(survey)
        assert "epsilon 3 | INSECURE" in report.html(survey, [])

    def test_where_nothing_is_stated_there_is_no_column(self, survey: build.Survey) -> None:
        assert "guarantee" not in report.markdown(survey)


class TestChecks:
    def inert(self, **change: object) -> list[dict]:
        return [record("photos", "dlg", "none", 0.0, 0),
                record("photos", "dlg", "confidence_rounding", 0.1, 0, **change)]

    def test_equal_is_inert(self) -> None:
        verified = checks.verify(self.inert())
        assert [c.verdict for c in verified] == ["inert"]
        assert checks.problems(verified) == []

    def test_the_smallest_difference_is_found_and_marked(self) -> None:
        found = self.inert()
        values = np.array(found[1]["metrics"]["psnr"]["values"])
        values[0] = np.nextafter(values[0], 99)
        found[1]["metrics"]["psnr"] = summary(values)
        table, verified = made(found)
        assert "psnr differ" in checks.problems(verified)[0]
        assert line(table, attack="dlg", metric="psnr")["inert"] == "differs"

    def test_another_status_differs_too(self) -> None:
        assert checks.problems(checks.verify(self.inert(**empty("denied", "why"))))
        assert checks.verify(self.inert(**empty("failed", "why")))[0].verdict == "unchecked"

    def test_nothing_to_compare_with_is_not_called_equal(self) -> None:
        found = self.inert()[1:]
        table, verified = made(found)
        assert verified[0].verdict == "unchecked"
        assert line(table, attack="dlg", metric="psnr")["inert"] == "unchecked"

    def test_strength_zero_must_be_no_defense(self) -> None:
        zero = record("photos", "dlg", "dgc", 0.0, 0)
        plain = record("photos", "dlg", "none", 0.0, 0)
        assert checks.problems(checks.verify([plain, zero])) == [
            "photos/dlg/dgc/0/0: the defense cannot act here, yet mse, psnr, ssim differ from the undefended cell"
        ]
        assert not checks.problems(checks.verify([plain, {**zero, "metrics": plain["metrics"]}]))


def test_headline_numbers_are_flat_and_finite(survey: build.Survey) -> None:
    numbers = tables.headlines(survey.attacks, survey.defenses)
    mean = line(survey.attacks, attack="dlg", metric="psnr")["mean"]
    assert numbers["photos/dlg/psnr"] == pytest.approx(mean, abs=1e-6)
    assert numbers["portraits/bido@0.5/accuracy"] == pytest.approx(0.8)
    assert "portraits/bido@0.5/WB/agreement" in numbers
    assert all(math.isfinite(v) for v in numbers.values())
    assert not any("rlb_mi" in name for name in numbers)


def test_a_run_without_defenses_has_an_empty_table(tmp_path: Path) -> None:
    found = [record("photos", "dlg", "none", 0.0, 0)]
    survey = build.make(found, "smoke")
    assert survey.defenses.empty
    assert tables.headlines(survey.attacks, survey.defenses) == {
        "photos/dlg/psnr": round(found[0]["metrics"]["psnr"]["mean"], 6)
    }


def test_every_column_of_a_table_is_explained(survey: build.Survey, cells: Path) -> None:
    root = Path(__file__).parents[2]
    known = set(re.findall(r"`([^`]+)`", (root / "docs" / "tables.md").read_text()))
    families = tuple(name.rstrip("*").removesuffix("NAME") for name in known if name.endswith(("_*", "_NAME")))
    made = [*(root / "results" / "published").glob("*/*.csv"), *(cells.parent / "survey").glob("*.csv")]
    assert len({path.name for path in made}) >= 7
    columns = {(path.name, column) for path in made for column in pd.read_csv(path, nrows=0).columns}
    assert sorted(c for c in columns if c[1] not in known and not c[1].startswith(families)) == []
