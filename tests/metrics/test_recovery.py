"""Labels, text, rows, attributes, queries: the hand cases of their definitions, and blind baselines."""

from __future__ import annotations

import random

import numpy as np
import pytest

from inversionbench.core.errors import UserError
from inversionbench.metrics import Unavailable
from inversionbench.metrics.attribute_inference import attribute_inference
from inversionbench.metrics.auroc_gap import auroc_gap
from inversionbench.metrics.label_recovery import blind_overlap, label_recovery
from inversionbench.metrics.tabular_recovery import marginal_rows, tabular_recovery
from inversionbench.metrics.text_recovery import (
    bag_overlap,
    edit_distance,
    rouge_l,
    rouge_n,
    text_recovery,
    token_accuracy,
    words,
)

# labels


def test_labels_are_compared_as_counts():
    score = label_recovery([0, 1, 1, 3], [0, 0, 1, 2], classes=10)
    assert (score.overlap, score.exact) == (0.5, 0.0)
    assert score.existence == pytest.approx((2 / 3 + 6 / 7) / 2)
    shuffled = label_recovery([2, 0, 1, 0], [0, 0, 1, 2], classes=10)
    assert (shuffled.overlap, shuffled.exact, shuffled.existence) == (1, 1, 1)
    assert isinstance(label_recovery([0, 1], [0, 1], classes=2).existence, Unavailable)


def test_a_blind_guess_of_a_large_batch_scores_high():
    rng, prior = np.random.default_rng(0), np.full(10, 0.1)
    assert blind_overlap([4], prior, rng, draws=5000) == pytest.approx(0.1, abs=0.015)
    assert blind_overlap(np.arange(1000) % 10, prior, rng) > 0.9


@pytest.mark.parametrize(("guess", "truth"), [([0], [0, 1]), ([3], [0]), ([], []), ([0.5], [0])])
def test_labels_refuse(guess, truth):
    with pytest.raises(UserError, match="label_recovery"):
        label_recovery(guess, truth, classes=3)


# text

CAT, DOWN = ["the", "cat", "sat"], ["the", "cat", "sat", "down"]


def test_text_hand_cases():
    assert token_accuracy(CAT, DOWN) == 0.75
    assert rouge_n(CAT, DOWN, 1) == pytest.approx(6 / 7)
    assert rouge_n(CAT, DOWN, 2) == pytest.approx(0.8)
    assert rouge_l(CAT, DOWN) == pytest.approx(6 / 7)
    assert edit_distance("kitten", "sitting") == 3
    back = DOWN[::-1]
    assert bag_overlap(back, DOWN) == rouge_n(back, DOWN, 1) == 1
    assert rouge_n(back, DOWN, 2) == 0


def test_rouge_and_edit_distance_agree_with_torchmetrics():
    from torchmetrics.functional.text import edit_distance as their_edits
    from torchmetrics.functional.text import rouge_score

    draw = random.Random(0)
    for _ in range(25):
        a, b = (" ".join(draw.choices(["A", "cat,", "sat", "on", "it's", "7"], k=draw.randint(1, 8))) for _ in "ab")
        theirs = rouge_score(a, b, rouge_keys=("rouge1", "rouge2", "rougeL"))
        ours = (rouge_n(words(a), words(b), 1), rouge_n(words(a), words(b), 2), rouge_l(words(a), words(b)))
        expected = [theirs[f"{key}_fmeasure"].item() for key in ("rouge1", "rouge2", "rougeL")]
        assert ours == pytest.approx(expected, abs=1e-6)
        assert edit_distance(a, b) == their_edits(a, b).item()


def test_sentences_are_matched_and_special_tokens_stripped():
    truth = [[101, 1, 2, 3, 102], [101, 7, 8, 102, 0]]
    guess = [[101, 7, 8, 102, 0], [101, 1, 2, 9, 102]]
    score = text_recovery(guess, truth, special=(0, 101, 102))
    assert score.permutation.tolist() == [1, 0]
    np.testing.assert_allclose(score.values["token_accuracy"], [2 / 3, 1])
    np.testing.assert_array_equal(score.values["exact"], [0, 1])
    unmatched = text_recovery(guess, truth, special=(0, 101, 102), match=False)
    assert unmatched.values["token_accuracy"].sum() == 0


