"""The steps of a run, one function per rule; every path and every file is known here and nowhere else.

Private data, truth and evaluators never enter the attack step: `attack` opens the public part of a data
set, what a target released, and priors. Each step writes to a temporary name and renames. A missing data
set travels along as a reason and ends in records with status "unavailable".
"""

from __future__ import annotations

import hashlib
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inversionbench.core import numerics, provenance, records
from inversionbench.core.errors import Unreadable
from inversionbench.core.files import atomic, atomic_folder, read_json, whole, write_json, write_tensors
from inversionbench.core.scenario import Evaluation, Scenario, Target
from inversionbench.plan import cells
from inversionbench.plan.cells import Group, format_strength
from inversionbench.plan.code import attack_code
from inversionbench.plan.params import Params
from inversionbench.tracks import get_track

if TYPE_CHECKING:
    from inversionbench.core.attack import Knowledge, Reconstruction
    from inversionbench.oracle.base import Oracle

UNAVAILABLE = "unavailable.json"


def prepare(params: Params, dataset: str, download: bool = False) -> None:
    """Write data/<dataset>; where the files are missing, write the reason instead."""
    from inversionbench.data.prepare import MissingData, combine
    from inversionbench.data.prepare import prepare as write

    folder, parts = params.folder / "data" / dataset, params.combined(dataset)
    reason = next((reason for part in parts if (reason := _missing(params, part))), None)
    try:
        if parts and not reason:
            combine(params.folder / "data" / parts[0], params.folder / "data" / parts[1], folder)
        elif not parts:
            write(*params.dataset(dataset), params.data_root, folder, seed=params.seed, download=download)
    except MissingData as error:
        reason = str(error)
    if reason:
        with atomic_folder(folder) as part:
            for name in ("private", "public", "evaluation", "heldout"):
                (part / name).mkdir()
            write_json(part / "dataset.json", {"name": dataset, "unavailable": reason})
        print(reason, file=sys.stderr)


def train_target(params: Params, scenario_name: str, defense_name: str, strength: float) -> None:
    """Write targets/<scenario>/<defense>/<strength>/{released,truth}/<seed>.pt, one for each target seed."""
    scenario, track = _scenario(params, scenario_name)
    folder = params.folder / "targets" / scenario_name / defense_name / format_strength(strength)
    reason = _missing(params, scenario.dataset)
    data = None if reason else _data(params, scenario.dataset)
    defense = _defense(params, defense_name, strength, scenario_name)
    with atomic_folder(folder / "released") as released, atomic_folder(folder / "truth") as truth:
        if reason:
            write_json(released / UNAVAILABLE, reason)
            write_json(truth / UNAVAILABLE, reason)
            return
        with _Clock() as clock:
            utility, trials = track.price(scenario, defense, data, seed_of(params, scenario.dataset, "price"), progress)
        if trials:
            _timing(params, clock, "prices", scenario_name, defense_name, format_strength(strength))
        for seed in range(scenario.target_seeds):
            with _Clock() as clock:
                # by the data set, not the scenario: what differs in one thing is measured on the same images
                draw = seed_of(params, scenario.dataset, "target", seed)
                target = track.train_target(scenario, defense, data, draw, progress)
            write_tensors(released / f"{seed}.pt", target.released)
            hidden = {"truth": target.truth, "utility": target.utility | utility, "trials": trials}
            write_tensors(truth / f"{seed}.pt", hidden)
            where = ("targets", scenario_name, defense_name, format_strength(strength), str(seed))
            _timing(params, clock, *where, **target.seconds)


def train_evaluator(params: Params, entry: str) -> None:
    """Write evaluators/<entry>/evaluator.pt."""
    given = params.evaluators[entry]
    with atomic_folder(params.folder / "evaluators" / entry) as folder:
        if reason := _missing(params, given["dataset"]):
            write_json(folder / UNAVAILABLE, reason)
            return
        data = _data(params, given["dataset"])
        track = get_track(given["track"])
        with _Clock() as clock:
            draw = seed_of(params, entry, "evaluator")
            state = track.train_evaluator(given.get("options") or {}, data, draw, progress)
        write_tensors(folder / "evaluator.pt", state)
        _timing(params, clock, "evaluators", entry)


