"""What may be claimed: simulated cells with known effects, and the words that the first table has for them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from survey_cells import record, summary

from inversionbench.core import registry
from inversionbench.metrics import changed_hits
from inversionbench.survey import build, checks, glance, report, result, verdicts, words
from inversionbench.survey.view import Cell

RNG = np.random.default_rng(0)
PLAIN = RNG.normal(20, 3, (2, 16))  # dB: seeds, clients
WOBBLE = RNG.normal(0, 0.5, (2, 16))


def cells(
    attack: str, defense: str = "none", strength: float = 0.0, change: Any = 0.0, *, scenario: str = "photos",
    clients: int = 16, seeds: int = 2, models: int = 2, metric: str = "psnr", **more: Any,
) -> list[dict[str, Any]]:
    """Cells of one setting; `change`: mean difference to the common values, in which every client wobbles a little."""
    out = []
    for seed in range(seeds):
        values = change if isinstance(change, np.ndarray) else (PLAIN + change + (change != 0) * WOBBLE)[seed]
        made = record(scenario, attack, defense, strength, seed, metrics={metric: summary(values[:clients])},
                      groups=list(range(clients)), folder="nowhere", timing={}, inert=False, **more)  # fmt: skip
        made["provenance"] = made["provenance"] | {"target": f"{defense} {strength} {seed % models}"}
        out.append(made)
    return out


def priced(found: list[dict[str, Any]], low: float = -0.01, **columns: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables; the price of every setting is 1 point, with `low` as the lower end of its interval."""
    made = build.make(found, "smoke")
    price = {"utility_difference": -0.01, "utility_difference_low": low, "utility_difference_high": 0.0}
    return made.attacks, made.defenses.assign(**price | columns)


def best(found: list[dict[str, Any]], low: float = -0.01, **columns: Any) -> tuple[Cell, Cell]:
    """The cells of the best defense for two and for five points."""
    two, five = glance.table(*priced(found, low, **columns)).rows[0][1][5:7]
    return two, five


def verdict(found: list[dict[str, Any]], **where: Any) -> str:
    table = build.make(found, "smoke").defenses
    table = table[(table["attack"] == "strongest") & table["headline"].astype(bool)]
    for column, value in where.items():
        table = table[table[column] == value]
    return table.iloc[0]["verdict"]


