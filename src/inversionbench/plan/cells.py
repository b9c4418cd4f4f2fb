"""What to run: from checked parameters to groups of cells, and where each artefact lies.

A cell is one measured combination (scenario, attack, defense at a strength, seed). Cells that differ only
in strength and seed form a group and share a process, because starting one costs seconds. Paths:

    <results>/<scale>/data/<dataset>/                               prepared data set
                     /evaluators/<entry>/                           evaluators
                     /priors/<dataset>/<prior>/                     priors trained on public data alone
                     /priors/targets/<scenario>/<defense>/<strength>/<prior>/   those that ask a target as well
                     /targets/<scenario>/<defense>/<strength>/      released/ and truth/, a folder per seed
                     /reconstructions/<scenario>/<attack>/<defense>/<strength>/<seed>/reconstruction.pt
                     /cells/<scenario>/<attack>/<defense>/<strength>/<seed>/record.json
                     /survey/                                       tables, figures, report
                     /timings/, /logs/                              what clocks and jobs said; never an input
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.levels import RELEASES, inert
from inversionbench.plan.params import Entry, Params
from inversionbench.tracks import get_track

NONE = Entry("none", "defense", "none", strengths=(0.0,))


@dataclass(frozen=True)
class Group:
    """All cells of one attack on one scenario under one defense."""

    scenario: str
    attack: str
    defense: str
    strengths: tuple[float, ...]
    seeds: tuple[int, ...]
    inert: bool = False

    @property
    def key(self) -> str:
        return f"{self.scenario}/{self.attack}/{self.defense}"

    def cells(self) -> Iterator[tuple[str, float, int]]:
        """(key, strength, seed) of each cell."""
        for strength in self.strengths:
            for seed in self.seeds:
                yield f"{self.key}/{format_strength(strength)}/{seed}", strength, seed


def format_strength(strength: float) -> str:
    """A strength as it stands in paths.

    Different strengths have different texts.

    >>> format_strength(0.0), format_strength(0.999), format_strength(3), format_strength(0.9999991)
    ('0', '0.999', '3', '0.9999991')
    """
    short = f"{strength:g}"
    return short if float(short) == strength else repr(float(strength))


def groups(params: Params) -> list[Group]:
    """All groups of a run, in a stable order."""
    out = []
    for scenario in params.scenarios.values():
        for attack in params.attacks.values():
            if attack.described.group != scenario.track or not _allowed(scenario.name, attack.scenarios):
                continue
            if not get_track(scenario.track).accepts(scenario, attack.described):
                continue
            for defense in (NONE, *params.defenses.values()):
                if defense is NONE or applies(params, defense, scenario.name, attack):
                    out.append(_group(params, scenario.name, attack, defense))
    return out


def applies(params: Params, defense: Entry, scenario: str, attack: Entry) -> bool:
    """Whether this pair is run: the defense can act there, and neither entry excludes it."""
    where = params.scenarios[scenario]
    return (
        defense.suits(get_track(where.track), where)
        and _allowed(scenario, defense.scenarios)
        and _allowed(defense.name, attack.defenses)
        and not attack.described.attributes.get("control_without_defense", False)
    )


def planned(params: Params) -> set[str]:
    """The keys of all cells of a run."""
    return {key for group in groups(params) for key, _, _ in group.cells()}


def find(params: Params, key: str) -> Group:
    """The group with this key; a wrong key gets the nearest valid one."""
    known = {group.key: group for group in groups(params)}
    if key not in known:
        raise UserError(f"no cells '{key}': {suggest(key, known)}")
    return known[key]


def of_attack(params: Params, key: str) -> list[Group]:
    """All groups of "scenario/attack", one for each defense."""
    found = [group for group in groups(params) if f"{group.scenario}/{group.attack}" == key]
    if not found:
        known = {f"{group.scenario}/{group.attack}" for group in groups(params)}
        raise UserError(f"no cells '{key}': {suggest(key, known)}")
    return found


def parameters(params: Params, group: Group, strength: float) -> dict[str, Any]:
    """All that was chosen for a cell, as it stands in its record."""
    scenario, attack = params.scenarios[group.scenario], params.attacks[group.attack]
    defense = {} if group.defense == "none" else defense_entry(params, group.defense).parameters(group.scenario)
    return {
        "attack": attack.parameters(group.scenario),
        "priors": {
            role: {"entry": prior, "method": params.priors[prior].method, **params.priors[prior].parameters()}
            for role, prior in attack.roles(group.scenario).items()
        },
        "defense": {**defense, "strength": strength},
        "scenario": {
            "model": scenario.model,
            "training": scenario.training,
            "protocol": scenario.protocol,
            "subjects": scenario.subjects,
        },
        "dataset": params.datasets[scenario.dataset] or {},
        **({"seed": params.seed} if params.seed else {}),
    }


def defense_entry(params: Params, name: str) -> Entry:
    """The entry of a defense; "none" is always there."""
    return NONE if name == "none" else params.defenses[name]


def targets(params: Params) -> list[tuple[str, str, float]]:
    """(scenario, defense, strength) of every target that some group attacks.

    A defense whose only hook is a release leaves training alone, so its targets are the undefended ones, unless it
    learns from them.
    """
    return sorted({(g.scenario, *target_of(params, g.defense, s)) for g in groups(params) for s in g.strengths})


def target_of(params: Params, defense: str, strength: float) -> tuple[str, float]:
    """Which trained target a defense at a strength attacks: its own, or the undefended one."""
    entry = NONE if defense == "none" else params.defenses[defense]
    if entry is NONE or (entry.hooks <= RELEASES and not entry.described.attributes["learnt"]):
        return "none", 0.0
    return defense, strength


def prior_folder(params: Params, prior: str, scenario: str, defense: str, strength: float) -> str:
    """Where a prior lies, below the run's folder: one for each data set, or for each target if it asks one."""
    if not params.priors[prior].described.attributes.get("target_aware"):
        return f"priors/{params.scenarios[scenario].dataset}/{prior}"
    trained, at = target_of(params, defense, strength)
    return f"priors/targets/{scenario}/{trained}/{format_strength(at)}/{prior}"


def _group(params: Params, scenario: str, attack: Entry, defense: Entry) -> Group:
    seeds = params.scenarios[scenario].seeds
    if defense is NONE:
        return Group(scenario, attack.name, "none", (0.0,), seeds)
    keeps_labels = defense.described.attributes.get("keeps_labels", False)
    if inert(defense.hooks, attack.level(scenario), keeps_labels):
        return Group(scenario, attack.name, defense.name, (max(defense.strengths),), seeds[:1], inert=True)
    return Group(scenario, attack.name, defense.name, defense.strengths, seeds)


def _allowed(name: str, restriction: tuple[str, ...] | None) -> bool:
    return restriction is None or name in restriction
