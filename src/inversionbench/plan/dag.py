"""What the Snakefile needs to know: for every rule its jobs, inputs, parameters and code digests.

Imports neither torch nor any method (but for `try_out`, after a change of the parameters), so that a cluster job,
which parses the Snakefile again, starts fast.
Each rule gets only its own part of the parameters (`config`), so that a changed value re-runs what it
touches, and the digest of exactly the code it runs (`code`), so that an edited module does too.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from inversionbench.core import registry
from inversionbench.core.errors import UserError
from inversionbench.core.files import write_json
from inversionbench.core.provenance import code_digest, config_digest, file_digest, syntax
from inversionbench.core.records import SCHEMA
from inversionbench.core.scenario import Scenario
from inversionbench.models import _own_names as own_model
from inversionbench.plan import cells
from inversionbench.plan.cells import Group, format_strength
from inversionbench.plan.code import attack_code, defense_modules
from inversionbench.plan.params import Params, check
from inversionbench.tracks import get_track, track_names

DATA_FILES = ("dataset.json", "private", "public", "evaluation", "heldout")


class Plan:
    """The plan of one run, from Snakemake's `config`."""

    def __init__(self, raw: Mapping[str, Any]):
        self.params: Params = check(raw)
        self.folder = self.params.folder
        self.groups = {group.key: group for group in cells.groups(self.params)}
        if not self.groups:
            raise UserError("nothing to run: no attack of `attacks:` meets a scenario of its track in `scenarios:`")
        self.targets = cells.targets(self.params)

    @property
    def file(self) -> Path:
        """Where the jobs of this run read their parameters: named by what it holds, so no other call changes it."""
        return self.folder / "params" / f"{config_digest(self.params.raw)[:16]}.json"

    def prepare_run(self) -> None:
        """Write the parameters for the jobs; called when a run starts, not when one is only planned."""
        write_json(self.file, self.params.raw)
        write_json(self.folder / "params.json", self.params.raw)  # the last run's, for people and `export`

    def try_out(self) -> None:
        """Make every attack, defense and prior as the jobs will; raises `UserError` with all that their classes refuse.

        Imports them, and so torch: not done again for parameters that a run started with, and never by a job.
        """
        if self.file.is_file():
            return
        wanted: dict[tuple[str, str, str | None, float | None], None] = {}
        for g in self.groups.values():
            wanted["attacks", g.attack, g.scenario, None] = None
            wanted |= {("priors", p, None, None): None for p in self.params.attacks[g.attack].priors(g.scenario)}
            wanted |= {("defenses", g.defense, g.scenario, s): None for s in g.strengths if g.defense != "none"}
        problems: dict[str, None] = {}
        for section, name, scenario, strength in wanted:
            more = {} if strength is None else {"strength": float(strength)}
            try:
                getattr(self.params, section)[name].build(scenario, **more)
            except (TypeError, ValueError, UserError) as error:
                problems[f"{section}.{name}: {error}"] = None
        if problems:
            raise UserError("bad values:\n  " + "\n  ".join(problems))

    # --- what there is -------------------------------------------------------------------------------

    @cached_property
    def datasets(self) -> list[str]:
        used = {s.dataset for s in self.params.scenarios.values()}
        used |= {self.params.evaluators[j]["dataset"] for j in self.judges}
        return sorted(used.union(*(self.params.combined(d) for d in used)))

    @cached_property
    def judges(self) -> list[str]:
        return sorted({s.judges for s in self.params.scenarios.values() if s.judges})

    @cached_property
    def priors(self) -> list[str]:
        """Folders of every prior that some attack searches or that another starts from."""
        return sorted({path for g in self.groups.values() for path in self._priors(g)})

    def _priors(self, group: Group) -> list[str]:
        out = []
        for prior in self.params.attacks[group.attack].priors(group.scenario):
            for needed in (self.base_of(prior), prior):
                if needed:
                    out += [cells.prior_folder(self.params, needed, group.scenario, group.defense, s)
                            for s in group.strengths]
        return [f"{self.folder}/{path}" for path in dict.fromkeys(out)]

    def dataset_of(self, scenario: str) -> str:
        return self.params.scenarios[scenario].dataset

    def base_of(self, prior: str) -> str | None:
        return self.params.priors[prior].described.attributes.get("base")

    def resources(self, rule: str) -> dict[str, Any]:
        """What the parameters ask of a cluster for the jobs of a rule; memory grows with each new attempt."""
        wanted = dict((self.params.raw.get("resources") or {}).get(rule) or {})
        memory = wanted.get("mem_mb")
        return {**wanted, "mem_mb": lambda wildcards, attempt: memory * attempt} if memory else wanted

    # --- inputs ----------------------------------------------------------------------------------------

    def data(self, dataset: str, *parts: str) -> list[str]:
        """Files of a prepared data set: its description and some of its parts."""
        return [f"{self.folder}/data/{dataset}/{part}" for part in ("dataset.json", *parts)]

    def prepare_inputs(self, dataset: str) -> list[str]:
        """The two prepared sets behind a combined one; nothing for the others."""
        return [path for part in self.params.combined(dataset) for path in self.data(part, *DATA_FILES[1:])]

    def released(self, group: Group) -> list[str]:
        return [f"{self._target(group, s)}/released" for s in group.strengths]

    def truth(self, group: Group) -> list[str]:
        return [f"{self._target(group, s)}/truth" for s in group.strengths]

    def _target(self, group: Group, strength: float) -> str:
        defense, at = cells.target_of(self.params, group.defense, strength)
        return f"{self.folder}/targets/{group.scenario}/{defense}/{format_strength(at)}"

    def attack_inputs(self, key: str) -> list[str]:
        """The public part, what the targets released, and the prior: nothing else may enter an attack."""
        group = self.groups[key]
        return [*self.data(self.dataset_of(group.scenario), "public"), *self.released(group), *self._priors(group)]

    def target_prior_inputs(self, scenario: str, defense: str, strength: str, prior: str) -> list[str]:
        """Public data, what the target released, and the prior to start from."""
        dataset, base = self.dataset_of(scenario), self.base_of(prior)
        released = f"{self.folder}/targets/{scenario}/{defense}/{strength}/released"
        start = [f"{self.folder}/priors/{dataset}/{base}"] if base else []
        return [*self.data(dataset, "public"), released, *start]

    def evaluate_inputs(self, key: str) -> list[str]:
        """`key`: scenario/attack. Unlike the attack, the evaluation sees everything."""
        groups = cells.of_attack(self.params, key)
        return list(dict.fromkeys(path for group in groups for path in self.judged(group)))

    def judged(self, group: Group) -> list[str]:
        """What the evaluation of one group reads."""
        scenario = self.params.scenarios[group.scenario]
        judges = [f"{self.folder}/evaluators/{scenario.judges}"] if scenario.judges else []
        return [*self.data(scenario.dataset, *DATA_FILES[1:]), f"{self.folder}/reconstructions/{group.key}",
                *self.released(group), *self.truth(group), *judges]

    def outputs(self) -> list[str]:
        """Everything that a whole run leaves: models and records as well as the tables made from them."""
        return [*self.data_outputs(), *self.model_outputs(), *self.cell_outputs(), f"{self.folder}/survey"]

    def data_outputs(self) -> list[str]:
        return [path for d in self.datasets for path in self.data(d, *DATA_FILES[1:])]

    def model_outputs(self) -> list[str]:
        targets = [f"{self.folder}/targets/{s}/{d}/{format_strength(x)}" for s, d, x in self.targets]
        return [
            *(f"{t}/{part}" for t in targets for part in ("released", "truth")),
            *(f"{self.folder}/evaluators/{j}" for j in self.judges),
            *self.priors,
        ]

    def cell_outputs(self) -> list[str]:
        return sorted({f"{self.folder}/cells/{g.scenario}/{g.attack}" for g in self.groups.values()})

    def answers(self) -> list[str]:
        """What people answered in blind tests so far (`survey.blind`)."""
        return sorted(map(str, (self.folder / "blind").glob("*/*/*/*/*.json")))

    # --- parameters and code -----------------------------------------------------------------------------

    def prepare(self, dataset: str) -> dict[str, str]:
        if parts := self.params.combined(dataset):
            return self._param(parts, "inversionbench.data.prepare", "inversionbench.workflow.runner:prepare")
        source, options = self.params.dataset(dataset)
        method = registry.describe("dataset", source)
        config = {"options": options, "files": self._files(source, options)}
        steps = ("inversionbench.data.prepare", "inversionbench.workflow.runner:prepare")
        return self._param(config, method.module, *steps)

    def train_target(self, scenario: str, defense: str) -> dict[str, str]:
        s = self.params.scenarios[scenario]
        entry = cells.defense_entry(self.params, defense)
        config = {
            "model": s.model,
            "training": s.training,
            "protocol": s.protocol,
            "subjects": s.subjects,
            "seeds": s.target_seeds,
            "defense": entry.parameters(scenario) if defense != "none" else {},
        }
        if own := own_model.digests(s.model):
            config["own"] = own
        modules = defense_modules(self.params, defense)
        steps = _steps(s.track, "train_target", "price")
        return self._param(config, *steps, *modules, "inversionbench.workflow.runner:train_target")

    def train_evaluator(self, judge: str) -> dict[str, str]:
        given = self.params.evaluators[judge]
        track = f"{track_names()[given['track']]}:train_evaluator"
        return self._param(given, track, "inversionbench.workflow.runner:train_evaluator")

    def train_prior(self, prior: str) -> dict[str, str]:
        entry = self.params.priors[prior]
        return self._param(entry.parameters(), entry.described.module, "inversionbench.workflow.runner:train_prior")

    def train_target_prior(self, scenario: str, defense: str, prior: str) -> dict[str, str]:
        """Unlike a shared prior it asks the target, through the oracle and the defense."""
        s, entry = self.params.scenarios[scenario], self.params.priors[prior]
        config = {
            "prior": entry.parameters(),
            "protocol": s.protocol,
            "model": s.model,
            "defense": cells.defense_entry(self.params, defense).parameters(scenario) if defense != "none" else {},
        }
        steps = [*_steps(s.track, "oracle"), "inversionbench.workflow.runner:train_target_prior"]
        return self._param(config, entry.described.module, *defense_modules(self.params, defense), *steps)

    def attack(self, key: str) -> dict[str, str]:
        group = self.groups[key]
        scenario = self.params.scenarios[group.scenario]
        entry = cells.defense_entry(self.params, group.defense)
        config = {
            "attack": self.params.attacks[group.attack].parameters(group.scenario),
            "defense": entry.parameters(group.scenario) if group.defense != "none" else {},
            "strengths": group.strengths,
            "seeds": group.seeds,
            "protocol": scenario.protocol,
            "model": scenario.model,
        }
        if own := own_model.digests(scenario.model):
            config["own"] = own
        if instead := self.params.attacks[group.attack].instead:
            config["priors"] = dict(instead)
        return {**self._param(config), "code": attack_code(self.params, group)}

    def evaluate(self, key: str) -> dict[str, str]:
        groups = cells.of_attack(self.params, key)
        scenario = self.params.scenarios[groups[0].scenario]
        steps = _steps(scenario.track, "evaluate", "load_evaluator", "utility_of")
        modules = [m for group in groups for m in defense_modules(self.params, group.defense)]
        modules += _metric_modules(scenario)
        config = {
            "scale": self.params.scale,
            "protocol": scenario.protocol,
            "training": scenario.training,
            "metrics": scenario.metrics,
            "groups": [group.key for group in groups],
            "schema": SCHEMA,
        }
        return self._param(config, *steps, *modules, "inversionbench.workflow.runner:evaluate")

    def survey(self) -> dict[str, str]:
        others = [p for p in sorted(registry.PACKAGE.rglob("*")) if p.suffix in (".j2", ".csv", ".yaml")]
        config: dict[str, Any] = {"groups": sorted(self.groups), "templates": [file_digest(p) for p in others]}
        config["words"] = registry.quantities()  # code digests are without them
        tracks = sorted({track_names()[s.track] for s in self.params.scenarios.values()})
        config["tracks"] = [syntax(path) for path in map(registry.module_path, tracks) if path]
        drawn = [registry.module_of(path) for path in registry.figures()]
        return self._param(config, "inversionbench.survey.build", *drawn)

    def _param(self, config: Any, *modules: str) -> dict[str, str]:
        """What a rule depends on, short: its part of the parameters with what every number hangs on, and its code."""
        whole = {"config": config, "seed": self.params.seed, "numerics": self.params.numerics}
        return {"config": config_digest(whole), "code": code_digest("inversionbench.core.numerics", *modules)}

    def _files(self, name: str, options: Mapping[str, Any]) -> list[list[Any]]:
        """Size and time of the declared files of a data set: it is prepared again when they appear."""
        from inversionbench.data import prepare, sources

        found = sources.present(prepare.make(name, options), name, sources.data_root(self.params.data_root))
        return found.fingerprint() if found else []


def _metric_modules(scenario: Scenario) -> list[str]:
    """The modules of the metrics that are measured in every cell of a scenario's track, and of those it asks for."""
    track, known = get_track(scenario.track), registry.quantities()
    names = {*track.metrics, *scenario.metrics} - ({*track.further()} - {*scenario.metrics})
    return sorted({known[name]["module"] for name in names if name in known})


def _steps(track: str, *names: str) -> list[str]:
    """The methods of a track, by name, that it does not only inherit."""
    own = vars(type(get_track(track)))
    return [f"{track_names()[track]}:{name}" for name in names if name in own]
