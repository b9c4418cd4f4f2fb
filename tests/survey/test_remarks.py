"""What stands below the tables: parameters that are not the published ones, warnings and answers that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from survey_cells import record

from inversionbench.core import registry
from inversionbench.core.errors import UserError
from inversionbench.survey import build, remarks, report

DLG = {"steps": 40, "rate": 1.0, "history": 100, "restarts": 1, "stop": 1e-6, "init": "randn", "form": "loop"}


def cell(scenario: str, attack: str, defense: str = "none", strength: float = 0.0, seed: int = 0, **facts: Any) -> dict:
    """A record with these facts; "parameters" among them replaces its parameters."""
    given = facts.pop("parameters", {})
    made = record(scenario, attack, defense, strength, seed, facts=facts)
    return {**made, "parameters": {"scenario": {}, "attack": {}, **given}, "folder": "nowhere", "timing": {}}


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_parameters_that_are_not_the_published_ones_are_named_with_the_share_of_the_budget() -> None:
    found = [cell("photos", "dlg", parameters={"attack": DLG}),
             cell("photos", "inverting_gradients", parameters={"attack": {"steps": 4800, "rate": 0.1}})]
    said = remarks.of(found)
    assert said.of_attacks == ["DLG: steps 40 instead of 300: 1/7.5 of the published budget"]
    assert said.attack("dlg") == " ‡"
    assert said.attack("inverting_gradients") == ""
    text = report.markdown(build.make(found, "smoke"))
    assert len(lines(text, "| DLG ‡ |")) == 1
    assert len(lines(text, "| Inverting Gradients |")) == 1
    assert text.index("| DLG ‡ |") < text.index("- DLG: steps 40 instead of 300")
    page = report.html(build.make(found, "smoke"), [])
    assert "<li>DLG: steps 40 instead of 300: 1/7.5 of the published budget</li>" in page


def test_learning_to_invert_says_what_its_training_is_worth() -> None:
    line = remarks.differences("attack", "learning_to_invert", {"pairs": 4000, "epochs": 6, "rate": 1e-3})
    assert line == ("pairs 4,000 instead of 50,000, epochs 6 instead of 200: 1/420 of the published budget; also rate "
                    "0.001 (0.0001)")


def test_without_a_declared_budget_the_parameters_are_listed_without_a_ratio() -> None:
    assert remarks.differences("defense", "soteria", {"strength": 80, "probes": 4, "layer": "x"}) == "probes 4 (32)"
    assert remarks.differences("attack", "brep_mi", {"limit": 60}) == "limit 60 instead of no limit"


def test_a_line_stays_short() -> None:
    known = registry.describe("prior", "dcgan").fields
    changed = {name: value + 1 for name, value in known.items() if type(value) in (int, float)}
    line = remarks.differences("prior", "dcgan", changed)
    assert line.count("(") == remarks.MOST
    assert line.endswith(f"and {len(changed) - 2 - 1 - remarks.MOST} more")  # two are the budget, one only measures


def test_the_name_of_an_entry_tells_its_choices_and_its_numbers_are_told() -> None:
    given = {"iterations": 1500, "identity": "margin", "restarts": 4}
    assert remarks.differences("attack", "gmi", given, variant=True) == "restarts 4 (5)"
    assert "identity margin (cross entropy)" in remarks.differences("attack", "gmi", given)


def test_a_prior_stands_once_with_the_attacks_that_use_it() -> None:
    prior = {"priors": {"dcgan": {"entry": "small", "method": "dcgan", "steps": 1300}}}
    found = [cell("portraits", name, parameters=prior) for name in ("gmi", "plg_mi", "random_prior")]
    said = remarks.of(found)
    assert said.of_attacks == [
        "prior small of GMI, PLG-MI: steps 1,300 instead of 130,000: 1/100 of the published budget"
    ]
    assert (said.attack("gmi"), said.attack("random_prior")) == (" ‡", "")


def test_a_budget_that_is_no_field_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'class Own:\n    id = "own"\n    budget = ("step",)\n    steps: int = 3\n'
    (path := tmp_path / "tracks" / "federated" / "attacks" / "own.py").parent.mkdir(parents=True)
    path.write_text(text)
    monkeypatch.setattr(registry, "PACKAGE", tmp_path)
    with pytest.raises(UserError, match="names 'step': did you mean 'steps'"):
        registry._read("attack", path)


WEAK = "evaluator plain is not more accurate than the target (0.9{}1)"


class TestWarnings:
    def test_they_stand_at_the_row_and_once_below_it(self) -> None:
        found = [cell("portraits", "gmi", warnings=[WEAK.format(4), "few images"]),
                 cell("portraits", "gmi", seed=1, warnings=[WEAK.format(4)]),
                 cell("portraits", "plg_mi", warnings=[WEAK.format(4)]),
                 cell("portraits", "brep_mi"),
                 cell("portraits", "gmi", "bido", 0.1, warnings=["did not converge"])]
        said = remarks.of(found)
        assert said.warned(False) == ["GMI, PLG-MI: " + WEAK.format(4), "GMI: few images"]
        assert said.warned(True) == ["GMI under BiDO (COCO and HSIC) 0.1: did not converge"]
        text = report.markdown(build.make(found, "smoke"))
        assert len(lines(text, "| GMI (!) |")) == len(lines(text, "| PLG-MI (!) |")) == 1
        assert len(lines(text, "| BREP-MI |")) == 1
        assert any("| GMI (!) |" in line for line in lines(text, "| BiDO"))
        page = report.html(build.make(found, "smoke"), [])
        for sentence in (WEAK.format(4), "few images", "did not converge"):
            assert (text.count(sentence), page.count(sentence)) == (1, 1)

    def test_those_that_differ_in_numbers_only_are_one(self) -> None:
        found = [cell("portraits", "gmi", "bido", s, warnings=[f"weak ({s})"]) for s in (0.1, 0.5)]
        assert remarks.of(found).warned(True) == [
            "GMI under BiDO (COCO and HSIC) 0.1, BiDO (COCO and HSIC) 0.5: weak (0.1 to 0.5)"
        ]
        many = remarks.Remarks({"gmi": "GMI"}, warnings={("gmi", "dgc", s): [f"weak ({s})"] for s in range(9)})
        assert many.warned(True) == ["GMI under DGC 0, DGC 1, DGC 2, DGC 3 and 5 more: weak (0 to 8)"]

    def test_answers_that_do_not_exist_are_counted(self) -> None:
        started = cell("portraits", "brep_mi", initialised=2, failures=5)
        assert remarks.sentences(started) == [
            "4 of 6 answers never started, because nothing was found to begin with; they score as noise",
            "1 of 6 answers are no finite images; they score as noise",
        ]
        assert remarks.sentences(cell("portraits", "brep_mi", initialised=6, failures=0)) == []
        assert remarks.of([started]).attack("brep_mi") == " (!)"