def test_word_rouge_and_token_rouge_are_told_apart():
    pieces = {1: "un", 2: "believ", 3: "able ", 4: "story"}
    decode = lambda ids: "".join(pieces[i] for i in ids)
    by_word = text_recovery([[1, 2, 4]], [[1, 2, 3, 4]], decode=decode)
    by_token = text_recovery([[1, 2, 4]], [[1, 2, 3, 4]])
    assert (by_word.unit, by_token.unit) == ("word", "token")
    assert by_word.values["rouge1"][0] == 0
    assert by_token.values["rouge1"][0] == pytest.approx(6 / 7)


def test_numbers_of_any_library_are_the_same_tokens():
    torch = pytest.importorskip("torch")
    score = text_recovery(torch.tensor([[1, 2]]), np.array([[1, 2]]))
    assert score.values["exact"][0] == 1


def test_an_empty_guess_scores_nothing():
    score = text_recovery([[]], [[1, 2]])
    assert all(values[0] == 0 for values in score.values.values())


@pytest.mark.parametrize(("guess", "truth"), [([[1]], [[1], [2]]), ([], []), ([[1]], [[]])])
def test_text_refuses(guess, truth):
    with pytest.raises(UserError, match="text_recovery"):
        text_recovery(guess, truth)


# rows

KIND, STD = [True, True, False, False], [1.0, 1.0, 2.0, 10.0]


def test_rows_hand_cases():
    truth = np.array([[1, 0, 4.0, 50.0]])
    score = tabular_recovery([[1, 1, 4.0 + 0.3 * 2, 50.0 + 0.35 * 10]], truth, KIND, STD)
    assert (score.accuracy[0], score.categorical[0], score.continuous[0]) == (0.5, 0.5, 0.5)
    assert tabular_recovery(truth, truth, KIND, STD).accuracy[0] == 1


