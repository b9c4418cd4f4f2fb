"""Fixtures: a folder of synthetic cells, and the tracks they belong to."""

from __future__ import annotations

from pathlib import Path

import pytest
from survey_cells import TRACKS, all_records, write_cell

from inversionbench.survey import words


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
