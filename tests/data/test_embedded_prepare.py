"""Every embedded data set goes through `prepare` without files and without a data folder."""

from __future__ import annotations

import numpy as np
import pytest

from inversionbench.core import registry
from inversionbench.data.base import PARTS, load
from inversionbench.data.prepare import prepare

TINY = {
    "photos": {"private": 3, "public": 3, "evaluation": 2, "heldout": 2},
    "faces": {"people": 4, "private": 3, "public_people": 4, "public": 2, "evaluation": 2, "heldout": 2},
    "digits": {"private": 20, "public": 20, "evaluation": 10, "heldout": 10},
    "breast_cancer": {},
    "dosing": {"private": 40, "public": 60, "evaluation": 20, "heldout": 20},
}


@pytest.fixture(autouse=True)
def _no_files(monkeypatch):
    monkeypatch.delenv("INVERSIONBENCH_DATA", raising=False)


@pytest.mark.parametrize("name", TINY)
def test_prepared(name, tmp_path):
    data = prepare(name, TINY[name], None, tmp_path / "a", seed=3)
    assert registry.get("dataset", name).card.embedded
    assert all(len(getattr(data, part)) for part in PARTS)
    assert data.shape == data.private.x.shape[1:]
    again = prepare(name, TINY[name], None, tmp_path / "b", seed=3)
    other = prepare(name, TINY[name], None, tmp_path / "c", seed=4)
    assert again.digest == data.digest == load(tmp_path / "a").digest
    assert other.digest != data.digest
    inputs = {part: {row.tobytes() for row in np.asarray(getattr(data, part).x)} for part in PARTS}
    assert not inputs["public"] & (inputs["private"] | inputs["evaluation"] | inputs["heldout"])
    assert not inputs["private"] & inputs["heldout"]