def test_a_permuted_batch_of_exact_rows_is_perfect():
    rng = np.random.default_rng(0)
    truth = np.column_stack([rng.integers(3, size=(16, 2)), rng.normal(size=(16, 2))])
    order = rng.permutation(16)
    assert tabular_recovery(truth[order], truth, KIND, STD).accuracy.mean() == 1
    assert tabular_recovery(truth[order], truth, KIND, STD, match=False).accuracy.mean() < 1
    within = tabular_recovery(truth[::-1], truth, KIND, STD, groups=np.arange(16) // 8)
    assert within.accuracy.mean() < 1
    assert (within.permutation // 8 == np.arange(16) // 8).all()


def test_the_interval_of_a_number_holds_a_quarter_of_a_normal():
    draws = np.random.default_rng(0).normal(size=(20_000, 1))
    score = tabular_recovery(draws, np.zeros((20_000, 1)), [False], [1.0], match=False)
    assert score.accuracy.mean() == pytest.approx(0.25, abs=0.01)
    assert score.categorical is None


def test_random_rows_score_higher_the_larger_the_batch():
    rng = np.random.default_rng(0)
    train = np.column_stack([rng.integers(3, size=(500, 2)), rng.normal(size=(500, 2))])

    def blind(n):
        guesses = [marginal_rows(train, n, rng) for _ in range(20)]
        return np.mean([tabular_recovery(guess, train[:n], KIND, np.ones(4)).accuracy for guess in guesses])

    small, large = blind(2), blind(64)
    assert 0.25 < small < large < 0.8


def test_rows_that_are_not_finite_count_as_wrong():
    score = tabular_recovery([[1, 0, np.nan, 50.0]], [[1, 0, 4.0, 50.0]], KIND, STD)
    assert (score.accuracy[0], score.failures) == (0.75, 1)


@pytest.mark.parametrize(
    ("guess", "truth", "std", "words"),
    [
        (np.zeros((2, 4)), np.zeros((3, 4)), STD, "one shape"),
        (np.zeros((2, 4)), np.zeros((2, 4)), [1.0, 1.0, 0.0, 1.0], r"columns \[2\]"),
        (np.zeros((2, 4)), np.zeros((2, 4)), [1.0], "4 entries"),
        (np.zeros((2, 4)), np.full((2, 4), np.nan), STD, "truth holds NaN"),
    ],
)
def test_rows_refuse(guess, truth, std, words):
    with pytest.raises(UserError, match=words):
        tabular_recovery(guess, truth, KIND, std)


# attributes


def test_a_constant_guess_of_a_skewed_attribute_shows_nothing():
    truth = np.array([0] * 80 + [1] * 20)
    score = attribute_inference(np.zeros(100, int), truth, imputed=np.zeros(100, int), scores=np.full(100, 0.5))
    assert (score.accuracy, score.balanced, score.mcc, score.advantage, score.auroc) == (0.8, 0.5, 0, 0, 0.5)
    assert (score.recall, score.precision) == ({0: 1.0, 1: 0.0}, {0: 0.8, 1: 0.0})


def test_attribute_hand_case_and_gap():
    members, scores = [True, False, True, True], [0.9, 0.3, 0.4, 0.1]
    score = attribute_inference([1, 0, 0, 0], [1, 1, 0, 0], members=members, scores=scores)
    assert (score.accuracy, score.balanced, score.recall[1], score.precision[1]) == (0.75, 0.75, 0.5, 1.0)
    assert score.gap == 1.0
    assert score.auroc == 0.75
    assert isinstance(score.advantage, Unavailable)


def test_attribute_scores_agree_with_scikit_learn():
    from sklearn import metrics

    rng = np.random.default_rng(0)
    truth, guess = rng.integers(3, size=200), rng.integers(3, size=200)
    probabilities = rng.dirichlet(np.ones(3), size=200)
    score = attribute_inference(guess, truth, scores=probabilities)
    assert score.balanced == pytest.approx(metrics.balanced_accuracy_score(truth, guess))
    assert score.f1 == pytest.approx(metrics.f1_score(truth, guess, average="macro"))
    assert score.auroc == pytest.approx(metrics.roc_auc_score(truth, probabilities, multi_class="ovr"))
    assert list(score.precision.values()) == pytest.approx(list(metrics.precision_score(truth, guess, average=None)))


def test_attribute_averages_run_over_the_values_named():
    truth, guess = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 2])
    score = attribute_inference(guess, truth, scores=np.eye(3)[guess], values=[0, 1])
    assert (score.balanced, score.recall) == (0.75, {0: 0.5, 1: 1.0, 2: 1.0})
    assert score.f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert score.auroc == pytest.approx((0.75 + 5 / 6) / 2)


def test_the_interval_of_the_auroc_gap_covers():
    """Of 300 repetitions 285 cover a gap of 0.283 (distances 2 and 0.5 of normal scores), with a standard deviation
    of 4; the rarest value has some 30 records on either side."""
    rng, n, covered = np.random.default_rng(0), 600, 0
    member = np.arange(2 * n) < n
    for _ in range(300):
        truth = rng.choice(3, 2 * n, p=[0.475, 0.475, 0.05])
        scores = rng.standard_normal((2 * n, 3))
        scores[np.arange(2 * n), truth] += np.where(member, 2, 0.5)
        found = auroc_gap(truth, scores, member, [0, 1, 2])
        covered += found.low <= 0.2832 <= found.high
    assert covered >= 269


def test_a_perfect_ranking_keeps_an_interval():
    truth, member = np.tile([0, 1], 40), np.arange(80) < 40
    found = auroc_gap(truth, np.eye(2)[truth], member, [0, 1])
    assert (found.members, found.gap) == (1.0, 0.0)
    assert -0.2 < found.low < -0.05 < 0.05 < found.high < 0.2
    assert isinstance(auroc_gap(truth, np.eye(2)[truth], truth == 0, [0, 1]), Unavailable)


@pytest.mark.parametrize(("guess", "truth"), [([1], [1, 0]), ([], []), ([0.5], [1]), ([[1]], [[1]])])
def test_attributes_refuse(guess, truth):
    with pytest.raises(UserError, match="attribute_inference"):
        attribute_inference(guess, truth)


# queries