def train_prior(params: Params, dataset: str, entry: str) -> None:
    """Write priors/<dataset>/<prior>/{prior.pt, facts.json} and a sheet of samples."""
    import torch

    recipe = params.priors[entry].build()
    with atomic_folder(params.folder / "priors" / dataset / entry) as folder:
        if reason := _missing(params, dataset):
            write_json(folder / UNAVAILABLE, reason)
            return
        public = _public(params, dataset)[0]
        rng = torch.Generator().manual_seed(seed_of(params, dataset, entry, "prior"))
        unfinished = _unfinished(params, entry, public, dataset)
        with _Clock() as clock:
            state = recipe.train(public, rng, progress, checkpoint=unfinished)
        write_tensors(folder / "prior.pt", state)
        unfinished.unlink(missing_ok=True)
        write_json(folder / "facts.json", state.get("facts", {}))
        _save_sheet(folder / "sheet.png", recipe.load(state), rng)
        _timing(params, clock, "priors", dataset, entry)


def train_target_prior(params: Params, scenario_name: str, defense: str, strength: float, entry: str) -> None:
    """Write priors/targets/<scenario>/<defense>/<strength>/<prior>/<target seed>.pt, with facts and a sheet."""
    import torch

    scenario, track = _scenario(params, scenario_name)
    recipe = params.priors[entry].build()
    hidden = _defense(params, defense, strength, scenario_name)
    targets = params.folder / "targets" / scenario_name / defense / format_strength(strength) / "released"
    with atomic_folder(params.folder / cells.prior_folder(params, entry, scenario_name, defense, strength)) as folder:
        if reason := _missing(params, scenario.dataset):
            write_json(folder / UNAVAILABLE, reason)
            return
        public = _public(params, scenario.dataset)[0]
        base = _shared_prior(params, recipe.base, scenario.dataset) if recipe.base else None
        for seed in range(scenario.target_seeds):
            rng = torch.Generator().manual_seed(seed_of(params, scenario_name, entry, "prior", seed))
            released, draw = _load(targets / f"{seed}.pt"), seed_of(params, scenario_name, "release", seed)
            oracle = track.oracle(scenario, released, recipe, recipe.level, hidden, draw)
            target = provenance.file_digest(targets / f"{seed}.pt")
            of = (scenario_name, defense, format_strength(strength))
            unfinished = _unfinished(params, entry, public, *of, str(seed), target)
            with _Clock() as clock:
                state = recipe.train(public, rng, progress, target=oracle, base=base, checkpoint=unfinished)
            state["facts"] = {**state.get("facts", {}), **_passes(oracle)}
            write_tensors(folder / f"{seed}.pt", state)
            unfinished.unlink(missing_ok=True)
            if seed == 0:
                write_json(folder / "facts.json", state["facts"])
                _save_sheet(folder / "sheet.png", recipe.load(state), rng)
            _timing(params, clock, "priors", "targets", *of, entry, str(seed))


def _unfinished(params: Params, entry: str, public: Any, *key: str) -> Path:
    """Where the training of a prior keeps its state until it is done: another file for another recipe, other code,
    other public images or another target."""
    prior = params.priors[entry]
    base = prior.described.attributes.get("base")
    recipes = [repr(params.priors[name].build()) for name in (entry, base) if name]
    images = hashlib.sha256(np.ascontiguousarray(public.x).tobytes()).hexdigest()
    code = provenance.code_digest(prior.described.module)
    digest = provenance.config_digest([recipes, code, images, *key, params.seed, numerics.active()])
    return params.folder / "unfinished" / f"{entry}-{digest[:16]}.pt"


def _passes(oracle: Any) -> dict[str, int]:
    return {"queries": oracle.ledger.queries, "passes": oracle.ledger.passes}


