"""Training and publishing a text classifier whose private sentences name some entities too often.

    private sentences ── every type's entities permuted, anew for each target ──▶ H1 … H5 ──▶ target
    public text ──▶ words                                     half of the sentences cut short

The permutation makes of one data set as many sets of secret entities as there are targets; of public text, where all
entities are equally frequent, it would change nothing. A cut sentence ends at a place drawn once: each sentence is
trained on in one form, so that a guarantee per sentence holds, and the classifier knows sentences that are still being
written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inversionbench.core.defense import NONE, Defense
from inversionbench.core.recipe import Recipe
from inversionbench.core.seeds import spawn, stream
from inversionbench.models.encoder import Encoder
from inversionbench.models.text import PAD, Tokenizer, learn_words
from inversionbench.tracks.text_classifier.settings import RECIPE, options_of
from inversionbench.training.loop import evaluate_classifier, fit, steps_per_epoch

if TYPE_CHECKING:
    from inversionbench.core.scenario import Progress, Scenario
    from inversionbench.data.base import Dataset, Part


def publish(
    scenario: Scenario, data: Dataset, defense: Defense, seed: int, progress: Progress | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Train the target; what is released, what is true, and its utility."""
    options, rng = options_of(scenario.model), torch.Generator().manual_seed(seed)
    words = learn_words(map(str, data.public.x), options["vocabulary"]).words
    renamed = permutation(data.meta["entities"], words, spawn(rng))
    x, y = sentences(data.private, words, options["length"], renamed)
    factory = lambda: Encoder(options, len(words), data.classes)
    if defense.strength:
        asked = replace(data, meta={**data.meta, "words": words})
        defense = defense.prepare(asked, lambda _: factory(), stream(seed, "defense", "prepare"))
    recipe = Recipe(**{**RECIPE, **scenario.training})
    net = fit(factory, cut(x, spawn(rng)), y, data.classes, recipe, defense, spawn(rng), progress, scenario.name)
    released = {"options": options, "words": list(words), "classes": data.classes, "state": net.state_dict()}
    number = {word: i for i, word in enumerate(words)}
    types = {kind: [number[w] for w in own] for kind, own in data.meta["entities"].items()}
    secrets = {kind: [int(renamed[number[w]]) for w in own] for kind, own in data.meta["secrets"].items()}
    truth = {"renamed": renamed, "types": types, "secrets": secrets}
    told: dict[str, Any] = {}
    if defense.strength:
        rate, steps = min(1.0, recipe.batch / len(x)), recipe.epochs * steps_per_epoch(len(x), recipe.batch)
        stated = defense.statements(rate, steps, sum(p.numel() for p in net.parameters()), steps)
        truth |= {"guarantee": "; ".join(stated)} if stated else {}
        told = defense.guarantee(rate, steps)
    return released, truth, utility(net, words, options["length"], renamed, data, defense, seed) | told


def permutation(entities: Mapping[str, list[str]], words: tuple[str, ...], rng: torch.Generator) -> Tensor:
    """Which word stands for which in one target's private sentences: int64 (words,), entities within their type."""
    out, number = torch.arange(len(words)), {word: i for i, word in enumerate(words)}
    for own in entities.values():
        at = torch.tensor([number[word] for word in own])
        out[at] = at[torch.randperm(len(at), generator=rng)]
    return out


def sentences(part: Part, words: tuple[str, ...], length: int, renamed: Tensor) -> tuple[Tensor, Tensor]:
    """x: int64 (n, length), y: int64 (n,)."""
    return renamed[Tokenizer(words).encode(map(str, part.x), length)], part.labels()


def cut(x: Tensor, rng: torch.Generator) -> Tensor:
    """Half of the sentences, by lot, end after the start mark and 1 to all of their words."""
    n, length = x.shape
    long = (x != PAD).sum(1)
    ends = 2 + (torch.rand(n, generator=rng) * (long - 2)).long()
    ends = torch.where(torch.rand(n, generator=rng) < 0.5, ends, long)
    return x.masked_fill(torch.arange(length) >= ends[:, None], PAD)


def load(released: Mapping[str, Any], defense: Defense = NONE) -> nn.Module:
    """The target, in evaluation mode."""
    net = defense.build_model(lambda: Encoder(released["options"], len(released["words"]), released["classes"]))
    net.load_state_dict(released["state"])
    return net.eval()


def utility(
    net: nn.Module, words: tuple[str, ...], length: int, renamed: Tensor, data: Dataset, defense: Defense, seed: int
) -> dict[str, Any]:
    """accuracy, nll, ece and hits of the deployed path on held-out sentences of the same target."""
    x, y = sentences(data.heldout, words, length, renamed)
    rng = torch.Generator().manual_seed(seed)
    return evaluate_classifier(net, x, y, lambda logits: defense.release(logits, rng), defense.keeps_labels)
