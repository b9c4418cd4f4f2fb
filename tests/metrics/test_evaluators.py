"""Attack accuracy, KNN and feature distance: hand cases, anchors, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inversionbench.core.errors import UserError
from inversionbench.metrics import Unavailable, wilson
from inversionbench.metrics.attack_accuracy import agreement, attack_accuracy, hits, interval_over_classes
from inversionbench.metrics.feature_distance import cosine, cosine_threshold, feature_distance, paired
from inversionbench.metrics.knn_distance import knn_distance, normalised

LOGITS = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]])


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_accuracy_hand_case():
    assert hits(LOGITS, [2, 0]).tolist() == [False, True]
    assert hits(LOGITS, [2, 0], k=2).tolist() == [True, True]
    score = attack_accuracy(LOGITS, [2, 0])
    assert score.top1 == 0.5
    assert "10 classes or fewer" in score.top5.reason
    assert isinstance(score.both, Unavailable)
    assert score.chance == pytest.approx(1 / 3)


def test_accuracy_agrees_with_torchmetrics():
    from torchmetrics.functional.classification import multiclass_accuracy

    logits, target = normal(300, 20), torch.arange(300) % 20
    logits[torch.arange(300), target] += 1.0
    score = attack_accuracy(logits, target)
    for value, k in ((score.top1, 1), (score.top5, 5)):
        theirs = multiclass_accuracy(logits, target, num_classes=20, top_k=k, average="micro")
        assert value == pytest.approx(theirs.item())
    assert 0.1 < score.top1 < score.top5 < 1


def test_random_outputs_are_at_chance():
    score = attack_accuracy(normal(4000, 20), torch.arange(4000) % 20)
    assert score.top1 == pytest.approx(1 / 20, abs=0.015)
    assert score.top5 == pytest.approx(5 / 20, abs=0.03)


def test_a_constant_output_recognises_nothing():
    assert attack_accuracy(torch.zeros(12, 12), torch.arange(12)).top1 == 0


def test_two_evaluators_must_agree():
    target = torch.arange(12)
    first, second = torch.eye(12), torch.eye(12)
    first[:3], second[2:6] = 0.5, 0.5
    score = attack_accuracy(first, target, second)
    assert score.top1 == 9 / 12
    assert score.second == 8 / 12
    assert score.both == 6 / 12 == agreement(first, second, target).double().mean()
    assert (score.low, score.high) == pytest.approx(wilson(6, 12))


def test_the_interval_counts_classes_not_restarts():
    target = torch.arange(10).repeat_interleave(50)
    hit = target < 4
    assert interval_over_classes(hit, target) == pytest.approx(wilson(4, 10))


@pytest.mark.parametrize(
    ("logits", "target", "k", "words"),
    [
        (LOGITS, [3, 0], 1, "0..2"),
        (LOGITS, [-1, 0], 1, "0..2"),
        (LOGITS, [0], 1, "2 integers"),
        (LOGITS, [0, 1], 4, "k must lie in 1..3"),
        (LOGITS * float("nan"), [0, 1], 1, "NaN"),
        (LOGITS[0], [0], 1, r"\(n, d\)"),
        (LOGITS, [0.0, 1.0], 1, "integers"),
    ],
)
def test_accuracy_refuses(logits, target, k, words):
    with pytest.raises(UserError, match=words):
        hits(logits, target, k)


def test_knn_is_restricted_to_the_class_and_squared():
    private, classes = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]), [0, 0, 1]
    assert knn_distance(torch.zeros(2, 2), [0, 1], private, classes).tolist() == [1.0, 0.0]
    assert knn_distance(private[:1], [0], private, classes).item() == 0


def test_knn_against_a_loop():
    f, p = normal(20, 5), normal(40, 5, seed=1)
    own, theirs = torch.arange(20) % 3, torch.arange(40) % 4
    expected = [min(((x - t) ** 2).sum().item() for t, c in zip(p, theirs) if c == y) for x, y in zip(f, own)]
    np.testing.assert_allclose(knn_distance(f, own, p, theirs), expected, rtol=1e-5)


def test_knn_normalised_between_its_anchors():
    assert normalised([2.0, 6.0], same=2.0, other=6.0).tolist() == [0.0, 1.0]
    assert normalised([2.0, 3.0], same=3.0, other=3.0).isnan().all()  # no scale, and no error of a finished attack
    assert normalised([2.0], same=3.0, other=2.0).isnan().all()


def test_one_private_image_per_class_makes_both_distances_equal():
    private, f = normal(6, 4), normal(12, 4, seed=1)
    own, classes = torch.arange(12) % 6, torch.arange(6)
    np.testing.assert_allclose(feature_distance(f, own, private, classes), knn_distance(f, own, private, classes))


def test_a_centroid_wins_the_class_form_but_not_knn():
    """The known weakness: the blurry mean beats a real image by centroid distance."""
    private = normal(50, 8)
    mean, real = private.mean(0, keepdim=True), private[:1]
    classes = torch.zeros(50, dtype=torch.long)
    both = torch.cat([mean, real])
    centroid, nearest = (d(both, [0, 0], private, classes) for d in (feature_distance, knn_distance))
    assert centroid[0] < centroid[1]
    assert nearest[0] > nearest[1] == 0


def test_paired_and_cosine_forms():
    x = normal(5, 7)
    assert torch.equal(paired(x, x), torch.zeros(5, dtype=torch.float64))
    np.testing.assert_allclose(cosine(x, 3 * x), 0, atol=1e-12)
    np.testing.assert_allclose(cosine(x, -x), 2)
    assert paired(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)).item() == 12.5
    with pytest.raises(UserError, match="one shape"):
        paired(x, x[:2])


def test_cosine_threshold_has_the_asked_rate_on_fresh_pairs():
    people = torch.arange(120) // 3
    threshold = cosine_threshold(normal(120, 6), people, rate=0.05)
    fresh = cosine(normal(20_000, 6, seed=1), normal(20_000, 6, seed=2))
    assert (fresh <= threshold).double().mean().item() == pytest.approx(0.05, abs=0.015)
    with pytest.raises(UserError, match="at least 1000 are needed"):
        cosine_threshold(normal(10, 6), people[:10])


@pytest.mark.parametrize("distance", [knn_distance, feature_distance])
def test_distances_refuse(distance):
    with pytest.raises(UserError, match=r"no private images of classes \[2\]"):
        distance(normal(2, 3), [0, 2], normal(2, 3), [0, 1])
    with pytest.raises(UserError, match="one width, got 3 and 4"):
        distance(normal(2, 3), [0, 1], normal(2, 4), [0, 1])
