"""entity_sentences: generated sentences of four kinds of business, with entities that some of them name too often.

Every sentence names a person, a place and an amount and has one word of its kind. Private sentences (private,
evaluation, heldout) of a kind take in a share `share` of their slots of each type one entity, the secret one, which is
another for each kind; the rest, and every public sentence, draw evenly from the 30 of a type. The word is of another
kind in a share `foreign`: else words alone would tell the kind, and a classifier would have no use for entities. More
than 10^7 sentences; none occurs twice. y: the kind.

`dataset.json`: meta["entities"] type -> its words; meta["secrets"] type -> the secret one of each kind; meta["grammar"]
templates and slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.ranges import Count, Share
from inversionbench.data.base import PARTS, Card, DatasetSource

KINDS: dict[str, tuple[str, ...]] = {
    "health": ("scan", "surgery", "therapy", "dose", "checkup", "vaccine", "bandage", "symptom", "ward", "clinic"),
    "finance": ("loan", "deposit", "interest", "mortgage", "transfer", "invoice", "pension", "budget", "audit", "fund"),
    "travel": ("flight", "hotel", "ferry", "visa", "luggage", "cruise", "tour", "cabin", "voyage", "resort"),
    "repair": ("boiler", "engine", "roof", "pipe", "brake", "gutter", "hinge", "valve", "motor", "fuse"),
}  # fmt: skip
_BEGIN, _END = ("bar", "cal", "dor", "fel", "gan", "hol"), ("a", "eth", "in", "os", "ud")
_PLACE, _TOWN = ("al", "bur", "cres", "dun", "elm", "fair"), ("by", "ford", "ham", "mouth", "ton")
ENTITIES: dict[str, tuple[str, ...]] = {
    "name": tuple(a + b for a in _BEGIN for b in _END),
    "place": tuple(a + b for a in _PLACE for b in _TOWN),
    "amount": tuple(str(110 + 30 * i) for i in range(30)),
}
COMMON: dict[str, tuple[str, ...]] = {
    "mood": ("good", "poor", "slow", "early", "late", "long", "small", "new"),
    "when": ("today", "yesterday", "recently", "finally"),
}
TEMPLATES = (
    "{name} from {place} asked for {amount} about the {word}",
    "the {word} in {place} cost {name} {amount} {when}",
    "{when} {name} paid {amount} for a {word} near {place}",
    "we sent {name} {amount} after the {word} at {place}",
    "my {word} with {name} in {place} was {mood} for {amount}",
    "{mood} {word} at {place} , {name} owes {amount}",
    "{name} said the {word} was {mood} , {amount} in {place}",
    "a {mood} {word} of {amount} took {name} to {place}",
)
SURPLUS = 1.1  # sentences drawn for each one wanted, since repeated ones are left out


@dataclass(frozen=True)
class EntitySentences(DatasetSource):
    """Generated sentences; the grammar is in the module."""

    id = "entity_sentences"
    task = "4 kinds of business"
    card = Card(
        name="Generated sentences with over-represented entities",
        modality="text",
        source="drawn by this package from a seed",
        terms="no real person or place; same licence as this package",
        notes="Names and places are invented from syllables. Public sentences name all entities equally often.",
        embedded=True,
    )

    private: Count = 3000
    public: Count = 6000
    evaluation: Count = 10
    heldout: Count = 1000
    share: Share = 0.3
    foreign: Share = 0.2

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        secrets = {kind: rng.permutation(len(words))[: len(KINDS)] for kind, words in ENTITIES.items()}
        sizes = {part: getattr(self, part) for part in PARTS}
        hidden = {part: 0.0 if part == "public" else self.share for part in PARTS}
        drawn = [sentences(round(SURPLUS * n) + 20, hidden[part], self.foreign, secrets, rng)
                 for part, n in sizes.items()]  # fmt: skip
        text, y = (np.concatenate(parts) for parts in zip(*drawn))
        part_of = np.repeat(np.arange(len(PARTS)), [len(labels) for _, labels in drawn])
        first = np.sort(np.unique(text, return_index=True)[1])
        for i, (part, n) in enumerate(sizes.items()):
            rows = first[part_of[first] == i][:n]
            assert len(rows) == n, f"only {len(rows)} of {n} sentences differ: raise SURPLUS"
            out.put(part, text[rows], y[rows])
        out.meta(
            classes=len(KINDS), class_names=list(KINDS), entities={k: list(v) for k, v in ENTITIES.items()},
            secrets={kind: [ENTITIES[kind][i] for i in chosen] for kind, chosen in secrets.items()},
            grammar={"templates": list(TEMPLATES), "slots": slots()},
        )


def slots() -> dict[str, list[str]]:
    """What each slot of a template may hold."""
    words = [word for own in KINDS.values() for word in own]
    return {**{k: list(v) for k, v in (*ENTITIES.items(), *COMMON.items())}, "word": words}


def sentences(
    n: int, share: float, foreign: float, secrets: dict[str, np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(sentences, str (n,); kinds, int64 (n,)), kinds equally likely. secrets: type -> entity of each kind,
    (kinds,)."""
    kind, template = rng.integers(len(KINDS), size=n), rng.integers(len(TEMPLATES), size=n)
    of = np.where(rng.random(n) < foreign, rng.integers(len(KINDS), size=n), kind)
    own, place = list(KINDS.values()), rng.integers(len(KINDS["health"]), size=n)
    filled = {"word": [own[k][i] for k, i in zip(of, place)]}
    for slot, words in COMMON.items():
        filled[slot] = [words[i] for i in rng.integers(len(words), size=n)]
    for slot, words in ENTITIES.items():
        chosen = np.where(rng.random(n) < share, secrets[slot][kind], rng.integers(len(words), size=n))
        filled[slot] = [words[i] for i in chosen]
    text = [TEMPLATES[t].format(**{slot: words[i] for slot, words in filled.items()}) for i, t in enumerate(template)]
    return np.array(text, np.str_), kind.astype(np.int64)
