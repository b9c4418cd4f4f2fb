"""Judging: controls bound the metrics, failures count, attribute recovery is a scale from chance to the person."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from classifier_cells import (
    JUDGES,
    PEOPLE,
    SUBJECTS,
    TRACK,
    data,
    evaluators,
    generator,
    judges,
    quiet,
    scenario,
    target,
)

from inversionbench.core.attack import Reconstruction
from inversionbench.core.errors import UserError
from inversionbench.core.scenario import Target
from inversionbench.tracks.classifier.evaluate import attribute_recovery, refer, score, weakness
from inversionbench.tracks.classifier.track import network
from inversionbench.training.evaluator_options import check_options
from inversionbench.training.evaluators import Judges, outputs

Y = torch.arange(SUBJECTS).repeat_interleave(3)


def evaluated(images, y=Y, **more):
    answer = Reconstruction(images, y, **more)
    return TRACK.evaluate(scenario(), answer, target(), data(), TRACK.load_evaluator(evaluators()), 3)


@pytest.fixture(scope="module")
def truth():
    """Held-out photographs handed in as reconstructions."""
    labels = data().heldout.labels()
    rows = torch.cat([(labels == c).nonzero()[:3, 0] for c in range(SUBJECTS)])
    return evaluated(data().heldout.images(rows.numpy()))


def test_every_metric_has_a_value_per_image_and_a_direction(truth):
    of_classes = set(TRACK.metrics) - {"label_recovery", "hole_psnr"}  # those of damaged photographs
    of_classes -= {"people"}  # what people answered in a blind test
    of_classes = {name for name in of_classes if not name.startswith("dlib")}  # no judge of drawings
    assert set(truth.metrics) == of_classes
    for name, values in truth.metrics.items():
        assert values.shape == (len(Y),), name
        assert np.isfinite(values).all(), name
    assert truth.groups.tolist() == Y.tolist()
    assert truth.unavailable == {}
    for control in ("private_heldout", "random_public", "mean_public", "noise", "other_person"):
        assert set(truth.controls[control]) == of_classes
        assert len(truth.controls[control]["top1"]) == 4 * SUBJECTS


def test_the_truth_is_the_ceiling_and_what_knows_nothing_the_floor(truth):
    mean = {control: {m: v.mean() for m, v in values.items()} for control, values in truth.controls.items()}
    best = mean["private_heldout"]
    assert best["agreement"] > 0.6
    for control in ("random_public", "mean_public", "noise", "other_person"):
        assert mean[control]["agreement"] < 0.3
        assert mean[control]["knn_distance"] > best["knn_distance"]
        assert mean[control]["attribute_recovery"] < best["attribute_recovery"] - 0.2
    assert best["attribute_recovery"] > 0.3
    assert truth.metrics["agreement"].mean() > 0.6
    assert truth.facts["chance"] == 1 / PEOPLE
    anchors = truth.facts["knn_anchors"]  # the scale of the distance: another photograph, another person
    assert anchors["same_person"] < 0.5 * anchors["other_person"]
    parts = truth.facts["knn_parts"]  # photographs have features as long as photographs, and point their way
    assert 0.8 < parts["length"] < 1.2
    assert parts["cosine"] > 0.9


def test_the_spread_tells_many_photographs_from_one_repeated(truth):
    labels = data().heldout.labels()
    rows = [(labels == c).nonzero()[:8, 0] for c in range(SUBJECTS)]
    y = torch.arange(SUBJECTS).repeat_interleave(8)
    many, one = (
        evaluated(data().heldout.images(torch.cat(chosen).numpy()), y).facts["prdc"]
        for chosen in (rows, [r[:1].expand(8) for r in rows])
    )
    assert many["classes"] == SUBJECTS
    assert many["coverage"] > 2 * one["coverage"]
    assert "more than 3 images" in truth.facts["prdc"]["unavailable"]  # 3 of each person are too few


def test_agreement_needs_both(truth):
    both = truth.metrics["agreement"]
    assert (both == truth.metrics["top1"] * truth.metrics["second"]).all()
    assert (truth.metrics["top5"] >= truth.metrics["top1"]).all()


def test_a_private_image_has_distance_zero_to_the_nearest():
    labels = data().private.labels()
    rows = torch.cat([(labels == c).nonzero()[:3, 0] for c in range(SUBJECTS)])
    x = data().private.images(rows.numpy())
    done = evaluated(x)
    assert done.metrics["knn_distance"].max() < 1e-6
    assert torch.equal(done.gallery["reconstruction"], done.gallery["nearest"])
    assert done.gallery["original"].shape == (SUBJECTS, *data().shape)


def test_failures_count_and_are_never_dropped():
    labels = data().heldout.labels()
    rows = torch.cat([(labels == c).nonzero()[:3, 0] for c in range(SUBJECTS)])
    x = data().heldout.images(rows.numpy())
    whole = evaluated(x)
    x = x.clone()
    x[1, 0, 0, 0] = torch.nan
    failed = torch.zeros(len(Y), dtype=torch.bool)
    failed[0] = True
    done = evaluated(x, failed=failed, checkpoints=[(5, x), (9, x)])
    assert done.facts["failures"] == 2
    assert done.gallery["unstarted"].tolist() == [1.0] + [0.0] * (SUBJECTS - 1)
    for name in ("agreement", "top1", "top5", "target_top1"):
        assert done.metrics[name][:2].tolist() == [0, 0]
        assert (done.metrics[name][2:] == whole.metrics[name][2:]).all()
    assert (done.metrics["knn_distance"][:2] > 2 * whole.metrics["knn_distance"][:2]).all()
    assert [budget for budget, _ in done.curves["agreement"]] == [5, 9]
    assert (done.curves["top1"][0][1] == done.metrics["top1"]).all()
    assert "target_top1" not in done.curves
    for control, values in whole.controls.items():  # the same ones, whatever the attack handed in
        assert all((values[name] == done.controls[control][name]).all() for name in values), control


def test_attribute_recovery_is_zero_for_what_knows_nothing_on_average():
    """For one and the same reading, the mean over people is near 0, whatever the reading; the truth scores 1."""
    people = torch.randn(40, 6, generator=generator())
    weights = torch.tensor([1.0, 0.5, 0.0, 0.2, 1.0, 0.7])
    everyone = torch.arange(40)
    for reading in (torch.zeros(6), 2 * torch.ones(6), 100 * torch.ones(6)):
        got = attribute_recovery(reading.expand(40, -1), everyone, people, weights)
        assert abs(got.mean()) < 0.06
    assert torch.allclose(attribute_recovery(people, everyone, people, weights), torch.ones(40, dtype=torch.float64))
    half = attribute_recovery(people * 0.5, everyone, people, weights)
    assert 0.3 < half.mean() < 1
    blind = people.clone()
    blind[:, 2] = 50  # an attribute that the reader cannot read has no weight
    assert torch.allclose(attribute_recovery(blind, everyone, people, weights), torch.ones(40, dtype=torch.float64))


def test_an_evaluator_that_knows_no_more_than_the_target_is_marked_and_stops_nothing():
    """The first evaluator is right everywhere, the second where the target is: one more accurate, one tied."""
    own = outputs(network(target().released), data().heldout.images()).argmax(1) == data().heldout.labels()
    told = [torch.ones_like(own), own]
    state = {**evaluators(), "judges": [{**j, "hits": h} for j, h in zip(evaluators()["judges"], told, strict=True)]}
    answer = Reconstruction(data().heldout.images(slice(0, len(Y))), Y)
    done = TRACK.evaluate(scenario(), answer, target(), data(), TRACK.load_evaluator(state), 3)
    start = "evaluator plain is not shown to be more accurate than the target of tiny without defense"
    said = next(warning for warning in done.facts["warnings"] if warning.startswith(start))
    right = f"{own.double().mean():.4f}"
    assert f"{right} against {right} of {len(own)} held-out photographs, difference +0.0 points [0.0, 0.0]" in said


def test_evaluators_are_compared_photograph_by_photograph():
    """Ten of 1,000 photographs more: shown where they are the only ones that differ, not where two nets err apart."""
    target = np.r_[np.zeros(100), np.ones(900)]
    nested = np.r_[np.zeros(90), np.ones(910)]
    apart = nested[::-1].copy()
    assert weakness("plain", nested, target, "faces") == ""
    assert "not shown to be more accurate" in weakness("plain", apart, target, "faces")
    assert "is less accurate than the target of faces" in weakness("plain", target, nested, "faces")


def test_without_known_attributes_the_score_is_unavailable_with_its_reason():
    state = {k: v for k, v in evaluators().items() if k != "attributes"}
    answer = Reconstruction(data().heldout.images(slice(0, len(Y))), Y)
    done = TRACK.evaluate(scenario(), answer, target(), data(), TRACK.load_evaluator(state), 3)
    assert "attribute_recovery" not in done.metrics
    assert "no known attributes" in done.unavailable["attribute_recovery"]


def test_scores_do_not_depend_on_company():
    x = data().heldout.images(slice(0, 8))
    y = data().heldout.labels(slice(0, 8))
    reference = refer(judges(), data().private)
    together, alone = score(judges(), reference, x, y), score(judges(), reference, x[:1], y[:1])
    for name, values in alone.values.items():
        assert values[0] == pytest.approx(together.values[name][0], rel=1e-4)


def test_judges_are_trained_well_and_reproducibly():
    """Both recognise held-out photographs; the reader reads colours; the same seed gives the same weights."""
    state = evaluators()
    assert all(accuracy > 0.7 for accuracy in Judges(state).accuracies)
    reader = dict(zip(state["attributes"]["names"], state["attributes"]["r2"].tolist(), strict=True))
    assert reader["skin"] > 0.4
    assert 0 <= min(reader.values()) <= max(reader.values()) <= 1
    again = TRACK.train_evaluator({**JUDGES, "attributes": None}, data(), 1, quiet)
    assert "attributes" not in again
    for one, two in zip(state["judges"], again["judges"], strict=True):
        assert all(torch.equal(one["state"][k], two["state"][k]) for k in one["state"])
    assert Judges(state).accuracies == [j["hits"].double().mean().item() for j in state["judges"]]


def test_evaluator_options_are_checked():
    assert check_options({})["first"]["model"]["name"] == "resnet"
    for wrong, words in (
        ({"frist": {}}, "did you mean 'first'"),
        ({"first": {"modle": {}}}, "did you mean 'model'"),
        ({"first": {"model": {"name": "plain"}}}, "two judges of one architecture"),
        ({"second": None}, "both evaluators are needed"),
        ({"second": {"training": {"epochs": "many"}}}, "expected a whole number"),
    ):
        with pytest.raises(UserError, match=words):
            check_options(wrong)


# ---- the track


def test_the_track_checks_a_scenario_without_torch():
    TRACK.check(scenario())
    for wrong, words in (
        ({"model": {"name": "cnm"}}, "did you mean 'cnn'"),
        ({"training": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"protocol": {"buget": 3}}, "did you mean 'budget'"),
        ({"protocol": {"top_k": 0}}, "positive whole number"),
        ({"protocol": {"budget": True}}, "positive whole number"),
    ):
        with pytest.raises(UserError, match=words):
            TRACK.check(scenario(**wrong))
    import subprocess
    import sys

    code = "import sys, inversionbench.tracks.classifier.track as c; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_a_target_is_plain_tensors_and_comes_back_the_same(tmp_path):
    torch.save(target().released, tmp_path / "t.pt")
    released = torch.load(tmp_path / "t.pt", weights_only=True)
    x = data().heldout.images(slice(0, 3))
    assert torch.equal(network(released)(x), network(target().released)(x))
    assert target().truth == {}
    assert TRACK.utility_of(scenario(), Target(released, {}, {"train_accuracy": 0.5}),
                            _none(), data(), 0)["train_accuracy"] == 0.5
    torch.save(evaluators(), tmp_path / "e.pt")
    assert torch.load(tmp_path / "e.pt", weights_only=True)["classes"] == PEOPLE


def _none():
    from inversionbench.core.defense import NONE

    return NONE