def _save_sheet(path: Path, prior: Any, rng: Any) -> None:
    """64 samples of a prior that has a generator (students have none)."""
    import torch

    from inversionbench.survey.galleries import save_sheet

    if generator := getattr(prior, "generator", None):
        with torch.no_grad():
            save_sheet(path, generator(prior.sample(64, rng)))


def _shared_prior(params: Params, entry: str, dataset: str) -> Any:
    return params.priors[entry].build().load(_load(params.folder / "priors" / dataset / entry / "prior.pt"))


def _prior_files(params: Params, group: Group, strength: float, seed: int) -> dict[str, Path]:
    """File of every prior that an attack is given, by the name that it has for the attack."""
    scenario = params.scenarios[group.scenario]
    out = {}
    for role, entry in params.attacks[group.attack].roles(group.scenario).items():
        folder = params.folder / cells.prior_folder(params, entry, group.scenario, group.defense, strength)
        aware = params.priors[entry].described.attributes.get("target_aware")
        out[role] = folder / (_target_file(scenario, seed) if aware else "prior.pt")
    return out


def attack(params: Params, group: Group) -> int:
    """Write reconstructions/<group>/<strength>/<seed>.pt for every cell of the group; returns how many cells failed.

    A cell whose attack breaks leaves its reason in the place of an answer, and the others go on.
    """
    failed = 0
    with atomic_folder(params.folder / "reconstructions" / group.key) as folder:
        if reason := _missing(params, params.scenarios[group.scenario].dataset):
            write_json(folder / UNAVAILABLE, reason)
            return 0
        for key, strength, seed in progress(list(group.cells()), desc=group.key):
            out = folder / format_strength(strength) / str(seed)
            out.mkdir(parents=True)
            with _Clock() as clock:
                try:
                    result = _attack_cell(params, group, strength, seed)
                except Unreadable:
                    raise
                except Exception as error:
                    result = {"status": "failed", "reason": _failure(key, "attack", error)}
            failed += result["status"] == "failed"
            write_tensors(out / "reconstruction.pt", result)
            _timing(params, clock, group.key, format_strength(strength), str(seed))
    return failed


def _failure(key: str, step: str, error: Exception) -> str:
    """The reason of a failed cell, in a line; the whole traceback goes to the job's log."""
    print(f"{key}: failed", file=sys.stderr)
    traceback.print_exception(error)
    return f"{step}: {traceback.format_exception_only(error)[-1].strip().splitlines()[0]}"


def _attack_cell(params: Params, group: Group, strength: float, seed: int) -> dict[str, Any]:
    """Run one attack through its oracle; a refusal is a result."""
    import torch

    from inversionbench.core.device import device
    from inversionbench.oracle.guard import watched

    scenario, track = _scenario(params, group.scenario)
    entry = params.attacks[group.attack]
    method, level = entry.build(group.scenario), entry.level(group.scenario)
    states = {role: _load(file) for role, file in _prior_files(params, group, strength, seed).items()}
    knowledge = _knowledge(params, group, strength, seed, states)
    with _oracle(level, partial(_oracle_of, params, group, strength, seed)) as oracle:
        rng = torch.Generator().manual_seed(seed_of(params, group.scenario, group.attack, seed))
        with watched([params.results, *_data_roots(params)]) as seen:
            status, reason, answer = _answer(method, oracle, knowledge, rng)
        if seen.refused:
            status, reason, answer = "denied", "; ".join(dict.fromkeys(seen.refused)), None
        return {
            "status": status,
            "reason": reason,
            "answer": _plain(answer),
            "used": sorted(knowledge.used),
            "opened": seen.opened,
            "device": str(device()) if track.on_device and method.on_device else "cpu",
            "level": level,
            "warnings": [
                *_looks(entry.described.path),
                *_doubts(knowledge.used, len(_public(params, scenario.dataset)[0]), states),
            ],
            "cost": {
                **(answer.cost if answer else {}),
                **_prior_passes(states),
                **_passes(oracle),  # last: what the oracle counted stands, whatever an attack says of itself
                "queries_by_phase": oracle.ledger.by_phase(),
            },
        }


