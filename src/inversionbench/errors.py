"""Errors that a user can act on: what was wrong, where, what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The command line prints it without a traceback and exits with status 2."""


def suggest(got: str, allowed: Iterable[str]) -> str:
    """The end of an error message: the nearest valid name, then all that are allowed.

    >>> suggest("dgk", ["dgc", "bido"])
    "did you mean 'dgc'? Allowed: bido, dgc"
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(got, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}Allowed: {', '.join(names) or 'nothing'}"
