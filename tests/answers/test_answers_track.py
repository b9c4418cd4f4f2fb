"""The answers track: what each level grants, what is counted, explanations, how an answer is judged."""

from __future__ import annotations

import pytest
import torch
from answers_cells import KINDS, NOISE, TRACK, answer, data, generator, judged, knowledge, oracle, scenario, target

from inversionbench.core.defense import NONE
from inversionbench.core.errors import AccessDenied, BudgetExceeded, UserError
from inversionbench.defenses.miscellaneous.confidence_rounding import ConfidenceRounding
from inversionbench.models.classifiers import build, freeze
from inversionbench.models.explain import explain, gradient, lrp
from inversionbench.oracle.answers import explained
from inversionbench.oracle.strict import black_box, served
from inversionbench.tracks.answers.attacks.smi import Smi
from inversionbench.tracks.answers.service import network

PIXEL = {"adversarial": 0.0, "supervision": 0.0}

@pytest.mark.parametrize(("changes", "says"), [
    ({"model": {"name": "cn"}}, "did you mean 'cnn'"),
    ({"protocol": {"explanation": ["lrp"]}}, "did you mean 'explanations'"),
    ({"protocol": {"explanations": ["lrpp"]}}, "did you mean 'lrp'"),
    ({"protocol": {"explanations": "lrp"}}, "protocol.explanations: expected a list"),
    ({"model": {"name": "mlp"}}, "protocol.explanations: 'gradcam' reads the layers"),
    ({"protocol": {"attacked": 0}}, "protocol.attacked: expected a whole number of at least 1"),
    ({"subjects": 1}, "at least 2 victims"),
    ({"training": {"epoch": 3}}, "did you mean 'epochs'"),
])  # fmt: skip
def test_a_wrong_scenario_is_one_line(changes, says):
    with pytest.raises(UserError, match=says):
        TRACK.check(scenario(**changes))


@pytest.mark.parametrize(("level", "refused"), [
    ("AN-S", ("explain", "undefended", "module", "labels")), ("AN-EX", ("undefended", "logits")),
    ("AN-OLD", ("scores", "explain")),
])  # fmt: skip
def test_what_a_level_does_not_grant(level, refused):
    asked = oracle(level)
    for call in refused:
        with pytest.raises(AccessDenied):
            getattr(asked, call)
    if level != "AN-EX":
        with pytest.raises(AccessDenied, match="observes scores"):
            asked.observe(kind="gradient")


def test_only_explanations_that_the_service_gives():
    asked = oracle("AN-EX")
    for kind in ("logits", "saliency"):
        with pytest.raises(AccessDenied, match="the service gives gradient, gradient_x_input, gradcam, lrp"):
            asked.explain(data().public.images(slice(2)), kind=kind)
        with pytest.raises(AccessDenied):
            asked.observe(kind=kind)


def test_questions_are_counted_and_limited():
    x = data().public.images(slice(4))
    asked = oracle("AN-EX", budget=9)
    asked.scores(x)
    asked.explain(x, kind="gradcam")
    rows = [(row.call, row.inputs, row.cumulative) for row in asked.ledger.rows]
    assert rows == [("scores", 4, 4), ("explain", 4, 8)]
    with pytest.raises(BudgetExceeded):
        asked.scores(x)
    every = oracle("AN-EX", every_class=True)
    assert every.explain(x, kind="gradcam").shape == (4, 10, 16, 16)
    assert every.ledger.queries == 4 * 10
    assert answer(**PIXEL)[1].by_phase() == {"train": len(data().public)}  # each public image once, no victim


@pytest.mark.parametrize("level", ["AN-S", "AN-EX", "AN-OLD"])
def test_the_service_answers_from_another_process(level):
    """Same bits, same ledger, same refusals."""
    rounding, x = ConfidenceRounding(0.1), data().public.images(slice(5))
    inside = oracle(level, rounding)

    def everything(asked):
        out = [asked.observe()]
        out += [asked.scores(x)] if level != "AN-OLD" else [asked.undefended(x)]
        return out + ([asked.explain(x, kind="lrp"), asked.observe(kind="lrp")] if level == "AN-EX" else [])

    assert black_box(level)
    with served(lambda: oracle(level, rounding)) as outside:
        assert all(torch.equal(a, b) for a, b in zip(everything(outside), everything(inside), strict=True))
        assert outside.ledger.rows == inside.ledger.rows
        with pytest.raises(AccessDenied):
            outside.explain(x, kind="none") if level == "AN-EX" else outside.observe(kind="lrp")


