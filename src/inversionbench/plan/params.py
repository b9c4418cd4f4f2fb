"""params.yaml, checked: everything wrong is said before any job runs, with its place and the nearest name.

    scale: laptop                    # name of the run; results go to <results>/<scale>/
    results: results
    data: {root: null}               # folder of downloaded data; null: INVERSIONBENCH_DATA
    tracking: {uri: null}            # null: sqlite:///<results>/mlflow.db
    compute: {numerics: portable}    # portable: the same bits on every x86-64 processor; native: this processor's own
    plugins: []                      # folders or packages with methods and tracks of your own
    seed: 0                          # another number: data, targets, attacks and evaluations all drawn anew
    resources:  RULE: {mem_mb, runtime, gpu, cpus_per_task}    # what its jobs ask of a cluster
    only: [SCENARIO, ...]            # run these scenarios and forget the others
    datasets:   ENTRY: {source?, options of data/<source>.py} or {private_from: ENTRY, public_from: ENTRY}
    evaluators: ENTRY: {track, dataset, options}
    priors:     ENTRY: {method?, params}
    scenarios:  NAME: {track, dataset, model, training, protocol, subjects, seeds, target_seeds, judges,
                      metrics}
    attacks:    ENTRY: {method?, params, settings?, priors?, scenarios?, defenses?}
    defenses:   ENTRY: {method?, params, strengths, scenarios?}

An entry is named by its method, or by any name with `method:` beside it. Every attack meets every scenario
of its track and every defense that acts there; `scenarios:` and `defenses:` restrict that, `settings:` gives
other parameters in one scenario, `priors:` of an attack another entry for a prior that its method names. A
scale is an overlay (`workflow/scales/<scale>.yaml`) merged into params.yaml key by key; null removes an
entry, `only` keeps the scenarios it names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from inversionbench.core import registry
from inversionbench.core import safe_yaml as _yaml
from inversionbench.core.errors import UserError, suggest
from inversionbench.core.scenario import Scenario
from inversionbench.core.settings import check_value
from inversionbench.models import _own_names as own_model
from inversionbench.models.names import check_model
from inversionbench.tracks import Track, get_track, track_names

SECTIONS = (
    "scale",
    "results",
    "data",
    "tracking",
    "compute",
    "plugins",
    "seed",
    "resources",
    "only",
    "datasets",
    "evaluators",
    "priors",
    "scenarios",
    "attacks",
    "defenses",
)
COMBINED = ("private_from", "public_from")


@dataclass(frozen=True)
class Entry:
    """One entry of `attacks:`, `defenses:` or `priors:`: a method with its parameters, and where it runs."""

    name: str
    kind: str
    method: str
    params: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    scenarios: tuple[str, ...] | None = None
    defenses: tuple[str, ...] | None = None
    strengths: tuple[float, ...] = ()
    instead: Mapping[str, str] = field(default_factory=dict)

    @property
    def described(self) -> registry.Method:
        return registry.describe(self.kind, self.method)

    def parameters(self, scenario: str | None = None) -> dict[str, Any]:
        """All parameters, defaults included, as they hold in one scenario."""
        given = {**self.params, **self.settings.get(scenario or "", {})}
        return {**{k: v for k, v in self.described.fields.items() if v is not registry.REQUIRED}, **given}

    def build(self, scenario: str | None = None, **more: Any) -> Any:
        """An instance of the method (imports it); lists become tuples, because instances are frozen."""
        given = {**self.params, **self.settings.get(scenario or "", {}), **more}
        return registry.get(self.kind, self.method)(**{k: _frozen(v) for k, v in given.items()})

    def level(self, scenario: str | None = None) -> str:
        """The access level of an attack here: its class attribute, or its field `access` where that chooses."""
        level = self.described.attributes["level"]
        return level if isinstance(level, str) else self.parameters(scenario)["access"]

    @property
    def stages(self) -> list[registry.Method]:
        """The defenses that a chain is made of; none for a single defense."""
        return [registry.describe("defense", stage["method"]) for stage in self.params.get("stages", ())]

    @property
    def hooks(self) -> frozenset[str]:
        """The hooks of a defense; of a chain, those of its stages."""
        parts = self.stages or [self.described]
        return frozenset().union(*(part.attributes["hooks"] for part in parts))

    def suits(self, track: Track, scenario: Scenario) -> bool:
        """Whether a defense can act in a scenario: on this kind of data, and by hooks that are called there."""
        reached = track.reaches(scenario)
        made = [part.attributes for part in (self.described, *self.stages)]
        return (
            self.hooks <= reached
            and all(not part["inputs"] or track.modality_of(scenario) in part["inputs"] for part in made)
            and all(not part["models"] or scenario.model.get("name") in part["models"] for part in made)
            and ("client_update" in reached or not any(part["federated"] for part in made))
            and (scenario.model.get("name") != own_model.NAME or not any(part["layered"] for part in made))
            and ("release_features" in reached or not any(part["halves"] for part in made))
        )

    def roles(self, scenario: str | None = None) -> dict[str, str]:
        """The priors that an attack needs here, as it names them -> the entries of `priors:` that it gets; its field
        `base` chooses where a mapping stands."""
        needed = self.described.attributes.get("prior") or ()
        if isinstance(needed, Mapping):
            needed = needed[self.parameters(scenario)["base"]]
        named = (needed,) if isinstance(needed, str) else tuple(needed)
        return {name: self.instead.get(name, name) for name in named}

    def priors(self, scenario: str | None = None) -> tuple[str, ...]:
        """The entries of `priors:` that an attack gets here."""
        return tuple(self.roles(scenario).values())


@dataclass(frozen=True)
class Params:
    """The checked parameters of one run."""

    scale: str
    results: Path
    data_root: Path | None
    tracking_uri: str
    datasets: Mapping[str, Mapping[str, Any]]
    evaluators: Mapping[str, Mapping[str, Any]]
    priors: Mapping[str, Entry]
    scenarios: Mapping[str, Scenario]
    attacks: Mapping[str, Entry]
    defenses: Mapping[str, Entry]
    raw: Mapping[str, Any]
    numerics: str = "portable"
    seed: int = 0

    def dataset(self, entry: str) -> tuple[str, dict[str, Any]]:
        """The data set behind an entry of `datasets:`, and its options."""
        options = dict(self.datasets[entry] or {})
        return options.pop("source", entry), options

    def combined(self, entry: str) -> tuple[str, ...]:
        """The entries whose private and whose public part make up this one; empty for a data set of its own."""
        options = self.datasets[entry] or {}
        return tuple(options[key] for key in COMBINED) if COMBINED[0] in options else ()

    @property
    def folder(self) -> Path:
        """Where this run's results are: <results>/<scale>."""
        return self.results / self.scale


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Overlay merged into base, key by key through nested mappings (as Snakemake merges `--configfile`).

    >>> merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}})
    {'a': {'x': 1, 'y': 3}}
    """
    out = dict(base)
    for key, value in overlay.items():
        nested = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merge(out[key], value) if nested else value
    return out


def read(path: str | Path, *overlays: str | Path) -> Params:
    """Read and check params.yaml (or the JSON that a run wrote), with the overlays of a scale, in their order."""
    raw = _yaml.read(Path(path))
    for overlay in overlays:
        raw = merge(raw, _yaml.read(Path(overlay)))
    return check(raw, str((path, *overlays)[-1]))


def check(raw: Mapping[str, Any], source: str = "params.yaml") -> Params:
    """Check everything that can be checked without running, and report all that is wrong at once."""
    problems: list[str] = []

    def attempt(function: Any, *args: Any) -> Any:
        try:
            return function(*args)
        except UserError as error:
            problems.append(str(error))
            return None

    problems += _yaml.problems(raw) or _schema_errors(raw)
    if problems:
        raise UserError(f"{source}:\n  " + "\n  ".join(problems))

    registry.use(raw.get("plugins") or ())
    entries_of = SECTIONS[SECTIONS.index("datasets") :]
    sections = {s: {k: v for k, v in (raw.get(s) or {}).items() if v is not None} for s in entries_of}
    if raw.get("only"):
        attempt(_keep, raw["only"], sections)
    for name, options in sections["datasets"].items():
        attempt(_check_dataset, name, options, sections["datasets"])
    scenarios = {n: attempt(_scenario, n, s, sections) for n, s in sections["scenarios"].items()}
    entries = {
        plural: {n: attempt(_entry, kind, plural, n, e or {}, sections) for n, e in sections[plural].items()}
        for kind, plural in (("prior", "priors"), ("attack", "attacks"), ("defense", "defenses"))
    }
    for name, options in sections["evaluators"].items():
        attempt(_check_evaluator, name, options, sections)
    if not problems:
        for entry in entries["attacks"].values():
            attempt(_check_priors, entry, entries["priors"])
        for entry in entries["priors"].values():
            attempt(_check_base, entry, entries["priors"])
    if problems:
        raise UserError(f"{source}:\n  " + "\n  ".join(problems))

    results = Path(raw.get("results") or "results").expanduser()
    root = (raw.get("data") or {}).get("root")
    uri = (raw.get("tracking") or {}).get("uri")
    if uri and re.search(r"//[^/@]*:[^/@]+@", uri):
        raise UserError(f"{source}: tracking.uri holds a password, which would stand in results and logs: set it by "
                        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (PostgreSQL: PGPASSWORD)")  # fmt: skip
    return Params(
        scale=raw["scale"],
        results=results,
        data_root=Path(root).expanduser() if root else None,
        tracking_uri=uri or f"sqlite:///{results}/mlflow.db",
        datasets=sections["datasets"],
        evaluators=sections["evaluators"],
        priors=entries["priors"],
        scenarios=scenarios,
        attacks=entries["attacks"],
        defenses=entries["defenses"],
        raw=raw,
        numerics=(raw.get("compute") or {}).get("numerics", "portable"),
        seed=raw.get("seed", 0),
    )


def _schema_errors(raw: Mapping[str, Any]) -> list[str]:
    """Shape errors from the JSON schema, with the place and the nearest valid key."""
    import jsonschema

    schema = yaml.safe_load((Path(__file__).parent / "params.schema.yaml").read_text())
    out = []
    for error in jsonschema.Draft202012Validator(schema).iter_errors(raw):
        where = ".".join(map(str, error.absolute_path)) or "top level"
        if error.validator == "additionalProperties":
            allowed = list(error.schema.get("properties", {}))
            for key in sorted(set(error.instance) - set(allowed)):
                out.append(f"{where}: unknown key '{key}': {suggest(key, allowed)}")
        elif error.validator == "enum":
            out.append(f"{where}: '{error.instance}': {suggest(str(error.instance), error.validator_value)}")
        else:
            out.append(f"{where}: {error.message}")
    return out


def _keep(only: Sequence[str], sections: dict[str, dict[str, Any]]) -> None:
    """Drop all scenarios but `only`, and what entries say of those that go."""
    known = sections["scenarios"]
    for name in only:
        _known(name, "only", "scenario", known)
    gone = known.keys() - set(only)
    sections["scenarios"] = {name: s for name, s in known.items() if name not in gone}
    for kind in ("attacks", "defenses"):
        for name, entry in sections[kind].items():
            kept = dict(entry)
            if entry.get("scenarios") is not None:
                kept["scenarios"] = [s for s in entry["scenarios"] if s not in gone]
            if entry.get("settings"):
                kept["settings"] = {s: v for s, v in entry["settings"].items() if s not in gone}
            sections[kind][name] = kept


def _known(name: str, where: str, kind: str, allowed: Mapping[str, Any]) -> None:
    if name not in allowed:
        raise UserError(f"{where}: unknown {kind} '{name}': {suggest(name, allowed)}")


def _check_dataset(name: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    given = dict(options or {})
    if set(COMBINED) & set(given):
        if set(given) != set(COMBINED):
            raise UserError(f"datasets.{name}: a combined set has {' and '.join(COMBINED)}, and nothing else")
        for key, part in given.items():
            _known(part, f"datasets.{name}.{key}", "entry of datasets", known)
            if set(COMBINED) & set(known[part] or {}):
                raise UserError(f"datasets.{name}.{key}: '{part}' is a combined set itself")
        return
    source = given.pop("source", name)
    registry.check_parameters(_described("dataset", source, f"datasets.{name}"), given, f"datasets.{name}")


def _described(kind: str, method: str, where: str) -> registry.Method:
    try:
        return registry.describe(kind, method)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _scenario(name: str, given: Mapping[str, Any], sections: Mapping[str, Any]) -> Scenario:
    where = f"scenarios.{name}"
    _known(given["track"], f"{where}.track", "track", track_names())
    _known(given["dataset"], f"{where}.dataset", "entry of datasets", sections["datasets"])
    if given.get("judges"):
        _known(given["judges"], f"{where}.judges", "entry of evaluators", sections["evaluators"])
        _check_judges(given, sections, f"{where}.judges")
    further = dict.fromkeys(get_track(given["track"]).further())
    for metric in given.get("metrics", ()):
        _known(metric, f"{where}.metrics", "further metric", further)
    values: dict[str, Any] = {k: tuple(v) if k in ("seeds", "metrics") else v for k, v in given.items()}
    if not {"name", "import"} & set(values["model"]):
        raise UserError(f"{where}.model: needs a `name`, or `import: package:factory` for a network of your own")
    if "import" in values["model"]:
        values["model"] = {"name": own_model.NAME, **values["model"]}
    scenario = Scenario(name, **values)
    if scenario.target_seeds > len(scenario.seeds):
        raise UserError(f"{where}.target_seeds: {scenario.target_seeds} targets, but only {len(scenario.seeds)} "
                        "under `seeds`: each needs a seed of its own")
    _check_modality(scenario, sections, where)
    try:
        get_track(scenario.track).check(scenario)
    except UserError as error:
        told = str(error)
        raise UserError(told if told.startswith(where) else f"{where}.{told}") from None
    return scenario


def _check_modality(scenario: Scenario, sections: Mapping[str, Any], where: str) -> None:
    """The data are of the kind that the track attacks: no images where it wants tables."""
    wanted = get_track(scenario.track).modality_of(scenario)
    options = sections["datasets"][scenario.dataset] or {}
    for entry in [options[key] for key in COMBINED if key in options] or [scenario.dataset]:
        source = (sections["datasets"].get(entry) or {}).get("source", entry)
        card = _described("dataset", source, f"datasets.{entry}").attributes.get("card") or {}
        if card.get("modality", wanted) != wanted:
            raise UserError(f"{where}.dataset: '{scenario.dataset}' is of kind {card['modality']}, "
                            f"the {scenario.track} track attacks {wanted}")  # fmt: skip


def _check_judges(given: Mapping[str, Any], sections: Mapping[str, Any], where: str) -> None:
    """Evaluators are of the scenario's track, or of the one that judges for it, and trained on its private data."""
    judges = sections["evaluators"][given["judges"]]

    def private(dataset: str) -> str:
        return (sections["datasets"].get(dataset) or {}).get(COMBINED[0], dataset)

    wanted_track = get_track(given["track"]).judged_by or given["track"]
    for name, got, wanted in (("track", judges["track"], wanted_track),
                              ("dataset", private(judges["dataset"]), private(given["dataset"]))):
        if got != wanted:
            raise UserError(f"{where}: '{given['judges']}' is of {name} '{got}', the scenario of '{wanted}'")