class TestBestDefense:
    def test_one_that_lowers_it_is_named_with_its_price(self) -> None:
        cell, _ = best([*cells("dlg"), *cells("dlg", "dgc", 0.9, -3.0)])
        assert cell.text.startswith("DGC 0.9: 1")
        assert "accuracy of the target \N{MINUS SIGN}1.0 [\N{MINUS SIGN}1.0, 0.0]" in cell.text
        assert cell.interval.startswith("[")

    def test_a_difference_whose_interval_holds_0_names_none(self) -> None:
        change = PLAIN[0] + 3 * RNG.standard_normal(16) - 0.3
        cell, _ = best([*cells("dlg"), *cells("dlg", "dgc", 0.9, change)])
        assert (cell.text, cell.interval) == ("none shown", "not shown")

    def test_the_interval_is_corrected_for_the_settings_tried(self) -> None:
        """One setting is shown at 95 %; the same among forty settings is not."""
        lower = PLAIN[0] - 0.5 + np.tile([-0.85, 0.85], 8)
        one = [*cells("dlg", change=PLAIN[0]), *cells("dlg", "dgc", 0.9, lower)]
        others = [c for i in range(39) for c in cells("dlg", "dgc", 0.9, PLAIN[0], seeds=2)
                  for c in [c | {"strength": 0.1 + i / 100, "key": f"photos/dlg/dgc/{0.1 + i / 100:g}/{c['seed']}"}]]
        assert verdict(one) == verdicts.LOWERS
        assert verdict([*one, *others], strength=0.9) == verdicts.UNCLEAR

    @pytest.mark.parametrize("few", [{"clients": 7}, {"models": 1}, {"seeds": 1}])
    def test_seven_targets_or_one_model_are_too_few(self, few: dict[str, int]) -> None:
        found = [*cells("dlg", **few), *cells("dlg", "dgc", 0.9, -10.0, **few)]
        assert verdict(found) == verdicts.FEW
        assert best(found)[0] == Cell("none shown", "too few to say", style="absent")

    def test_no_defense_run_and_none_at_this_price_are_other_words(self) -> None:
        found = [*cells("dlg"), *cells("dlg", "dgc", 0.9, -3.0)]
        attacks, defenses = priced(found)
        table = glance.table(attacks, defenses.assign(scenario="elsewhere"))
        assert table.rows[0][1][5].text == "no defense run"
        cheap, dear = best(found, low=-0.03)
        assert cheap.text == "none at this price"
        assert cheap.interval.startswith("DGC 0.9: accuracy of the target \N{MINUS SIGN}1.0 [\N{MINUS SIGN}3.0")
        assert dear.text.startswith("DGC 0.9: ")  # the upper end of its cost is 3 points

    @pytest.mark.parametrize(("columns", "said"), [
        ({"utility_difference": math.nan}, "price not measured"),
        ({"utility_difference_low": math.nan}, "price without interval"),
        ({"utility_chance": 0.85}, "near chance"),
    ])  # fmt: skip
    def test_a_price_that_settles_nothing_is_said(self, columns: dict[str, float], said: str) -> None:
        cell, _ = best([*cells("dlg"), *cells("dlg", "dgc", 0.9, -3.0)], **columns)
        assert cell.text == "none at this price"
        assert said in cell.interval

    def test_a_target_that_learnt_hardly_anything_is_near_chance(self) -> None:
        poor = cells("dlg", "dgc", 0.9, -3.0, utility={"accuracy": 0.15, "chance": 0.1})
        cell, _ = best([*cells("dlg", utility={"accuracy": 0.16, "chance": 0.1}), *poor])
        assert (cell.text, "near chance" in cell.interval) == ("none at this price", True)

    def test_a_weaker_attack_names_no_defense(self) -> None:
        found = [*cells("dlg"), *cells("dlg", "dgc", 0.9, -3.0), *cells("inverting_gradients", change=2.0)]
        assert best(found)[0] == Cell("none shown", "strongest attack not run", style="absent")

    @pytest.mark.parametrize(("norm", "said"), [(6.6, verdicts.IDLE), (234.0, verdicts.LOWERS)])
    def test_a_defense_that_did_not_act_is_not_named(self, monkeypatch, norm: float, said: str) -> None:
        described = registry.describe("defense", "dgc")
        monkeypatch.setitem(described.attributes, "effect", ("effect_logit_norm", "higher", 1.5))
        found = [*cells("dlg", utility={"accuracy": 0.9, "effect_logit_norm": 5.6}),
                 *cells("dlg", "dgc", 0.9, -3.0, utility={"accuracy": 0.89, "effect_logit_norm": norm})]
        assert verdict(found) == said
        shown = "did not act" in report.markdown(build.make(found, "smoke"))
        assert shown == (said == verdicts.IDLE)

    def test_where_low_leaks_more_a_rise_lowers_the_leak(self) -> None:
        found = [*cells("dlg", metric="mse"), *cells("dlg", "dgc", 0.9, 3.0, metric="mse")]
        for made in found:
            made["unavailable"] = {}
        assert set(build.make(found, "smoke").attacks["direction"]) == {"lower"}
        assert verdict(found) == verdicts.LOWERS
        assert verdict([*found[:2], *cells("dlg", "dgc", 0.9, -3.0, metric="mse", unavailable={})]) == verdicts.RAISES

    def test_all_hits_lost_by_eight_people_are_shown(self) -> None:
        hits = {"scenario": "portraits", "clients": 8, "metric": "agreement"}
        found = [*cells("gmi", change=np.ones(8), **hits), *cells("gmi", "bido", 0.1, np.zeros(8), **hits)]
        row = build.make(found, "smoke").defenses.query("metric == 'agreement'").iloc[0]
        assert (row["difference_low"], row["difference_high"]) == changed_hits([-1.0] * 8)
        assert verdict(found) == verdicts.LOWERS