def test_the_release_acts_on_victims_and_questions_alike():
    rounding, x = ConfidenceRounding(0.1), data().public.images(slice(5))
    asked = oracle("AN-S", rounding)
    assert torch.equal(asked.observe(), rounding.release(target().released["observed"]["logits"], generator()))
    assert torch.equal(asked.scores(x), rounding.release(network(target().released)(x), generator()))
    assert torch.equal(oracle("AN-OLD", rounding).undefended(x), oracle().scores(x))


def test_a_target_that_a_defense_learnt_from_is_the_undefended_one():
    for name, value in target().released["state"].items():
        assert torch.equal(target(NOISE).released["state"][name], value), name
    assert set(target(NOISE).released["defense"]["params"]["learned"]) == {"shape", "state"}


def test_victims_are_of_the_attacked_classes():
    own = TRACK.train_target(scenario(protocol={"attacked": 3}, training={"epochs": 1}), NONE, data(), 0,
                             lambda items, **_: items)  # fmt: skip
    rows = own.truth["rows"]
    assert set(data().heldout.labels(rows.numpy()).tolist()) == {0, 1, 2}
    assert len(set(rows.tolist())) == scenario().subjects


def test_an_answer_is_judged_against_the_very_input():
    found, images = judged(**PIXEL), answer(**PIXEL)[0].data
    truth = data().heldout.images(target().truth["rows"].numpy())
    mse = (images - truth).square().flatten(1).mean(1)
    assert found.metrics["mse"] == pytest.approx(mse.numpy(), rel=1e-4)
    assert found.controls.keys() >= {"mean_image", "class_mean", "swapped", "other_victim", "truth"}
    assert (found.controls["truth"]["psnr"] == 60).all()
    assert "identified" in found.unavailable


def test_labels_that_the_public_images_do_not_have():
    import dataclasses

    import numpy as np

    nameless = dataclasses.replace(data().public, y=np.full(len(data().public), -1))
    with pytest.raises(AccessDenied, match="do not say whom"):
        Smi(labels="true").run(oracle(), knowledge(public=nameless), generator())
    with pytest.raises(AccessDenied, match="0 public images of the kind 'same'"):
        Smi(auxiliary="same").run(oracle(), knowledge(public=nameless), generator())


# ---- explanations


@pytest.mark.parametrize("kind", KINDS)
def test_explanations_are_maps_in_their_range(kind):
    net, x = network(target().released), data().heldout.images(slice(6))
    maps = explained(net, x, kind, False)
    assert maps.shape == (6, 1 if kind == "gradcam" else 3, 16, 16)
    assert not maps.requires_grad
    largest = maps.abs().flatten(1).amax(1)
    assert ((largest - 1).abs() < 1e-5).sum() >= 4  # Grad-CAM finds nothing for some
    assert largest.max() < 1 + 1e-5
    every = explained(net, x, kind, True)
    own = every.unflatten(1, (10, -1))[torch.arange(6), net(x).argmax(1)]
    assert torch.allclose(own, maps, atol=1e-5)
    if kind == "gradcam":
        assert maps.min() >= 0


def test_the_gradient_is_the_slope_of_the_logit():
    net = freeze(build({"name": "mlp", "hidden": 12}, (1, 4, 4), 3)).double()
    x, c = torch.rand(2, 1, 4, 4, generator=generator()).double(), torch.tensor([2, 0])
    step = torch.zeros_like(x)
    step[:, 0, 1, 2] = 1e-6
    slope = (net(x + step) - net(x - step))[torch.arange(2), c] / 2e-6
    assert gradient(net, x, c)[:, 0, 1, 2].numpy() == pytest.approx(slope.numpy(), rel=1e-4)
    ratio = explain(net, x, "gradient_x_input", c[:, None]) / (x * gradient(net, x, c))[:, None]
    assert ratio.flatten(1).std(1).max() < 1e-6 * ratio.abs().max()


@pytest.mark.parametrize("model", [{"name": "cnn", "width": 4}, {"name": "plain", "width": 4}, {"name": "mlp"},
                                   {"name": "resnet", "width": 4}])  # fmt: skip
def test_relevance_is_conserved(model):
    """The relevances of an image sum to the logit that they explain; residual blocks mix signs."""
    torch.manual_seed(0)
    net = freeze(build(model, (3, 16, 16), 5))
    x, c = torch.rand(4, 3, 16, 16, generator=generator()), torch.tensor([0, 1, 2, 3])
    sums, logits = lrp(net, x, c).flatten(1).sum(1), net(x)[torch.arange(4), c]
    if model["name"] != "resnet":
        assert sums.numpy() == pytest.approx(logits.numpy(), rel=0.1)
    assert torch.isfinite(sums).all()