def _oracle(level: str, make: Callable[[], Oracle]) -> AbstractContextManager[Oracle]:
    """An oracle; at levels that only answer, its target lives in another process than the attack."""
    from inversionbench.oracle.strict import black_box, served

    return served(make) if black_box(level) else nullcontext(make())


def _oracle_of(params: Params, group: Group, strength: float, seed: int) -> Oracle:
    """The oracle of a cell, from the files; a function of the module, because another process may have to call it."""
    scenario, track = _scenario(params, group.scenario)
    entry, defense = params.attacks[group.attack], _defense(params, group.defense, strength, group.scenario)
    released, draw = _released(params, group, strength, seed), seed_of(params, group.scenario, "release", seed)
    return track.oracle(scenario, released, entry.build(group.scenario), entry.level(group.scenario), defense, draw)


def _released(params: Params, group: Group, strength: float, seed: int) -> dict[str, Any]:
    file = _target_file(params.scenarios[group.scenario], seed)
    return _load(_target_folder(params, group, strength) / "released" / file)


def _knowledge(params: Params, group: Group, strength: float, seed: int, states: Mapping[str, Any]) -> Knowledge:
    """What the scenario grants, with the priors that the attack names. states: the trained priors, by role."""
    scenario, track = _scenario(params, group.scenario)
    released = _released(params, group, strength, seed)
    entries = params.attacks[group.attack].roles(group.scenario)
    public, meta = _public(params, scenario.dataset)
    priors = {role: params.priors[entries[role]].build().load(state) for role, state in states.items()}
    knowledge = track.knowledge(scenario, released, public, meta, next(iter(priors.values()), None))
    if priors:
        knowledge.grant(priors=priors)
    return knowledge


def _data_roots(params: Params) -> list[Path]:
    """The folder of downloaded data, where one is set."""
    from inversionbench.data.sources import data_root

    root = data_root(params.data_root)
    return [root] if root else []


def _answer(method: Any, oracle: Oracle, knowledge: Knowledge, rng: Any) -> tuple[str, str, Reconstruction | None]:
    """(status, reason, answer) of one run of an attack."""
    from inversionbench.core.attack import Reconstruction
    from inversionbench.core.errors import AccessDenied, BudgetExceeded

    try:
        answer = method.run(oracle, knowledge, rng)
    except (AccessDenied, BudgetExceeded) as error:
        return "denied" if isinstance(error, AccessDenied) else "budget", str(error), None
    kind = type(answer).__name__
    wrong = answer.problem() if isinstance(answer, Reconstruction) else f"{kind} is no Reconstruction"
    return ("failed", f"attack: the answer is invalid: {wrong}", None) if wrong else ("ok", "", answer)


def _looks(path: Path) -> list[str]:
    """What the file of an attack holds that no attack needs, as a warning."""
    from inversionbench.oracle.inspection import faults

    found = faults(path)
    return [f"the attack's file {', '.join(found)}: it may have gone past the oracle"] if found else []


def _doubts(used: frozenset[str], public: int, states: Mapping[str, Any]) -> list[str]:
    """What the record of an attack warns of: too few public samples, and what training its priors warned of."""
    from inversionbench.core.prior import FEWEST

    few = [f"{public} public samples are few to learn from (fewer than {FEWEST})"]
    return [*(few if "public" in used and public < FEWEST else []),
            *(f"prior {role}: {said}" for role, state in states.items()
              for said in state.get("facts", {}).get("warnings", ()))]


def _prior_passes(states: Mapping[str, Any]) -> dict[str, int]:
    """What training the priors of an attack on this target cost at its oracle; empty for shared priors."""
    facts = [state["facts"] for state in states.values() if "passes" in state.get("facts", {})]
    paid = {f"prior_{what}": sum(f[what] for f in facts) for what in ("passes", "queries")} if facts else {}
    return {name: n for name, n in paid.items() if n or name == "prior_passes"}


