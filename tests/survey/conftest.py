"""Fixtures: a folder of synthetic cells, the tracks they belong to, and the survey made from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from survey_cells import TRACKS, all_records, write_cell

from inversionbench.core.files import atomic_folder, write_json
from inversionbench.survey import build, collect, galleries, words


@pytest.fixture(autouse=True)
def tracks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracks of the synthetic cells, whatever the real ones report."""
    monkeypatch.setattr(words, "track", lambda name: TRACKS[name])


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of cells; tests must not change it."""
    root = tmp_path_factory.mktemp("run") / "results" / "smoke" / "cells"
    for cell in all_records():
        write_cell(root, cell)
    return root


@pytest.fixture(scope="session")
def survey(cells: Path) -> build.Survey:
    """The survey of all cells, written to `survey/` beside them."""
    prior = cells.parent / "priors" / "portraits" / "gan"
    galleries.save_sheet(prior / "sheet.png", np.random.default_rng(0).random((12, 3, 16, 16)))
    write_json(prior / "facts.json", {"steps": 3200, "fid_like": 1.6})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "track", lambda name: TRACKS[name])
        made = build.make(collect.read(cells), "smoke", {"photos/ggi/none/0/0": "not run"}, {"scale": "smoke"})
        with atomic_folder(cells.parent / "survey") as folder:
            build.write(made, folder, cells.parent)
    return made
