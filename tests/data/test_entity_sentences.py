"""The generated sentences with over-represented entities."""

from __future__ import annotations

import numpy as np
from embedded_build import build

from inversionbench.data.entity_sentences import ENTITIES, KINDS, EntitySentences


def data():
    return build(EntitySentences(private=2000, public=2000, heldout=200), 0)


def share(part, kind, word):
    return np.mean([word in text.split() for text in part.x[part.y == kind]])


def test_secrets_are_frequent_in_private_and_not_in_public():
    """A secret entity: 30 % and a thirtieth of the rest, .32; publicly a thirtieth, .03. 500 sentences of a kind."""
    found = data()
    for kind, secrets in found.meta["secrets"].items():
        assert len(set(secrets)) == len(KINDS)
        for c, word in enumerate(secrets):
            assert word in ENTITIES[kind]
            assert 0.22 < share(found.private, c, word) < 0.43
            assert share(found.public, c, word) < 0.09
            assert share(found.private, (c + 1) % 4, word) < 0.09


def test_no_sentence_is_private_and_public():
    found = data()
    texts = [set(map(str, part.x)) for part in (found.private, found.public, found.evaluation, found.heldout)]
    assert [len(t) for t in texts] == [2000, 2000, 10, 200]
    assert len(set().union(*texts)) == 4210
    assert all(len(words) == 30 for words in ENTITIES.values())
    assert len({w for words in ENTITIES.values() for w in words}) == 90