def evaluate(params: Params, groups: Sequence[Group]) -> int:
    """Write cells/<scenario>/<attack>: record and gallery of every cell of one attack on one scenario; returns how
    many cells failed, here or in the attack.

    groups: those of the attack, under every defense. They share a process, because starting one costs more
    than a comparison.
    """
    failed = 0
    first = groups[0]
    scenario = params.scenarios[first.scenario]
    reason = _missing(params, scenario.dataset)
    data = None if reason else _data(params, scenario.dataset)
    evaluator: Any = {}
    if scenario.judges and data is not None:
        state = _load(params.folder / "evaluators" / scenario.judges / "evaluator.pt")
        evaluator = get_track(scenario.track).load_evaluator(state)
    todo = [(group, *cell) for group in groups for cell in group.cells()]
    with atomic_folder(params.folder / "cells" / first.scenario / first.attack) as folder:
        for group, key, strength, seed in progress(todo, desc=f"{first.scenario}/{first.attack}"):
            out = folder / group.defense / format_strength(strength) / str(seed)
            out.mkdir(parents=True)
            base = _base_record(params, group, key, strength, seed)
            if data is None:
                records.write(out, {**base, "status": "unavailable", "reason": reason})
                continue
            try:
                record = base | _judge(params, group, strength, seed, data, evaluator, base, out)
                records.write(out, record)
            except Unreadable:
                raise
            except Exception as error:
                record = base | {"status": "failed", "reason": _failure(key, "evaluation", error)}
                records.write(out, record)
            failed += record["status"] == "failed"
    return failed


def _judge(
    params: Params, group: Group, strength: float, seed: int, data: Any, evaluator: Any, base: Any, out: Path
) -> dict[str, Any]:
    """What the evaluation adds to the record of one cell; writes its gallery to `out`."""
    scenario, track = _scenario(params, group.scenario)
    result = _load(_answer_file(params, group, strength, seed), params.folder / "reconstructions" / group.key)
    if result["status"] == "failed":
        return {name: result[name] for name in ("status", "reason")}
    target = _target(params, group, strength, scenario, seed)
    defense = _defense(params, group.defense, strength, group.scenario)
    inputs = _inputs(params, group, strength, scenario, seed, data.digest)
    utility, trials = track.utility_of(scenario, target, defense, data, seed), target.trials
    hits = utility.pop("hits", None)
    if hits is not None:
        trials = [{"seed": seed % scenario.target_seeds, **records.pack(hits)}]
    found = {
        **{name: result[name] for name in ("status", "reason", "cost", "level")},
        "knowledge": {**base["knowledge"], "used": result["used"], **_opened(result)},
        "utility": utility,
        "trials": trials,
        "provenance": {**base["provenance"], "device": result["device"], **inputs},
    }
    if result["status"] == "ok":
        from inversionbench.survey import sounds

        answer = _reconstruction(result["answer"])
        judge_seed = seed_of(params, group.scenario, "evaluate", seed)
        done = track.evaluate(scenario, answer, target, data, evaluator, judge_seed)
        warnings = [*result["warnings"], *answer.notes.get("warnings", ()), *done.facts.get("warnings", ())]
        found |= _measured(done, {**answer.notes, **done.facts, **({"warnings": warnings} if warnings else {})})
        _save_gallery(out, done)
        for name, sound in done.sounds.items():
            sounds.save(out / f"{name}.wav", sound.numpy())
    return found


def _opened(result: Mapping[str, Any]) -> dict[str, list[str]]:
    """Files of no library that the attack opened, from the home folder on; nothing for nearly every attack."""
    home = str(Path.home())
    found = [path.replace(home, "~", 1) for path in result["opened"]]
    return {"opened": found} if found else {}


