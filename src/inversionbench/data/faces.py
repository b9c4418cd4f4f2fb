"""faces: generated portraits, identities private or public but never both. No download, no network.

A class is a person: a vector of visible parameters (skin, hair, face shape, eyes, brows, nose, mouth, beard,
glasses), fixed in all photographs. Pose, expression, light, wall, clothes, something in front of the face and
sensor noise change from one photograph to the next; `nuisance` scales them. What the parameters mean and how
they are drawn: `inversionbench.data._portraits`.

Parts: `private` trains the target; `evaluation` and `heldout` are other photographs of the same people;
`public` shows other people, so its y is -1. The order is round robin over the people.

`extra`: `identity` int64 (n,), private people from 0, public people after them; `attributes` float32 (n, k),
the person's vector, columns named in meta["attribute_names"]. Those in meta["attribute_flags"] are 0 or 1;
those in meta["attribute_clear"] can be read off a single photograph at 32 pixels. meta["render"] holds the
arguments with which `random_people` and `render` draw further people like these, for an attribute regressor:

    people = random_people(2000, rng, spread=meta["render"]["spread"])
    x = render(people, 5, rng, meta["render"]["resolution"], meta["render"]["nuisance"])

Measured at the defaults by `benchmarks/faces.py` (50 people, 40 photographs each to train, 40 to test, 32
pixels, three seeds): logistic regression on pixels 36-38 %, a small convolutional network 89-92 %, the same
network trained on 150 other photographs of each person 97 % (one seed). About 2700 photographs per CPU second
at 32 pixels, 700 at 64.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core.ranges import Count, NonNegative, Whole
from inversionbench.data._order import round_robin
from inversionbench.data._portraits import CLEAR, FLAGS, NAMES, random_people, render
from inversionbench.data.base import Card, DatasetSource

__all__ = ["Faces", "random_people", "render"]


@dataclass(frozen=True)
class Faces(DatasetSource):
    """`people` private and `public_people` other people; `private`, ..., `public`: photographs of each."""

    id = "faces"
    task = "50 generated people"
    card = Card(
        name="Generated portraits",
        modality="image",
        source="drawn by this package from a seed",
        terms="no real person is shown; same licence as this package",
        notes="Identity parameters are independent of each other and known exactly, so attribute recovery can"
        " be measured. Drawings, not photographs: results do not carry over to real faces in size.",
        embedded=True,
    )

    resolution: Count = 32
    people: Count = 50
    private: Count = 40
    evaluation: Count = 150
    heldout: Count = 40
    public_people: Whole = 400
    public: Count = 20
    nuisance: NonNegative = 1.8
    spread: NonNegative = 1.0

    def build(self, root: Path | None, out: Any, rng: np.random.Generator) -> None:
        known, others, *streams = rng.spawn(6)
        private = random_people(self.people, known, self.spread)
        public = random_people(self.public_people, others, self.spread)
        for part, stream in zip(("private", "public", "evaluation", "heldout"), streams):
            people, first = (public, self.people) if part == "public" else (private, 0)
            per_person, m = getattr(self, part), len(people)
            x = round_robin(render(people, per_person, stream, self.resolution, self.nuisance), m)
            who = np.tile(np.arange(m, dtype=np.int64), per_person)
            y = np.full_like(who, -1) if part == "public" else who
            out.put(part, x, y, identity=who + first, attributes=people[who])
        out.meta(
            classes=self.people,
            class_names=[f"person {i}" for i in range(self.people)],
            attribute_names=list(NAMES),
            attribute_flags=list(FLAGS),
            attribute_clear=list(CLEAR),
            render={"resolution": self.resolution, "nuisance": self.nuisance, "spread": self.spread},
        )
