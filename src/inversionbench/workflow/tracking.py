"""Records -> MLflow, for looking: one experiment per track, one run per cell, found again by its key.

Fed from records alone, so losing the server loses nothing, and feeding twice changes nothing: a run carries
the digest of its record (tag `record_sha`, set last) and is skipped while that is equal. One process writes;
jobs never import mlflow. A server that cannot be reached, a locked database, a broken record: the sync says
so and ends, it never raises and never waits for long. Several clones may feed one store: each touches its own runs.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inversionbench.core import records
from inversionbench.core.files import atomic, write_text
from inversionbench.survey import collect

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run
    from mlflow.tracking import MlflowClient

# mlflow's own: one retry, two seconds; by default an unreachable server blocks every call for minutes
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
LONGEST, KEY, BATCH, METRICS = 6000, 250, 100, 1000  # mlflow's limits: value, name, parameters and all entries per call
PATIENCE = 120.0  # seconds without a run written, after which a store is given up
ENDED = {"ok": "FINISHED", "failed": "FAILED"}  # any other status of a cell: "KILLED"
IDENTITY = ("scenario", "dataset", "model", "attack", "method", "level", "defense", "strength", "seed")
SHOWN = ("scenario", "attack", "defense", "strength", "seed")  # columns of the shared view
VIEW = "leakage"  # its name in links
PREFIX = "inversionbench-"  # of experiments; the track follows
TAGS = ("attack", "method", "defense", "strength", "seed", "scale", "kind", "level", "status", "scenario", "track",
        "dataset", "model")


def sync(cells: Path, uri: str, scale: str, planned: Collection[str] | None = None) -> dict[str, Any]:
    """Make the runs of one scale in MLflow equal to the records below `cells`; with `planned`, to those of these keys:
    records of earlier parameters stay on disk.

    Returns {"status": "ok" or "failed", "reason", "added", "replaced", "unchanged", "removed"}; the counts
    say what was done up to a failure. Runs whose record is gone are removed (MLflow keeps them as deleted).
    """
    counts: dict[str, Any] = {"status": "ok", "reason": "", "added": 0, "replaced": 0, "unchanged": 0, "removed": 0}
    try:
        found = {record["key"]: record for record in records.load(records.find(Path(cells)))
                 if planned is None or record["key"] in planned}
        if not found:
            raise FileNotFoundError(f"no records below {cells}; the runs in MLflow are left as they are")
        with _environment():
            _within_patience(lambda: _sync(found, _client(uri), uri, scale, _clone(Path(cells)), counts), counts)
    except Exception as error:  # whatever is wrong with the server, the survey does not depend on it
        reason = f"{type(error).__name__}: {_first_line(error)}{_advice(error, uri)}"
        counts |= {"status": "failed", "reason": reason}
        print(f"MLflow ({uri}) is not up to date: {reason}")
    return counts


def _within_patience(work: Callable[[], None], counts: Mapping[str, Any]) -> None:
    """Run `work`; `TimeoutError` where `counts` stand still for `PATIENCE` seconds. A server that answers byte by byte,
    or asks to come back in an hour, passes every timeout of a single call; what hangs then ends with this process."""
    failed: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    seen, since = dict(counts), time.monotonic()
    while thread.is_alive():
        thread.join(timeout=0.2)
        if dict(counts) != seen:
            seen, since = dict(counts), time.monotonic()
        elif time.monotonic() - since > PATIENCE:
            raise TimeoutError(f"nothing was written for {PATIENCE:g} s")
    if failed:
        raise failed[0]


def _clone(cells: Path) -> str:
    """What marks the runs of this folder of results: drawn once, kept beside them."""
    path = cells.parent.parent / ".tracking-clone"
    if not path.is_file():
        write_text(path, uuid.uuid4().hex + "\n")
    return path.read_text().strip()


def _advice(error: Exception, uri: str) -> str:
    """What to do about a SQLite file that is damaged or of another version; nothing where another process holds it."""
    database = _database(uri)
    if database is None or not database.is_file() or "locked" in str(error):
        return ""
    return f". If {database} is damaged, delete it and sync again: all it holds is made from the records"


def _sync(
    found: Mapping[str, dict[str, Any]],
    client: MlflowClient,
    uri: str,
    scale: str,
    clone: str,
    counts: dict[str, Any],
) -> None:
    experiments: dict[str, Experiment] = {}
    for track in sorted({record["track"] for record in found.values()}):
        experiments[track] = _experiment(client, track, uri)
        for name, value in _about(track, experiments[track].experiment_id).items():
            client.set_experiment_tag(experiments[track].experiment_id, name, value)
    every = client.search_experiments(filter_string=f"name LIKE '{PREFIX}%'")  # a track may have no records any more
    existing = _existing(client, [e.experiment_id for e in every], scale, clone)
    for key, record in found.items():
        sha = records.digest(record)
        runs = existing.pop(key, [])
        kept = next((run for run in runs if run.data.tags.get("record_sha") == sha), None)
        if not kept:
            _write(client, experiments[record["track"]].experiment_id, record, sha, clone)
        counts["unchanged" if kept else "replaced" if runs else "added"] += 1
        for run in runs:
            if run is not kept:
                client.delete_run(run.info.run_id)
    for runs in existing.values():
        for run in runs:
            client.delete_run(run.info.run_id)
            counts["removed"] += 1


def _write(client: MlflowClient, experiment: str, record: dict[str, Any], sha: str, clone: str) -> None:
    """One run. The digest comes last: a run that was cut short has none, and is written again."""
    from mlflow.entities import Metric, Param

    seconds = record["timing"].get("seconds") or 0.0
    start = int(time.time() * 1000)
    name = f"{record['attack']} | {record['defense']}@{record['strength']:g} | {record['scenario']} | {record['seed']}"
    tags = {"run_key": record["key"], **{t: str(record[t]) for t in TAGS}, "mlflow.note.content": _note(record)}
    tags["clone"] = clone
    tags["knows_defense"] = str(collect.aware(record))
    run = client.create_run(experiment, start_time=start, tags=tags, run_name=name).info.run_id
    metrics = [Metric(_name(k), v, start, step) for k, v, step in _metrics(record)]
    params = [Param(k, v) for k, v in _parameters(record)]
    while params or metrics:  # each call is a few transactions, whatever it holds
        some, params = params[:BATCH], params[BATCH:]
        many, metrics = metrics[: METRICS - BATCH], metrics[METRICS - BATCH :]
        client.log_batch(run, metrics=many, params=some)
    picture = Path(record["folder"]) / "gallery.png"
    if picture.is_file():
        client.log_artifact(run, str(picture))
    client.set_terminated(run, ENDED.get(record["status"], "KILLED"), start + int(seconds * 1000))
    client.set_tag(run, "record_sha", sha)


def _metrics(record: Mapping[str, Any]) -> Iterator[tuple[str, float, int]]:
    """(name, value, step) of everything that is a finite number; curves have their budget as step.

    What stands before a slash is a section of its own in MLflow's charts; the first section holds the means.
    """
    numbers: dict[str, Any] = {name: metric["mean"] for name, metric in record["metrics"].items()}
    for name, metric in record["metrics"].items():
        numbers |= {f"spread/{name}.{part}": metric.get(part) for part in ("low", "high", "median")}
    for part, section in (("controls", "control"), ("utility", "utility"), ("cost", "cost"), ("timing", "cost")):
        numbers |= {f"{section}/{name}": value for name, value in _flat(record[part])}
    for name, value in numbers.items():
        if _finite(value):
            yield name, float(value), 0
    for name, points in record["curves"].items():
        for budget, value in points:
            if _finite(value):
                yield f"curve/{name}", float(value), int(budget)


def _parameters(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values as MLflow takes them; what makes two cells differ comes first."""
    seen = {"defense.strength"}  # stands among the first already
    for name, value in [*((k, record[k]) for k in IDENTITY), *_flat(record["parameters"])]:
        key, text = _name(name), value if isinstance(value, str) else str(value)
        if key not in seen:
            seen.add(key)
            yield key, text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings, with dotted names.

    >>> list(_flat({"b": {"y": 1}, "a": [1, 2]}))
    [('a', [1, 2]), ('b.y', 1)]
    """
    for key in sorted(value):
        if isinstance(value[key], Mapping):
            yield from _flat(value[key], f"{prefix}{key}.")
        else:
            yield prefix + key, value[key]


def _name(name: str) -> str:
    """A name that MLflow accepts.

    >>> _name("lpips_like[resnet]"), _name("dgc@0.9")
    ('lpips_like.resnet', 'dgc_0.9')
    """
    return re.sub(r"[^\w\-. :/]", "_", name.replace("[", ".").replace("]", ""))[:KEY]


def _note(record: Mapping[str, Any]) -> str:
    if record["status"] != "ok":
        return f"{record['status']}: {record.get('reason')}"
    means = ", ".join(f"{k} {m['mean']:.4g} [{_short(m.get('low'))}, {_short(m.get('high'))}] n {m['n']}"
                      for k, m in sorted(record["metrics"].items()))
    return means or "no metric"


def _short(value: Any) -> str:
    return f"{value:.4g}" if _finite(value) else "-"


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _existing(client: MlflowClient, experiments: list[str], scale: str, clone: str) -> dict[str, list[Run]]:
    """The runs of a scale that this clone wrote, by key; those of before clones had marks count as its own."""
    found: dict[str, list[Run]] = {}
    token = None
    while True:
        page = client.search_runs(experiments, f"tags.scale = '{scale}'", max_results=1000, page_token=token)
        for run in page:
            if run.data.tags.get("clone", clone) != clone:
                continue
            found.setdefault(run.data.tags.get("run_key", ""), []).append(run)
        token = page.token
        if not token:
            return found


def _experiment(client: MlflowClient, track: str, uri: str) -> Experiment:
    """The experiment of a track, created or taken back from the deleted ones."""
    name = PREFIX + track
    known = client.get_experiment_by_name(name)
    if known is None:
        folder = _database(uri)
        place = (folder.parent / "mlflow-artifacts" / track).resolve().as_uri() if folder else None
        return client.get_experiment(client.create_experiment(name, artifact_location=place))
    if known.lifecycle_stage == "deleted":
        client.restore_experiment(known.experiment_id)
    return known


def _about(track: str, experiment: str) -> dict[str, str]:
    """Tags of an experiment: which of MLflow's pages it opens on, a shared view with the columns that matter, and
    how to look."""
    from inversionbench.survey import words

    said = words.track(track)
    headline = words.metric(said.headline or "", track)
    columns = [*(f"params.`{name}`" for name in SHOWN), f"metrics.`{headline.id}`", f"metrics.`utility/{said.utility}`"]
    view = {"selectedColumns": columns, "orderByKey": f"metrics.`{headline.id}`",
            "orderByAsc": headline.direction == "lower"}
    link = f"#/experiments/{experiment}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"
    note = (
        f"[**Runs by what they leak**]({link}). Headline: **{headline.title}** (`{headline.id}`), "
        f"{words.arrow(headline.direction)}. One run is one cell: attack, defense, strength, scenario, seed. "
        "Group by `attack` or `defense`, or filter, for instance "
        "`tags.scenario = '...' and tags.kind = 'attack'`. `control/...` is what guessing and the private data itself "
        "score, `spread/...` the 95 % interval, `utility/...` the price of a defense, `curve/...` a metric by budget "
        "(its step). The tag `record_sha` is the digest of the record that a run was made from."
    )
    return {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.experiment.primaryMetric.name": headline.id,
        "mlflow.experiment.primaryMetric.greaterIsBetter": str(headline.direction != "lower"),
        f"mlflow.sharedViewState.{VIEW}": json.dumps(view),
        "mlflow.note.content": note,
    }


def _client(uri: str) -> MlflowClient:
    """A client; a SQLite file is created here, once, by one process, with its folder.

    It is filled under another name: what a kill leaves of a half-created store can never be repaired.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    database = _database(uri)
    if database and not database.is_file():
        with atomic(database) as part:
            MlflowClient(tracking_uri=f"sqlite:///{part}").search_experiments(max_results=1)
    return MlflowClient(tracking_uri=uri)


def _database(uri: str) -> Path | None:
    """The file behind a SQLite URI; None for a server.

    >>> _database("sqlite:///results/mlflow.db").as_posix(), _database("http://127.0.0.1:5000")
    ('results/mlflow.db', None)
    """
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]) if uri.startswith("sqlite:///") else None


@contextmanager
def _environment() -> Iterator[None]:
    """mlflow's settings for the time of the sync; what a user has set stays."""
    added = {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:300]
