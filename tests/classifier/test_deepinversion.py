"""DeepInversion: what the stored statistics of batch normalisation are worth, and when they cannot be read."""

from __future__ import annotations

import pytest
import torch
from classifier_cells import data, generator, knowledge, oracle, scores, target
from torch import nn

from inversionbench.core.errors import AccessDenied
from inversionbench.latent.statistics import NormStatistics, norms_of
from inversionbench.models.classifiers import build
from inversionbench.oracle.base import InputSpec
from inversionbench.oracle.classifier import classifier_oracle
from inversionbench.tracks.classifier.attacks.deepinversion import DeepInversion, variation
from inversionbench.tracks.classifier.track import network

SETTING = {"iterations": 150, "restarts": 4, "others": 0, "tv": 0.0, "jitter": 0, "clamp": True}


def answer(weight):
    """The reconstruction at one weight of the statistics."""
    attack = DeepInversion(statistics=weight, **SETTING)
    return attack.run(oracle(attack), knowledge(), generator())


def statistics_of(images):
    """R_BN of images as one batch."""
    net = network(target().released)
    watch = NormStatistics(net)
    with torch.no_grad():
        net(images)
    return watch.take().item()


def test_the_loss_brings_a_batch_nearer_to_the_stored_statistics():
    """R_BN of the answer: 0.6 with the term, 49 without. Without `clamp` the clipping of the answer undoes it."""
    assert statistics_of(answer(1.0).data) < 0.1 * statistics_of(answer(0.0).data)


def test_without_statistics_only_the_target_is_convinced():
    """Card check 3: it is as sure as can be, and the judges see noise."""
    blind = answer(0.0)
    seen = scores(blind.data, blind.labels)
    assert seen["target_top1"] == 1.0
    assert seen["top1"] < 0.5


def test_the_statistics_are_those_of_the_inputs_of_each_layer():
    """Against mean and biased variance written out, on a network whose layers can be reached by hand."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.BatchNorm1d(48)).eval()
    for norm in norms_of(net):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(5, 3, 4, 4)
    h = net[0](x).flatten(1)
    watch = NormStatistics(net, first=10.0)
    net(x)
    expected = 10 * (x.mean((0, 2, 3)) - net[0].running_mean).norm()
    expected += 10 * (x.var((0, 2, 3), unbiased=False) - net[0].running_var).norm()
    expected += (h.mean(0) - net[2].running_mean).norm() + (h.var(0, unbiased=False) - net[2].running_var).norm()
    assert watch.take().item() == pytest.approx(expected.item(), rel=1e-5)
    watch.close()
    net(x)
    assert watch.seen == []


def test_the_running_statistics_of_the_target_do_not_move():
    made = network(target().released)
    before = [n.running_mean.clone() for n in norms_of(made)]
    assert before
    attack = DeepInversion(iterations=2, restarts=1)
    box = classifier_oracle(made, "WB", InputSpec(data().shape), data().classes).module()
    watch = NormStatistics(box)
    attack.dream(box, watch, torch.arange(4), data().shape, generator())
    assert all(torch.equal(a, n.running_mean) for a, n in zip(before, norms_of(box), strict=True))


def test_hidden_or_missing_statistics_are_refused_and_the_variant_without_runs():
    attack = DeepInversion(access="WB-noBN", iterations=2, restarts=1)
    with pytest.raises(AccessDenied, match="running statistics"):
        attack.run(oracle(attack), knowledge(), generator())
    bare = classifier_oracle(build({"name": "softmax"}, data().shape, data().classes), "WB",
                             InputSpec(data().shape), data().classes)  # fmt: skip
    with pytest.raises(AccessDenied, match="running statistics"):
        DeepInversion(iterations=2, restarts=1).run(bare, knowledge(), generator())
    attack = DeepInversion(access="WB-noBN", statistics=0.0, iterations=2, restarts=1)
    assert len(attack.run(oracle(attack), knowledge(), generator()).data) == len(knowledge().targets)


def test_batches_are_balanced_paid_for_and_repeatable():
    targets, classes = knowledge().targets, data().classes
    attack = DeepInversion(iterations=3, coarse=2, restarts=2, others=1, batch=9, flip=True, clamp=True,
                           l2=1e-5, schedule="cosine", warm_up=1, keep_at=(2,))  # fmt: skip
    asked = oracle(attack)
    made = attack.run(asked, knowledge(), generator())
    assert asked.ledger.passes == (3 + 2) * (2 * len(targets) + classes - len(targets))
    assert made.labels.tolist() == targets.repeat_interleave(2).tolist()
    assert [budget for budget, _ in made.checkpoints] == [6, 8]  # 4 and 5 steps of 18 rows for 12 answers
    assert torch.equal(made.checkpoints[-1][1], made.data)
    assert torch.equal(attack.run(oracle(attack), knowledge(), generator()).data, made.data)
    assert not torch.equal(attack.run(oracle(attack), knowledge(), generator(1)).data, made.data)
    assert made.data.min() >= 0
    assert made.data.max() <= 1


def test_an_even_image_has_no_variation():
    assert variation(torch.ones(2, 3, 4, 4)) == 0
