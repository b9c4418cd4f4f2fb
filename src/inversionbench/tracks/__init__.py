"""Tracks, found by looking: a folder `tracks/<id>/` with a `track.py`, here or in a plug-in; imported when used."""

from __future__ import annotations

import importlib
from functools import cache

from inversionbench.core import registry
from inversionbench.core.errors import UserError, suggest
from inversionbench.core.levels import LEVELS
from inversionbench.tracks.base import Track

__all__ = ["Track", "get_track", "track_names"]


def track_names() -> dict[str, str]:
    """Every track's id -> the module that holds its class."""
    return _found(tuple(registry.homes()))


@cache
def _found(homes: tuple[str, ...]) -> dict[str, str]:
    return {path.parent.name: registry.module_of(path) for path in registry.files("tracks/*/track.py")}


def get_track(name: str) -> Track:
    """The track of that name. Importing its module is cheap; it imports torch only in its methods."""
    known = track_names()
    if name not in known:
        raise UserError(f"unknown track '{name}': {suggest(name, known)}")
    return _track(name, known[name])


@cache
def _track(name: str, module: str) -> Track:
    own = vars(importlib.import_module(module)).values()
    for found in own:
        if isinstance(found, type) and issubclass(found, Track) and getattr(found, "id", "") == name:
            LEVELS.update(found.levels)
            return found()
    raise UserError(f"{module}: no class derived from Track with `id = '{name}'`")
