"""Bad parameters are refused before any job, with the place and the nearest valid name."""

from __future__ import annotations

import copy
import math
import random
from pathlib import Path

import pytest
import yaml

from inversionbench.core import safe_yaml as _yaml
from inversionbench.core.errors import UserError
from inversionbench.core.safe_yaml import NODES
from inversionbench.plan.params import check, merge, read

ROOT = Path(__file__).parents[1]

GOOD = {
    "scale": "test",
    "datasets": {"dosing": {}},
    "evaluators": {"imputers": {"track": "tabular", "dataset": "dosing"}},
    "scenarios": {
        "tree": {
            "track": "tabular",
            "dataset": "dosing",
            "model": {"name": "tree"},
            "subjects": 200,
            "judges": "imputers",
        }
    },
    "attacks": {"mi_attribute": {"params": {"access": "BB-S"}}, "labels": {"method": "mi_attribute"}},
    "defenses": {"confidence_rounding": {"strengths": [0.1, 0.5]}},
}

DEFAULT = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"only": None}  # every scenario


def changed(path: str, value: object) -> dict:
    """GOOD with one value set; the path's parts are separated by dots."""
    raw = copy.deepcopy(GOOD)
    node = raw
    *parents, last = path.split(".")
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = value
    return raw


def test_good_parameters_and_derived_values():
    params = check(GOOD)
    assert str(params.folder) == "results/test"
    assert params.tracking_uri == "sqlite:///results/mlflow.db"
    assert params.attacks["mi_attribute"].level() == "BB-S"
    assert params.attacks["labels"].level() == "LO"
    assert params.attacks["labels"].method == "mi_attribute"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("scenarois", {}, ["unknown key 'scenarois'", "'scenarios'"]),
        ("scenarios.tree.modle", {"name": "tree"}, ["scenarios.tree", "'modle'", "'model'"]),
        ("scenarios.tree.track", "tabula", ["unknown track 'tabula'", "'tabular'"]),
        ("scenarios.tree.dataset", "dossing", ["unknown entry of datasets 'dossing'", "'dosing'"]),
        ("scenarios.tree.model", {"name": "treee"}, ["scenarios.tree", "treee", "tree"]),
        ("scenarios.tree.judges", "imputer", ["judges", "'imputers'"]),
        ("scenarios.tree.target_seeds", 2, ["scenarios.tree.target_seeds: 2 targets", "1 under `seeds`"]),
        ("datasets.dosing.source", "photos", ["scenarios.tree.dataset", "kind image", "tabular track attacks table"]),
        ("scenarios.tree.metrics", ["fsim"], ["scenarios.tree.metrics", "further metric 'fsim'"]),
        ("scenarios.tree.seeds", [], ["scenarios.tree.seeds"]),
        ("results", "{x}", ["results", "'{x}'"]),
        ("results", "--x", ["results", "'--x'"]),
        ("scenarios.tree.seeds", [1, 1], ["scenarios.tree.seeds"]),
        ("datasets.dosing", {"nois": 3}, ["datasets.dosing", "'nois'", "'noise'"]),
        ("attacks.mi_attribut", {}, ["attacks.mi_attribut", "'mi_attribute'"]),
        ("attacks.mi_attribute.params", {"acces": "LO"}, ["'acces'", "'access'"]),
        ("attacks.mi_attribute.priors", {"dcgan": "dcgan"}, ["attacks.mi_attribute.priors", "'dcgan'"]),
        ("attacks.mi_attribute.params", {"access": "BB"}, ["access 'BB'", "BB-S"]),
        ("attacks.mi_attribute.params", {"belief": 3}, ["attacks.mi_attribute.params.belief", "marginal"]),
        ("attacks.mi_attribute.scenarios", ["forest"], ["unknown scenario 'forest'", "tree"]),
        ("attacks.mi_attribute.defenses", ["rounding"], ["unknown defense 'rounding'", "confidence_rounding"]),
        ("defenses.confidence_rounding.strengths", [0, 0.1], ["strengths", "none of them 0"]),
        ("defenses.confidence_rounding.params", {"strength": 0.1}, ["under 'strengths'"]),
        ("datasets.both", {"private_from": "dosing"}, ["datasets.both", "private_from and public_from"]),
        ("datasets.both", {"private_from": "dosing", "public_from": "dosin"}, ["both.public_from", "'dosing'"]),
        ("resources.train_priors", {"gpu": 1}, ["resources", "'train_priors'", "'train_prior'"]),
        ("resources.attack", {"gpus": 1}, ["resources.attack", "'gpus'", "'gpu'"]),
        ("evaluators.imputers.options", {"sensitiv": "race"}, ["evaluators.imputers.options", "'sensitive'"]),
        ("defenses.confidence_roundin", {"strengths": [1]}, ["'confidence_rounding'"]),
    ],
)
def test_bad_parameters_name_the_place_and_what_is_allowed(path, value, says):
    with pytest.raises(UserError) as error:
        check(changed(path, value))
    for words in says:
        assert words in str(error.value)