def _entry(kind: str, plural: str, name: str, given: Mapping[str, Any], sections: Mapping[str, Any]) -> Entry:
    where = f"{plural}.{name}"
    method = given.get("method", name)
    described = _described(kind, method, where)
    entry = Entry(
        name,
        kind,
        method,
        given.get("params") or {},
        {scenario: params for scenario, params in (given.get("settings") or {}).items() if params},
        _tuple(given.get("scenarios")),
        _tuple(given.get("defenses")),
        tuple(given.get("strengths") or ()),
        given.get("priors") or {},
    )
    for scenario in [*(entry.scenarios or ()), *entry.settings]:
        _known(scenario, where, "scenario", sections["scenarios"])
    for defense in entry.defenses or ():
        _known(defense, f"{where}.defenses", "defense", {**sections["defenses"], "none": None})
    registry.check_parameters(described, entry.params, f"{where}.params")
    for scenario, params in entry.settings.items():
        registry.check_parameters(described, {**entry.params, **params}, f"{where}.settings.{scenario}")
    if kind == "attack":
        _check_level(entry, where)
    if kind == "prior":  # networks of its own, by name
        for i, model in enumerate(entry.params.get("models", ())):
            check_model(model, f"{where}.params.models[{i}]")
    if method == "chain":
        from inversionbench.core.update_path import check_chain

        check_chain(entry.parameters()["stages"], entry.parameters()["varies"], where)
    if kind == "defense":
        if "strength" in entry.params:
            raise UserError(f"{where}.params: give the strength under 'strengths'")
        if not entry.strengths or 0 in entry.strengths:
            raise UserError(f"{where}.strengths: give at least one strength, none of them 0 (0 is no defense)")
        for strength in entry.strengths:
            check_value(strength, described.types["strength"], f"{where}.strengths")
    return entry