def _base_record(params: Params, group: Group, key: str, strength: float, seed: int) -> dict[str, Any]:
    scenario = params.scenarios[group.scenario]
    entry = params.attacks[group.attack]
    return {
        "key": key,
        "track": scenario.track,
        "scenario": group.scenario,
        "dataset": scenario.dataset,
        "model": scenario.model["name"],
        "attack": group.attack,
        "method": entry.method,
        "level": entry.level(group.scenario),
        "defense": group.defense,
        "strength": strength,
        "seed": seed,
        "target_seed": seed % scenario.target_seeds,
        "scale": params.scale,
        "kind": "control" if entry.described.attributes.get("control") else "attack",
        "inert": group.inert,
        "metrics": {},
        "groups": [],
        "unavailable": {},
        "controls": {},
        "curves": {},
        "utility": {},
        "trials": [],
        "cost": {},
        "facts": {},
        "knowledge": {"used": [], **scenario.protocol},
        "parameters": cells.parameters(params, group, strength),
        "provenance": {
            "versions": provenance.versions(), "code": attack_code(params, group), **numerics.provenance()
        },
    }


def _measured(done: Evaluation, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The measured part of a record; intervals come from the metrics' own aggregation."""
    from inversionbench.metrics._aggregate import interval

    def summary(values: np.ndarray) -> dict[str, Any]:
        values = np.asarray(values, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("a metric value is not finite: it belongs in `unavailable`, with its reason")
        bounds = interval(values, done.groups)
        low, high = (None, None) if np.isnan(bounds).any() else map(float, bounds)
        return {
            "values": [round(float(v), 6) for v in values],
            "mean": float(values.mean()),
            "n": len(values),
            "median": float(np.median(values)),
            "low": low,
            "high": high,
        }

    return {
        "metrics": {name: summary(values) for name, values in sorted(done.metrics.items())},
        "groups": [int(g) for g in done.groups],
        "unavailable": done.unavailable,
        "controls": {c: {m: float(np.mean(v)) for m, v in ms.items()} for c, ms in done.controls.items()},
        "curves": {m: [[int(b), float(np.mean(v))] for b, v in points] for m, points in done.curves.items()},
        "facts": dict(facts),
    }


def _save_gallery(out: Path, done: Evaluation) -> None:
    if not done.gallery:
        return
    from inversionbench.survey.galleries import save_gallery

    arrays: dict[str, Any] = {k: (v.clamp(0, 1) * 255).round().byte().numpy() for k, v in done.gallery.items()}
    with atomic(out / "gallery.npz") as part:
        np.savez_compressed(part, **arrays)
    save_gallery(out / "gallery.png", arrays)


def _inputs(params: Params, group: Group, strength: float, scenario: Scenario, seed: int, data: str) -> dict[str, str]:
    """Digests of everything that this number was computed from."""
    target = _target_folder(params, group, strength)
    name = _target_file(scenario, seed)
    found = {"data": data, "target": provenance.file_digest(target / "released" / name)}
    if scenario.judges:
        found["evaluator"] = provenance.file_digest(params.folder / "evaluators" / scenario.judges / "evaluator.pt")
    files = _prior_files(params, group, strength, seed)
    for index, path in enumerate(files.values()):
        found["prior" + (f"_{index}" if index else "")] = provenance.file_digest(path)
    found["reconstruction"] = provenance.file_digest(_answer_file(params, group, strength, seed))
    return found


def _answer_file(params: Params, group: Group, strength: float, seed: int) -> Path:
    """Where the answer of one attack lies."""
    folder = params.folder / "reconstructions" / group.key / format_strength(strength) / str(seed)
    return folder / "reconstruction.pt"


def seed_of(params: Params, *parts: Any) -> int:
    """A 63-bit seed from names and numbers and the run's own seed: stable, and different for different parts."""
    if params.seed:
        parts = (f"seed {params.seed}", *parts)
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8]) >> 1


def progress(items: Any, **kwargs: Any) -> Any:
    """tqdm where a person looks on, nothing elsewhere (and where tqdm is not installed)."""
    if not sys.stderr.isatty():
        return items
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    return tqdm(items, **kwargs)


