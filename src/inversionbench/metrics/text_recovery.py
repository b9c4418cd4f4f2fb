"""Text recovery: how much of the private sentences an attack returns (TAG, LAMP, DAGER, embedding inversion).

Per sentence, after matching (a gradient has no sentence order) and after stripping special tokens:
token accuracy, right tokens at their places over the true length; bag overlap, 1 - sum_v |n_r(v) - n_s(v)| /
(|r| + |s|), for equal lengths the form of the literature and in [0, 1] for others; coverage, the mean over
tokens v of the truth of min(n_r(v) / n_s(v), 1); exact match; ROUGE-1, ROUGE-2 (F1 of n-grams) and ROUGE-L
(F1 on the longest common subsequence); edit similarity, 1 - Levenshtein distance / longer length.
ROUGE is of words where a decoder is given (lower-cased, letters and digits only, no stemming, as
torchmetrics and rouge-score do), else of tokens: two numbers that do not compare. It is written out here
because importing torchmetrics costs several seconds per process. With short sentences from few words a guess
from word frequencies reaches a bag overlap of 0.2 to 0.4: show that baseline beside it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError
from inversionbench.core.quantity import Quantity
from inversionbench.metrics._matching import assign
from inversionbench.metrics.base import Spec

SPEC = Spec(
    "text_recovery",
    "tokens recovered",
    unit="%",
    digits=1,
    factor=100,
    direction="higher",
    range=(0.0, 1.0),
    kind="protocol",
)
FURTHER = (
    Quantity(
        "exact_match",
        "exact match",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="share of sentences whose tokens all came back; words that the vocabulary lacks are one token",
    ),
    Quantity(
        "verbatim",
        "word for word",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="share of exact matches without a word that the vocabulary lacks: what anybody could read again",
    ),
    Quantity(
        "token_accuracy",
        "tokens in place",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="share of the tokens of a sentence that stand at their places",
    ),
    Quantity(
        "token_recall",
        "tokens found",
        unit="%",
        digits=1,
        factor=100,
        direction="higher",
        note="share of the tokens of a sentence that were found, at any place",
    ),
    Quantity(
        "rouge1",
        "ROUGE-1",
        digits=2,
        direction="higher",
        note="F1 of single tokens",
    ),
    Quantity(
        "rouge2",
        "ROUGE-2",
        digits=2,
        direction="higher",
        note="F1 of pairs of neighbouring tokens",
    ),
    Quantity(
        "rougeL",
        "ROUGE-L",
        digits=2,
        direction="higher",
        note="F1 on the longest common subsequence of tokens",
    ),
)
Tokens = Sequence[Hashable]


@dataclass(frozen=True)
class TextRecovery:
    """Per sentence, float64 (n,) each, in the order of the truth. `unit` of ROUGE: "word" or "token"."""

    values: dict[str, np.ndarray]
    permutation: np.ndarray
    unit: str


def text_recovery(
    reconstruction: Sequence[Tokens],
    truth: Sequence[Tokens],
    special: Sequence[Hashable] = (),
    match: bool = True,
    decode: Callable[[list[Any]], str] | None = None,
) -> TextRecovery:
    """Scores of recovered sentences.

    reconstruction, truth: n sentences each, of token ids. special: ids to strip on both sides (padding, start,
    end). match: find the sentence order first, by bag overlap. decode: ids -> text, for ROUGE of words.
    Higher means more leakage. Raises `UserError` for unequal numbers, or a true sentence without tokens.

    >>> score = text_recovery([[1, 2, 3]], [[1, 2, 3, 4]])
    >>> {name: round(float(v[0]), 4) for name, v in score.values.items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'token_accuracy': 0.75, 'bag_overlap': 0.8571, 'coverage': 0.75, 'exact': 0.0, 'rouge1': 0.8571,
     'rouge2': 0.8, 'rougeL': 0.8571, 'edit': 0.75}
    """
    if len(reconstruction) != len(truth) or not len(truth):
        raise UserError(
            f"text_recovery: expected as many sentences on both sides, at least one, got {len(reconstruction)} "
            f"reconstructions of {len(truth)}"
        )
    strip = set(special)
    guess = [[_plain(t) for t in sentence if _plain(t) not in strip] for sentence in reconstruction]
    true = [[_plain(t) for t in sentence if _plain(t) not in strip] for sentence in truth]
    if not all(true):
        raise UserError(f"text_recovery: true sentence {[bool(t) for t in true].index(False)} has no tokens")
    order = np.arange(len(true))
    if match:
        order = assign(np.array([[-bag_overlap(g, t) for g in guess] for t in true]))
        guess = [guess[i] for i in order]
    rows = [_scores(g, t, decode) for g, t in zip(guess, true)]
    values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return TextRecovery(values, order, "token" if decode is None else "word")


def token_accuracy(guess: Tokens, truth: Tokens) -> float:
    """Share of the true places whose token is right; missing tokens count as wrong."""
    return sum(g == t for g, t in zip(guess, truth)) / len(truth)


def bag_overlap(guess: Tokens, truth: Tokens) -> float:
    """1 - sum_v |n_r(v) - n_s(v)| / (|r| + |s|): order does not count.

    >>> bag_overlap("cba", "abc"), bag_overlap("aab", "abb")
    (1.0, 0.6666666666666667)
    """
    a, b = Counter(guess), Counter(truth)
    return 1 - sum(abs(a[v] - b[v]) for v in a | b) / max(1, len(guess) + len(truth))


def coverage(guess: Tokens, truth: Tokens) -> float:
    """Mean over the different tokens of the truth of the share of their occurrences that came back."""
    a, b = Counter(guess), Counter(truth)
    return sum(min(a[v] / n, 1.0) for v, n in b.items()) / len(b)


def rouge_n(guess: Tokens, truth: Tokens, n: int) -> float:
    """F1 of the overlap of n-grams, 0 where either side has none.

    >>> round(rouge_n("the cat sat".split(), "the cat sat down".split(), 1), 4)
    0.8571
    """
    a, b = (Counter(tuple(s[i : i + n]) for i in range(len(s) - n + 1)) for s in (guess, truth))
    return _f1((a & b).total(), a.total(), b.total())


def rouge_l(guess: Tokens, truth: Tokens) -> float:
    """F1 on the longest common subsequence.

    >>> round(rouge_l("abcd", "acbd"), 4)
    0.75
    """
    row = [0] * (len(truth) + 1)
    for g in guess:
        above = row[:]
        for j, t in enumerate(truth):
            row[j + 1] = above[j] + 1 if g == t else max(row[j], above[j + 1])
    return _f1(row[-1], len(guess), len(truth))


def edit_distance(guess: Tokens, truth: Tokens) -> int:
    """Levenshtein distance: insertions, deletions and substitutions.

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(truth) + 1))
    for i, g in enumerate(guess):
        above, row = row, [i + 1]
        for j, t in enumerate(truth):
            row.append(min(above[j] + (g != t), above[j + 1] + 1, row[j] + 1))
    return row[-1]


def words(text: str) -> list[str]:
    """Lower-cased runs of letters a-z and digits, the units of ROUGE.

    >>> words("The cat, sat!")
    ['the', 'cat', 'sat']
    """
    return re.findall(r"[a-z0-9]+", text.lower())


def _scores(guess: list[Any], truth: list[Any], decode: Callable[[list[Any]], str] | None) -> dict[str, float]:
    g, t = (guess, truth) if decode is None else (words(decode(guess)), words(decode(truth)))
    return {
        "token_accuracy": token_accuracy(guess, truth),
        "bag_overlap": bag_overlap(guess, truth),
        "coverage": coverage(guess, truth),
        "exact": float(guess == truth),
        "rouge1": rouge_n(g, t, 1),
        "rouge2": rouge_n(g, t, 2),
        "rougeL": rouge_l(g, t),
        "edit": 1 - edit_distance(guess, truth) / max(len(guess), len(truth)),
    }


def _f1(common: int, guessed: int, true: int) -> float:
    return 2 * common / (guessed + true) if common else 0.0


def _plain(token: Any) -> Any:
    """Tensor and array scalars as Python's own: they are compared and hashed."""
    return token.item() if hasattr(token, "item") else token