class TestPostProcessing:
    """Rounding only processes answers: what it gains an attacker, he has without it."""

    def found(self, change: float) -> list[dict[str, Any]]:
        level = {"scenario": "portraits", "metric": "agreement", "level": "BB-S"}
        share = lambda dB: np.clip((PLAIN[0] + dB) / 40, 0, 1)
        return [*cells("gmi", change=share(0.0), **level),
                *cells("gmi", "confidence_rounding", 0.05, share(change), **level),
                *cells("gmi", "confidence_rounding", 0.1, share(-2.0) + WOBBLE[0] / 40, **level)]

    def test_it_is_declared_by_the_class(self) -> None:
        assert verdicts.post_processing("confidence_rounding")
        assert not verdicts.post_processing("dgc")
        assert not verdicts.post_processing("no such entry")

    def test_no_setting_leaks_more_than_undefended(self) -> None:
        made = build.make(self.found(4.0), "smoke")
        rows = made.defenses[made.defenses["attack"] == "strongest"].set_index("strength")
        assert rows.loc[0.05, "difference"] == 0
        assert set(rows["reference"]) == {"gmi/confidence_rounding/0.05"}
        assert rows.loc[0.1, "difference"] == pytest.approx(-6 / 40, abs=0.01)
        assert list(rows["verdict"]) == [verdicts.UNCLEAR, verdicts.LOWERS]

    def test_the_strongest_attack_without_defense_is_the_one_who_rounds(self) -> None:
        made = build.make(self.found(4.0), "smoke")
        cell = glance.table(made.attacks, made.defenses).rows[0][1][2]
        gain = 100 * np.mean(np.clip((PLAIN[0] + 4) / 40, 0, 1))
        assert cell.text == f"GMI with confidence rounding 0.05 of his own: {gain:.1f} %"

    def test_more_than_the_plain_attack_is_an_alarm(self) -> None:
        made = build.make(self.found(4.0), "smoke")
        (alarm,) = checks.alarms(made.defenses)
        assert "confidence_rounding 0.05 gives gmi (BB-S) more" in alarm
        assert "Too weak without defense" in report.markdown(made)
        assert "Too weak without defense" in report.html(made, [])
        assert checks.problems(made.checks) == []

    def test_an_entry_that_rounds_undefended_ends_it(self) -> None:
        own = [{**c, "attack": "gmi_rounded", "key": c["key"].replace("/gmi/", "/gmi_rounded/")
                .replace("confidence_rounding/0.05", "none/0"), "defense": "none", "strength": 0.0}
               for c in self.found(4.0) if c["strength"] == 0.05]
        made = build.make([*self.found(4.0), *own], "smoke")
        assert checks.alarms(made.defenses) == []
        assert glance.table(made.attacks, made.defenses).rows[0][1][2].text.startswith("GMI (rounded): ")

    def test_less_than_the_plain_attack_is_none(self) -> None:
        assert checks.alarms(build.make(self.found(-1.0), "smoke").defenses) == []


def test_the_undefended_cell_of_an_adaptive_entry_counts() -> None:
    """An idea that a defense gave an attacker counts without the defense where it was run there."""
    found = [*cells("inverting_gradients"), *cells("inverting_gradients_aware", change=4.0),
             *cells("inverting_gradients", "dgc", 0.9, -1.0), *cells("inverting_gradients_aware", "dgc", 0.9, 2.0)]
    rows = build.make(found, "smoke").defenses
    row = rows[(rows["attack"] == "inverting_gradients") & rows["headline"].astype(bool)].iloc[0]
    assert (row["entry"], row["worse"]) == ("inverting_gradients_aware", "aware")
    assert row["reference"] == "inverting_gradients_aware/none/0"
    assert row["difference"] == pytest.approx(-2)
    assert verdict(found) == verdicts.LOWERS


class TestLeak:
    def shown(self, guess: float, clients: int = 16) -> tuple[Cell, Cell]:
        level = {"mean_image": {"psnr": guess}, "truth": {"psnr": 60.0}}
        made = build.make(cells("dlg", clients=clients, controls=level), "smoke")
        row = glance.table(made.attacks, made.defenses).rows[0][1]
        return row[2], row[3]

    @pytest.mark.parametrize(("below", "said"), [(8.0, "+8.0 dB"), (0.3, "no leak shown"), (-1.0, "no leak shown")])
    def test_a_leak_passes_the_best_guess_by_the_interval_of_the_difference(self, below: float, said: str) -> None:
        guess = PLAIN.mean() - below
        cell = self.shown(guess)[1]
        assert (cell.text, cell.interval) == (said, f"mean image {guess:.1f}")

    def test_two_targets_give_no_verdict(self) -> None:
        first, above = self.shown(8.0, clients=2)
        assert above.text == "too few to say"
        assert (first.interval, above.interval) == ("n = 2", "n = 2, mean image 8.0")

    def test_what_differs_between_seeds_drops_out(self) -> None:
        """Seed 1 is 20 dB easier, for the mean image as well: the attack is 1 dB better in every cell."""
        found = cells("dlg", controls={})
        for made, easier in zip(found, (0.0, 20.0)):
            values = 20 + easier + np.array([1.3, 0.7] * 8)
            made["metrics"], made["controls"] = {"psnr": summary(values)}, {"mean_image": {"psnr": 20.0 + easier}}
        row = build.make(found, "smoke").attacks.query("metric == 'psnr'").iloc[0]
        assert row["above"] == pytest.approx(1)
        assert 0.8 < row["above_low"] < row["above_high"] < 1.2