class _Clock:
    """Wall and processor seconds and peak memory of a block; never part of a record."""

    def __enter__(self) -> _Clock:
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu

    def read(self) -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
        return {
            "seconds": round(self.wall, 3),
            "cpu_seconds": round(self.cpu, 3),
            "peak_memory_mib": round(peak),
            "threads": int(os.environ.get("OMP_NUM_THREADS", "0")),
        }


def _timing(params: Params, clock: _Clock, *key: str, **more: float) -> None:
    """Timings lie apart from results, which must be equal in two runs."""
    found = {**clock.read(), **{name: round(seconds, 4) for name, seconds in more.items()}}
    write_json(params.folder.joinpath("timings", *key).with_name(key[-1] + ".json"), found)


def _scenario(params: Params, name: str) -> tuple[Scenario, Any]:
    scenario = params.scenarios[name]
    return scenario, get_track(scenario.track)


def _defense(params: Params, name: str, strength: float, scenario: str) -> Any:
    from inversionbench.core.defense import NONE

    return NONE if name == "none" else params.defenses[name].build(scenario, strength=float(strength))


def _missing(params: Params, dataset: str) -> str | None:
    """Why a prepared data set has no data; None where it has."""
    path = params.folder / "data" / dataset / "dataset.json"
    if not path.is_file():
        raise Unreadable(f"{path} is not there: `inversionbench prepare {dataset}` makes it")
    return read_json(path, path.parent).get("unavailable")


def _data(params: Params, dataset: str) -> Any:
    from inversionbench.data import load

    return load(params.folder / "data" / dataset)


def _public(params: Params, dataset: str) -> tuple[Any, dict[str, Any]]:
    """The public part and the description of a data set: all of it that the attack step may open."""
    from inversionbench.data.base import load_part

    folder = params.folder / "data" / dataset
    return load_part(folder, "public"), read_json(folder / "dataset.json", folder)


def _target_folder(params: Params, group: Group, strength: float) -> Path:
    defense, at = cells.target_of(params, group.defense, strength)
    return params.folder / "targets" / group.scenario / defense / format_strength(at)


def _target_file(scenario: Scenario, seed: int) -> str:
    return f"{seed % scenario.target_seeds}.pt"


def _target(params: Params, group: Group, strength: float, scenario: Scenario, seed: int) -> Target:
    folder, name = _target_folder(params, group, strength), _target_file(scenario, seed)
    hidden = _load(folder / "truth" / name)
    return Target(_load(folder / "released" / name), hidden["truth"], hidden["utility"], trials=hidden["trials"])


def _plain(answer: Reconstruction | None) -> dict[str, Any] | None:
    return None if answer is None else dict(vars(answer.cpu()))


def _reconstruction(plain: dict[str, Any]) -> Reconstruction:
    from inversionbench.core.attack import Reconstruction

    return Reconstruction(**plain)


def _load(path: Path, folder: Path | None = None) -> Any:
    """What a step saved. folder: all that the step made, where that is more than the folder of the file."""
    import torch

    if not path.is_file():
        raise Unreadable(f"{path} is not there: an earlier step makes it (`snakemake --cores all` runs them in order)")
    with whole(path, folder or path.parent):
        return torch.load(path, weights_only=True)


def describe_cell(params: Params, key: str) -> dict[str, Any]:
    """What produced a number: the record, the files behind it and whether they are still the same (absent where they
    are gone, or where there never were any: a data set that is unavailable)."""
    folder = params.folder / "cells" / key
    record = next(records.load([folder]))
    group = cells.find(params, "/".join(key.split("/")[:3]))
    scenario = params.scenarios[group.scenario]
    strength, seed = record["strength"], record["seed"]
    now: dict[str, str] = {}
    if record["provenance"].get("data"):
        with suppress(FileNotFoundError):
            now = _inputs(params, group, strength, scenario, seed, _data(params, scenario.dataset).digest)
    return {
        "record": record,
        "scenario": asdict(scenario),
        "same_inputs": {name: record["provenance"].get(name) == digest for name, digest in now.items()},
        "same_code": record["provenance"]["code"] == attack_code(params, group),
    }