def _check_level(entry: Entry, where: str) -> None:
    level = entry.described.attributes.get("level")
    if isinstance(level, tuple):
        for scenario in [None, *entry.settings]:
            got = entry.parameters(scenario)["access"]
            if got not in level:
                raise UserError(f"{where}: access '{got}': {suggest(got, level)}")


def _check_priors(entry: Entry, priors: Mapping[str, Entry]) -> None:
    choice = entry.described.attributes.get("prior")
    for scenario in [None, *entry.settings]:
        base = entry.parameters(scenario).get("base")
        if isinstance(choice, Mapping) and base not in choice:
            raise UserError(f"attacks.{entry.name}: base '{base}': {suggest(str(base), choice)}")
        for prior in entry.priors(scenario):
            _known(prior, f"attacks.{entry.name} needs a prior", "entry of priors", priors)
    named = {role for scenario in [None, *entry.settings] for role in entry.roles(scenario)}
    for role in entry.instead:
        _known(role, f"attacks.{entry.name}.priors", "prior of this attack", dict.fromkeys(named))


def _check_base(entry: Entry, priors: Mapping[str, Entry]) -> None:
    """A prior trained on a target's answers may start from a shared one, and only from such a one."""
    base = entry.described.attributes.get("base")
    if base:
        _known(base, f"priors.{entry.name} starts from a prior", "entry of priors", priors)
        if priors[base].described.attributes.get("target_aware"):
            raise UserError(f"priors.{entry.name}: it starts from '{base}', which needs a target of its own")


def _check_evaluator(name: str, options: Mapping[str, Any], sections: Mapping[str, Any]) -> None:
    _known(options["dataset"], f"evaluators.{name}.dataset", "entry of datasets", sections["datasets"])
    _known(options["track"], f"evaluators.{name}.track", "track", track_names())
    try:
        get_track(options["track"]).check_evaluator(options.get("options") or {})
    except UserError as error:
        raise UserError(f"evaluators.{name}.{error}") from None


def _tuple(value: Any) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value
