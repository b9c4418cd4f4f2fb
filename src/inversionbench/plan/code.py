"""Which modules stand behind a step, for its digest."""

from __future__ import annotations

from inversionbench.core import provenance
from inversionbench.plan.cells import Group
from inversionbench.plan.params import Params
from inversionbench.tracks import track_names


def attack_code(params: Params, group: Group) -> str:
    """Digest of the code behind a reconstruction."""
    scenario = params.scenarios[group.scenario]
    track = track_names()[scenario.track]
    return provenance.code_digest(
        "inversionbench.core.numerics",
        params.attacks[group.attack].described.module,
        *defense_modules(params, group.defense),
        f"{track}:oracle",
        f"{track}:knowledge",
        "inversionbench.workflow.runner:attack",
        *prior_modules(params, group.attack, group.scenario),
    )


def defense_modules(params: Params, defense: str) -> list[str]:
    """Modules of a defense (none for "none"), of a chain also those of its stages."""
    if defense == "none":
        return []
    entry = params.defenses[defense]
    return [entry.described.module, *(stage.module for stage in entry.stages)]


def prior_modules(params: Params, attack: str, scenario: str) -> list[str]:
    """The modules of the priors that an attack searches."""
    return [params.priors[prior].described.module for prior in params.attacks[attack].priors(scenario)]