class TestStrongest:
    def test_what_it_cannot_be_told_from_is_named(self) -> None:
        noisy = PLAIN[0] + 2 * RNG.standard_normal(16)
        noisy -= noisy.mean() - PLAIN[0].mean() + 0.2
        found = [*cells("dlg", change=PLAIN[0]), *cells("inverting_gradients", change=noisy)]
        made = build.make(found, "smoke")
        cell = glance.table(made.attacks, made.defenses).rows[0][1][2]
        assert cell.text.startswith("DLG: ")
        assert cell.interval.endswith("], not separable from Inverting Gradients")

    def test_a_clear_winner_stands_alone(self) -> None:
        made = build.make([*cells("dlg"), *cells("inverting_gradients", change=-3.0)], "smoke")
        assert "not separable" not in glance.table(made.attacks, made.defenses).rows[0][1][2].interval


class TestResult:
    """The sentence on top of the report."""

    def said(self, found: list[dict[str, Any]], absent: Any = None, **columns: Any) -> tuple[str, str]:
        ((_, sentence),) = result.sentences(*priced(found, **columns), absent)
        attack, defense = sentence.removesuffix(".").split("; ")
        return attack, defense

    def found(self, guess: float = 8.0) -> list[dict[str, Any]]:
        level = {"controls": {"mean_image": {"psnr": guess}}}
        weaker = [c | {"scenario": "photos_other", "key": c["key"].replace("photos", "photos_other")}
                  for c in cells("dlg", change=-1.0, **level)]
        return [*weaker, *cells("dlg", **level), *cells("dlg", "dgc", 0.9, -3.0, **level),
                *cells("dlg", "dgc", 0.99, -6.0, **level)]

    def test_the_strongest_attack_of_all_scenarios_and_the_best_supported_defense(self) -> None:
        before, after = PLAIN.mean(), (PLAIN - 6.0 + WOBBLE).mean()
        assert self.said(self.found()) == (
            f"DLG reaches {before:.1f} dB in photos, mean image 8.0",
            f"best supported defense: DGC 0.99 in photos, {before:.1f} to {after:.1f} dB, accuracy of the target "
            "\N{MINUS SIGN}1.0 [\N{MINUS SIGN}1.0, 0.0]",
        )

    def test_what_is_not_supported_is_not_named(self) -> None:
        none = "no defense is shown to lower the strongest attack for at most 5 points of utility"
        assert self.said(self.found(), low=-0.06)[1] == none  # dear
        assert self.said(self.found(), utility_chance=0.85)[1] == none  # near chance
        assert self.said(cells("dlg"))[1] == "no defense was run"

    def test_no_leak_is_said_where_all_attacks_have_a_number_alone(self) -> None:
        nothing = self.found(guess=30.0)
        assert self.said(nothing)[0] == "no leak shown in 2 settings"
        absent = {(scenario, "GR"): ["GGI"] for scenario in ("photos", "photos_other")}
        assert self.said(nothing, absent)[0] == "not known in 2 settings"

    def test_it_stands_on_top(self) -> None:
        made = build.make(self.found(), "smoke")
        ((title, sentence),) = result.sentences(made.attacks, made.defenses)
        page, text = report.html(made, []), report.markdown(made)
        assert page.index(sentence) < page.index('id="glance"')
        assert text.index(f"- **{title}**: {sentence}\n") < text.index("| scenario |")


def test_every_verdict_has_words() -> None:
    said = words.words()["verdicts"]
    known = {v for k, v in vars(verdicts).items() if k.isupper() and isinstance(v, str)}
    assert known == set(said)
