"""Metrics of reconstructed images: those of the survey, the perceptual distance of scenarios that name evaluators,
and what such evaluators may be."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from federated_cells import TRACK, data, scenario, target, through_a_file

from inversionbench.core.attack import Reconstruction
from inversionbench.core.errors import UserError
from inversionbench.metrics import pairwise
from inversionbench.survey import words
from inversionbench.tracks.federated.evaluate import _split

NAME = "lpips_like[small]"
BRIEF = {"epochs": 12, "rate": 5e-3, "batch": 8, "flip": True}
OPTIONS = {
    "first": {"model": {"name": "resnet", "width": 8}, "training": BRIEF},
    "second": {"model": {"name": "cnn", "width": 8}, "training": BRIEF},
}
PLAIN = scenario(subjects=3, batch_size=2)
JUDGED = replace(PLAIN, judges="small")


@functools.cache
def evaluator():
    return through_a_file(TRACK.train_evaluator(OPTIONS, photos(), 0, lambda items, **kwargs: items))


@functools.cache
def photos():
    """The small data set with its private images as evaluation part too: one crop a class trains nothing."""
    return replace(data(), evaluation=data().private)


@functools.cache
def made():
    return target(JUDGED)


def truth():
    index = made().truth["index"]
    return data().private.images(index.flatten().numpy()).unflatten(0, index.shape)


def judge(images, where=JUDGED, failed=None, state=None):
    answer = Reconstruction(images, labels=made().truth["labels"], failed=failed)
    return TRACK.evaluate(where, answer, made(), data(), evaluator() if state is None else state, 0)


def noisy(amount):
    x = truth()
    return (x + amount * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)


def test_identical_images_are_at_zero_in_any_order_and_less_alike_ones_further_away():
    assert (judge(truth().flip(1)).metrics[NAME] == 0).all()
    near, far = (judge(noisy(amount)) for amount in (0.02, 0.3))
    assert near.metrics[NAME].shape == near.metrics["psnr"].shape == near.groups.shape == (6,)
    assert (near.metrics[NAME] > 0).all()
    assert (near.metrics[NAME] < far.metrics[NAME]).all()
    controls = near.controls
    assert (controls["truth"][NAME] == 0).all()
    assert near.metrics[NAME].mean() < min(controls[c][NAME].mean() for c in ("mean_image", "random_image", "noise"))


def test_both_networks_are_on_record():
    facts = judge(noisy(0.1)).facts
    assert set(facts["evaluators"]) == {"resnet", "cnn"}
    assert min(facts["evaluators"].values()) > 0.2  # chance: 0.1
    assert facts["lpips_like_second"]["lpips_like[cnn]"] > 0


def test_a_failed_client_scores_as_noise():
    x = truth()
    x[0] = torch.nan
    done = judge(x, failed=torch.tensor([True, False, False]))
    assert (done.metrics[NAME][:2] > 0).all()
    assert (done.metrics[NAME][2:] == 0).all()


def test_without_judges_everything_else_is_the_same():
    x = noisy(0.1)
    bare, judged = judge(x, PLAIN, state={}), judge(x)
    assert NAME not in {*bare.metrics, *bare.unavailable, *bare.controls["truth"]}
    assert "evaluators" not in bare.facts
    for name, values in bare.metrics.items():
        assert (judged.metrics[name] == values).all(), name
    for control, scores in bare.controls.items():
        for name, values in scores.items():
            assert (judged.controls[control][name] == values).all(), (control, name)


def test_every_pairwise_metric_of_the_survey_or_the_reason_why_not():
    done = judge(noisy(0.05), replace(PLAIN, metrics=("fsim", "lpips")), state={})
    assert {"mse", "psnr", "ssim", "avd", "dssim", "iip", "fsim"} <= done.metrics.keys()
    assert all(np.isfinite(values).all() for values in done.metrics.values())
    assert "lpips" in done.metrics or "not found" in done.unavailable["lpips"]
    assert "rdlv" in done.metrics or "undefined for" in done.unavailable["rdlv"]
    assert done.metrics["iip"].tolist() == [1.0] * 6  # noise this small leaves every image the nearest to itself
    assert done.facts["metrics"]["iip_pool"] >= len(data().private)
    assert done.controls["noise"]["iip"].mean() < 0.5
    np.testing.assert_allclose(done.controls["mean_image"]["dssim"], 0, atol=1e-6)  # the image RDLV starts from


def test_a_metric_undefined_for_one_image_has_no_mean():
    scores = pairwise(truth().flatten(0, 1), noisy(0.1).flatten(0, 1), ("psnr", "ssim"))
    scores.values["ssim"][1] = np.nan
    metrics, missing = _split(scores)
    assert "ssim" not in metrics
    assert missing == {"ssim": "undefined for 1 of 6 images"}


def test_scenarios_of_labels_ignore_judges():
    where = replace(scenario(subjects=3, batch_size=2, labels="hidden", ask="labels"), judges="small")
    assert NAME not in judge(truth(), where).metrics


def test_the_direction_is_known_under_every_name():
    assert words.metric(NAME, "federated").direction == "lower"
    assert "lpips_like" in TRACK.metrics


@pytest.mark.parametrize(("options", "told"), [
    ({"second": {"model": {"name": "plain"}}}, "options.second.model.name: 'plain' has no ReLU stages"),
    ({"first": {"model": {"name": "cnn"}}}, "share their blind spots"),
    ({"attributes": {"people": 3}}, "unknown 'attributes'"),
    ({"frist": {}}, "did you mean 'first'"),
    ({"first": {"training": {"epoch": 3}}}, "unknown setting 'epoch'"),
])
def test_options_that_make_no_evaluator(options, told):
    with pytest.raises(UserError, match=told):
        TRACK.check_evaluator(options)


def test_options_have_defaults():
    TRACK.check_evaluator({})
    TRACK.check_evaluator({"attributes": None, "second": {"training": {"epochs": 1}}})


def test_evaluators_of_something_else_are_refused():
    with pytest.raises(UserError, match=r"evaluators.small: trained on images \(1, 8, 8\)"):
        judge(truth(), state={**evaluator(), "shape": [1, 8, 8]})
    with pytest.raises(UserError, match=r"evaluators\.small: holds no classifiers"):
        judge(truth(), state={"sensitive": "age"})