def test_only_keeps_the_scenarios_it_names_and_what_entries_say_of_them():
    raw = changed("scenarios.other", {**GOOD["scenarios"]["tree"], "subjects": 100})
    raw["attacks"]["labels"] |= {"scenarios": ["other"], "settings": {"other": {"belief": "uniform"}}}
    params = check({**raw, "only": ["tree"]})
    assert list(params.scenarios) == ["tree"]
    assert params.attacks["labels"].scenarios == ()
    assert not params.attacks["labels"].settings
    with pytest.raises(UserError, match=r"only: unknown scenario 'tre'.*'tree'"):
        check({**raw, "only": ["tre"]})


def test_an_attack_gets_another_entry_for_a_prior_that_it_names():
    raw = read(ROOT / "params.yaml").raw
    raw = merge(raw, {"only": ["faces_cnn"], "priors": {"short": {"method": "dcgan"}}})
    attack = check(merge(raw, {"attacks": {"gmi": {"priors": {"dcgan": "short"}}}})).attacks["gmi"]
    assert attack.roles() == {"dcgan": "short"}
    assert attack.priors() == ("short",)
    with pytest.raises(UserError, match=r"gmi needs a prior.*'shrt'.*'short'"):
        check(merge(raw, {"attacks": {"gmi": {"priors": {"dcgan": "shrt"}}}}))
    with pytest.raises(UserError, match=r"attacks.gmi.priors: unknown prior of this attack 'dcgn'.*'dcgan'"):
        check(merge(raw, {"attacks": {"gmi": {"priors": {"dcgn": "short"}}}}))


def test_all_problems_are_reported_at_once():
    raw = changed("attacks.nonsense", {})
    raw["defenses"]["nonsense_too"] = {"strengths": [1]}
    with pytest.raises(UserError, match="nonsense") as error:
        check(raw)
    assert "nonsense_too" in str(error.value)


