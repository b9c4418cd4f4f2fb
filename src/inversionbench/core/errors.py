"""Errors that a user can act on: what was wrong, where, what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MANY = 40  # names beyond which a list no longer helps


class UserError(Exception):
    """Bad input. The command line prints it without a traceback and exits with status 2."""


class Unreadable(UserError):
    """A file that an earlier step makes is not there, or damaged."""


def suggest(got: str, allowed: Iterable[str]) -> str:
    """The end of an error message: the nearest valid name, then all that are allowed (of many, those near).

    >>> suggest("dgk", ["dgc", "bido"])
    "did you mean 'dgc'? Allowed: bido, dgc"
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(got, names, n=8, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    if near and len(names) > MANY:
        return f"{hint}Near: {', '.join(near)} ({len(names)} in all)"
    return f"{hint}Allowed: {', '.join(names) or 'nothing'}"


class AccessDenied(Exception):
    """The access level does not grant this."""


class BudgetExceeded(Exception):
    """The query budget does not cover this call; no answer was computed."""
