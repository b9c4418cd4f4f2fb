"""Tracks by name, imported when used."""

from __future__ import annotations

import importlib

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.scenario import Evaluation, Scenario, Target
from inversionbench.tracks.base import Track

TRACKS = {"federated": "Federated", "classifier": "Classifier", "tabular": "Tabular", "text": "Text"}

__all__ = ["TRACKS", "Evaluation", "Scenario", "Target", "Track", "get_track"]


def get_track(name: str) -> Track:
    """The track of that name. Importing its module is cheap; it imports torch only in its methods."""
    if name not in TRACKS:
        raise UserError(f"unknown track '{name}': {suggest(name, TRACKS)}")
    return getattr(importlib.import_module(f"inversionbench.tracks.{name}.track"), TRACKS[name])()
