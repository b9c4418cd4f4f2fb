"""Access levels: what an attack at each may ask of the target, and which hooks of a defense can change what it sees.

A track's own levels are in its class attribute `levels`; they are known as soon as the track is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from inversionbench.core.errors import UserError, suggest


@dataclass(frozen=True)
class Level:
    """label: for people. calls: what an oracle of this level grants. axis: what the budget of an attack counts.
    unseen: hooks of a defense that change nothing that is seen at this level."""

    label: str
    calls: frozenset[str]
    axis: str = "queries"
    unseen: frozenset[str] = frozenset()

    @property
    def labels_only(self) -> bool:
        return self.calls <= {"architecture", "labels"}


HOOKS = (
    "training_set",
    "train_transform",
    "build_model",
    "loss",
    "gradient",
    "client_update",
    "aggregate",
    "release",
    "release_features",
)
RELEASE = frozenset({"release"})  # acts on answers to queries, not on weights or updates
RELEASES = frozenset({"release", "release_features"})  # both forms of H8: a trained target is not changed by them
PASSES, GRADIENTS = "passes through the model", "gradient evaluations"


def _level(label: str, *calls: str, axis: str = "queries", unseen: frozenset[str] = frozenset()) -> Level:
    return Level(label, frozenset(calls), axis, unseen)


LEVELS: dict[str, Level] = {
    "WB": _level("white-box", "module", axis=PASSES, unseen=RELEASE),
    "WB-noBN": _level("white-box without batch statistics", "module", axis=PASSES, unseen=RELEASE),
    "BB-L": _level("black-box logits", "logits"),
    "BB-S": _level("black-box scores", "scores"),
    "LO": _level("label only", "labels"),
    "GB-L": _level("architecture and logits", "architecture", "logits"),
    "GB-S": _level("architecture and scores", "architecture", "scores"),
    "GB-LO": _level("architecture and labels", "architecture", "labels"),
    "EX-L": _level("explanations and logits", "explain", "logits"),
    "EX-S": _level("explanations and scores", "explain", "scores"),
    "EX-LO": _level("explanations and labels", "explain", "labels"),
    "FT-WB": _level("features, client half known", "observe", "features", "client_module", "server_module",
                    axis=PASSES),
    "FT-BB": _level("features, client half as black box", "observe", "features", "server_module"),
    "FT-QF": _level("features only", "observe", "server_module"),
    "GR": _level("client update", "observe_update", "global_model", "protocol", axis=GRADIENTS, unseen=RELEASE),
    "GR-D": _level("client update and model, read on the wire", "observe_update", "global_model", "protocol",
                   axis=GRADIENTS, unseen=RELEASE),
    "GR-A": _level("client update, to weights that the server chooses", "observe_update", "global_model", "protocol",
                   "planted_model", "planted_update", axis=GRADIENTS, unseen=RELEASE),
    "GR-U": _level("client update alone, read on the wire", "observe_update", "architecture", "initial_model",
                   "protocol", axis=GRADIENTS, unseen=RELEASE),
}


def level(name: str) -> Level:
    """The access level of that name; an unknown one is a `UserError` with the nearest."""
    if name not in LEVELS:
        raise UserError(f"unknown access level '{name}': {suggest(name, LEVELS)}")
    return LEVELS[name]


def inert(hooks: Iterable[str], name: str, keeps_labels: bool = False) -> bool:
    """Whether a defense with these hooks cannot change what an attack at this level sees.

    Such a pair runs once, as a control: it must equal the undefended result bit for bit. keeps_labels: the released
    label is that of the undefended model.

    >>> inert({"release"}, "WB"), inert({"release"}, "BB-S"), inert({"release"}, "LO", keeps_labels=True)
    (True, False, True)
    >>> inert({"client_update"}, "GR"), inert({"loss", "release"}, "WB")
    (False, False)
    """
    at = level(name)
    unseen = at.unseen | RELEASE if keeps_labels and at.labels_only else at.unseen
    return set(hooks) <= unseen