def test_a_key_that_stands_twice_is_an_error(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("scale: a\nscale: b\n")
    with pytest.raises(UserError, match="'scale' stands twice"):
        read(path)


def test_an_entry_may_take_over_another_and_change_one_thing(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert _yaml.read(path) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}


def test_overlay_merges_and_null_removes():
    merged = merge(GOOD, {"scale": "other", "attacks": {"labels": None}, "defenses": {"confidence_rounding": None}})
    params = check(merged)
    assert params.scale == "other"
    assert list(params.attacks) == ["mi_attribute"]
    assert not params.defenses


@pytest.mark.parametrize("scale", [None, *sorted(p.stem for p in (ROOT / "workflow/scales").glob("*.yaml"))])
def test_shipped_parameters_are_valid(scale):
    below = ["defenses"] if scale == "defenses_grid" else []  # an overlay on an overlay
    names = [*below, scale] if scale else []
    params = read(ROOT / "params.yaml", *(ROOT / f"workflow/scales/{name}.yaml" for name in names))
    assert params.scale == (scale or "laptop")
    assert params.scenarios


def test_scales_stack_in_the_order_given():
    scales = ROOT / "workflow/scales"
    path, first, second = ROOT / "params.yaml", scales / "defenses.yaml", scales / "defenses_grid.yaml"
    both = read(path, first, second)
    assert both.scale == "defenses_grid"
    assert both.attacks["pfgd_coefficients"].method == "inverting_gradients"  # from the first alone
    assert len(both.defenses["dgc"].strengths) > len(read(path, first).defenses["dgc"].strengths)


BOMB = "b0: &b0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]\n" for i in range(1, 9))  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, f"more than {NODES} values"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a: " + "9" * 5000, "limit"),
        ("no: 1", "the key False is no text"),
        ("? [a, b]\n: 1", "is no text|unhashable"),
        ("a: 2026-99-99", "month must be"),
        ("- a", "expected a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_files_that_are_no_parameters_are_one_line(text, says, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        read(path)


def test_what_is_no_text_file_is_said(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"scale: caf\xe9")
    for name, says in (("latin.yaml", "not UTF-8"), (".", "cannot be read"), ("x", "no such")):
        with pytest.raises(UserError, match=says):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["d$(touch x)", "a b", "", "..", "--help", "a/b", "{x}", "x" * 300, "a\n", "none"])
def test_names_that_a_shell_or_a_file_system_would_read(name):
    with pytest.raises(UserError, match=r"the name .*(allowed)|control characters|no text"):
        check(merge(GOOD, {"defenses": {name: {"method": "dgc", "strengths": [0.9]}}}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**30, 1e308])
def test_numbers_to_compute_with(value):
    with pytest.raises(UserError, match=r"defenses\.dgc\.strengths\[0\]"):
        check(merge(GOOD, {"defenses": {"dgc": {"strengths": [value]}}}))


def test_strengths_that_agree_in_six_digits_have_their_own_folders():
    from inversionbench.plan.cells import format_strength

    assert (
        len({format_strength(0.9999991), format_strength(0.9999992), format_strength(0.9999999), format_strength(1.0)})
        == 4
    )


def leaves(value, path=()):
    """(path, value) of everything in nested mappings and lists that is neither."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield from leaves(part, (*path, key))
    if not isinstance(value, (dict, list)):
        yield path, value


def replaced(raw, path, value):
    """The parameters with one leaf replaced."""
    out = at = copy.deepcopy(raw)
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return out


NUMBERS = [path for path, value in leaves(DEFAULT) if isinstance(value, (int, float)) and not isinstance(value, bool)]
NONSENSE = (-1, -0.5, 10**13, math.inf, math.nan, "x", True, None, [], {"a": 1})


@pytest.mark.parametrize("path", random.Random(0).sample(NUMBERS, 60), ids=lambda path: ".".join(map(str, path)))
def test_nonsense_in_place_of_a_number_is_one_line(path):
    for value in random.Random(str(path)).sample(NONSENSE, 3):
        with pytest.raises(UserError) as error:
            check(replaced(DEFAULT, path, value))
        said = str(error.value).splitlines()[1:]
        assert any(str(part) in said[0] for part in path if isinstance(part, str)), said


def test_evaluators_are_of_the_track_and_data_of_a_scenario():
    wrong = merge(DEFAULT, {"evaluators": {"faces_judges": {"dataset": "photos"}}})
    with pytest.raises(UserError, match=r"judges: 'faces_judges' is of dataset 'photos', the scenario of 'faces'"):
        check(wrong)
    with pytest.raises(UserError, match="is of track 'tabular'"):
        check(merge(DEFAULT, {"scenarios": {"faces_cnn": {"judges": "dosing_imputers"}}}))
