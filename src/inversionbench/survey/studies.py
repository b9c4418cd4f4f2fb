"""Figures across scenarios of the federated track: what leakage depends on.

A study is a set of scenarios that differ in one thing only: images in a batch, local steps of the client, or
training of the attacked model. What a scenario is stands in its records; a figure is drawn where a study has two
values or more. Beside them: spread over images, shares of images that were recovered, and labels rule by rule.
Undefended cells only; intervals are those of the tables (95 %, attacked clients resampled).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.patches import Patch

from inversionbench.survey import words
from inversionbench.survey.figures import COLOURS, GREY, Picture, canvas, cues, quantity, save, unique
from inversionbench.training._protocol import Protocol, read_protocol

if TYPE_CHECKING:
    from inversionbench.survey.build import Survey

TRACK = "federated"
STRONGEST = 6  # attacks in one panel
CEILING = 40.0  # dB: exact answers (capped at 60) would flatten every other line
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """One dependence. value: record -> place on the axis. varies: settings that may differ within a study."""

    id: str
    label: str
    value: Callable[[Record], float]
    varies: tuple[str, ...]


def protocol_of(record: Record) -> Protocol:
    """The protocol of a record's scenario, defaults included."""
    return read_protocol(record["parameters"].get("scenario", {}).get("protocol") or {}, record["scenario"])


def _epochs(record: Record) -> float:
    return round(float(record["facts"].get("target_epochs", 0.0)), 1)


STUDIES = (
    Study("batch", "images in a batch", lambda r: protocol_of(r).batch_size, ("batch_size",)),
    Study("steps", "local steps of the client", lambda r: len(protocol_of(r).steps), ("local_batch", "epochs")),
    Study("epochs", "epochs that the attacked model was trained", _epochs, ("rounds of training",)),
)


def draw(survey: Survey, folder: Path) -> list[Picture]:
    """All figures that the records allow."""
    plain = [r for r in survey.records if r["track"] == TRACK and r["defense"] == "none" and r["status"] == "ok"]
    images = [r for r in plain if "psnr" in r["metrics"]]
    rows = survey.attacks[(survey.attacks["track"] == TRACK) & survey.attacks["headline"].astype(bool)]
    found = [dependence(images, rows, study, folder) for study in STUDIES]
    found += [spread(images, folder), success(images, folder)]
    found += [labels([r for r in plain if "psnr" not in {*r["metrics"], *r["unavailable"]}], folder)]
    return [picture for picture in found if picture is not None]


def groups(found: Sequence[Record], study: Study) -> list[dict[str, float]]:
    """Scenarios that differ in this one thing: scenario -> value, at least two different values in each."""
    sets: dict[str, dict[str, float]] = {}
    for record in found:
        scenario = record["parameters"].get("scenario", {})
        protocol = {k: v for k, v in protocol_of(record).plain.items() if k not in study.varies}
        training = dict(scenario.get("training") or {})
        if "rounds of training" in study.varies:
            training.pop("rounds", None)
        training = {k: v for k, v in training.items() if not k.startswith("utility")}
        same = json.dumps([record["dataset"], scenario.get("model"), protocol, training], sort_keys=True)
        sets.setdefault(same, {})[record["scenario"]] = study.value(record)
    return [s for _, s in sorted(sets.items()) if len(set(s.values())) > 1]


def dependence(found: Sequence[Record], table: pd.DataFrame, study: Study, folder: Path) -> Picture | None:
    """Leakage of the strongest attacks against what a study varies; controls in grey."""
    sets = groups(found, study)
    sets = [s for s in sets if len(set(s.values())) > 1 and not table[table["scenario"].isin(list(s))].empty]
    if not sets:
        return None
    shown = [_strongest(table[table["scenario"].isin(list(s))], s) for s in sets]
    metric = quantity(shown[0])
    style = cues({name for rows in shown for name in rows.loc[rows["kind"] == "attack", "attack"]})
    with canvas(3 + 4 * len(sets), 3.9, 1, len(sets), sharey=True) as (figure, axes):
        for ax, rows in zip(axes[0], shown):
            places = {value: i for i, value in enumerate(sorted(set(rows["x"])))}
            names = list(dict.fromkeys(rows.sort_values("mean", ascending=False)["attack"]))
            for n, name in enumerate(names):
                line = rows[rows["attack"] == name].sort_values("x")
                _line(ax, line, places, 0.05 * (n - len(names) / 2), style.get(name), metric.factor)
            mean = rows.groupby("x")["control_mean_image"].mean() if "control_mean_image" in rows else pd.Series()
            if mean.notna().any():
                ax.plot([places[x] for x in mean.index], mean * metric.factor, color=GREY, linestyle=":",
                        label=words.label("controls", "mean_image"))
            ax.set_xticks(range(len(places)), [f"{value:g}" for value in places])
            ax.set_xlabel(study.label)
            ax.set_ylim(top=min(ax.get_ylim()[1], CEILING))
        figure.legend(*unique(axes), loc="outside right upper", fontsize=8)
        axes[0, 0].set_ylabel(f"{metric.title}\n{words.arrow(metric.direction)}")
        save(figure, folder / f"study-{study.id}.png")
    caption = (f"{metric.title} of the strongest attacks without defense against the {study.label}, everything else "
               "equal; 95 % intervals over attacked clients, controls in grey. What lies at the grey lines is no leak.")
    return Picture(folder / f"study-{study.id}.png", caption, TRACK, "overview")


def _strongest(rows: pd.DataFrame, places: Mapping[str, float]) -> pd.DataFrame:
    """Rows with a column x: the attacks that reach most where they were run, and all controls."""
    rows = rows[rows["mean"].notna()].assign(x=lambda r: r["scenario"].map(dict(places)))
    attacks = rows[rows["kind"] == "attack"]
    order = attacks.groupby("attack")["mean"].max().sort_values(ascending=False).index
    several = [name for name in order if attacks.loc[attacks["attack"] == name, "x"].nunique() > 1]
    kept = [*several, *(name for name in order if name not in several)][:STRONGEST]
    return rows[rows["attack"].isin(kept) | (rows["kind"] == "control")]


def _line(ax: Any, line: pd.DataFrame, places: Mapping[float, int], shift: float, cue: Any, factor: float) -> None:
    """One attack with its intervals; without a cue it is a control."""
    marker, colour = cue or ("x", GREY)
    first = line.iloc[0]
    at = [places[x] + shift for x in line["x"]]
    errors = np.nan_to_num([line["mean"] - line["low"], line["high"] - line["mean"]]).clip(min=0) * factor
    ax.errorbar(at, line["mean"] * factor, yerr=errors, color=colour, marker=marker, markersize=5, capsize=2,
                linewidth=1.3, linestyle="-" if cue else "--", label=words.method("attack", first.attack, first.method))


def spread(found: Sequence[Record], folder: Path) -> Picture | None:
    """How quality is spread over images, by attack and batch size."""
    present = sorted({m for r in found for m in r["metrics"]})
    names = [m for base in ("psnr", "ssim", "lpips_like") for m in present if m.partition("[")[0] == base]
    frame = _by_batch(found, names)
    if frame.empty:
        return None
    sizes = sorted(set(frame["batch"]))
    order = sorted(set(frame["attack"]))
    with canvas(2.5 + 0.16 * len(frame.groupby(["attack", "batch"])) + len(sizes), 2.6 * len(names), len(names), 1,
                sharex=True) as (figure, axes):  # fmt: skip
        for ax, name in zip(axes[:, 0], names):
            metric = words.metric(name, TRACK)
            part = frame[frame["metric"] == name].assign(value=lambda r, f=metric.factor: r["value"] * f)
            sns.boxplot(part, x="batch", y="value", hue="attack", order=sizes, hue_order=order, ax=ax, legend=False,
                        palette=[COLOURS[i % 10] for i in range(len(order))], linewidth=0.8, fliersize=2)
            ax.set_ylabel(f"{metric.title}\n{words.arrow(metric.direction)}")
        axes[-1, 0].set_xlabel(STUDIES[0].label)
        handles = [Patch(color=COLOURS[i % 10], label=name) for i, name in enumerate(order)]
        figure.legend(handles=handles, loc="outside right upper", fontsize=8)
        save(figure, folder / "study-spread.png")
    caption = ("How quality is spread over single images, by attack and batch size, without defense: quartiles, "
               "whiskers to 1.5 times their distance, points beyond. An attack may recover one and miss the next.")
    return Picture(folder / "study-spread.png", caption, TRACK, "overview")


def success(found: Sequence[Record], folder: Path) -> Picture | None:
    """Share of images above a quality, by attack and batch size."""
    names = [m for m in ("success_20", "success_30") if any(m in r["metrics"] for r in found)]
    frame = _by_batch(found, names)
    if frame.empty:
        return None
    count = frame["attack"].nunique()
    width = 2.6 + 2 * (1.2 + 0.55 * frame["batch"].nunique())
    with canvas(width, 1.3 + 0.3 * count, 1, len(names), sharey=True) as (figure, axes):
        for ax, name in zip(axes[0], names):
            metric = words.metric(name, TRACK)
            part = frame[frame["metric"] == name].pivot_table("value", "attack", "batch") * 100
            sns.heatmap(part, ax=ax, annot=True, fmt=".0f", vmin=0, vmax=100, cmap="rocket_r", linewidths=0.5,
                        cbar=False, annot_kws={"fontsize": 8})
            ax.set(xlabel=STUDIES[0].label, ylabel="", title=f"{metric.title}")
        save(figure, folder / "study-success.png")
    caption = ("Share of images that were recovered (in %), by attack and batch size, without defense; white: not run. "
               "Scenarios that differ in the batch alone; an attack that none of them has is shown where it was run.")
    return Picture(folder / "study-success.png", caption, TRACK, "overview")


def labels(found: Sequence[Record], folder: Path) -> Picture | None:
    """Accuracy of every rule for labels in every scenario that asks for labels alone."""
    rows = [
        {"rule": r["parameters"]["attack"].get("rule", r["attack"]), "value": r["metrics"]["label_recovery"]["mean"],
         "batch": protocol_of(r).batch_size, "epochs": _epochs(r),
         "blind": r["controls"].get("blind_guess", {}).get("label_recovery", np.nan)}
        for r in found if "label_recovery" in r["metrics"]
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    if frame.empty or frame["rule"].nunique() < 2:
        return None
    frame = frame.sort_values(["batch", "epochs"])
    frame["where"] = [f"{b} image{'s' if b > 1 else ''}\n{f'{e:g} epochs' if e else 'untrained'}"
                      for b, e in zip(frame["batch"], frame["epochs"])]  # fmt: skip
    order = list(dict.fromkeys(frame["where"]))
    blind = frame.groupby("where")["blind"].mean().to_frame("(blind guess)").T
    table = pd.concat([frame.pivot_table("value", "rule", "where"), blind])[order] * 100
    table = table.sort_values(order[-1], ascending=False)
    with canvas(2.6 + 1.1 * table.shape[1], 1.4 + 0.3 * len(table)) as (figure, axes):
        sns.heatmap(table, ax=axes[0, 0], annot=True, fmt=".0f", vmin=0, vmax=100, cmap="rocket_r", linewidths=0.5,
                    cbar=False, annot_kws={"fontsize": 8})
        axes[0, 0].set(xlabel="batch and training of the model", ylabel="", title="label recovery (%)")
        save(figure, folder / "study-labels.png")
    caption = ("Labels read off one update, by rule: overlap of recovered and true class counts, in %. Rules that "
               "count assume an untrained model; the blind guess knows class frequencies only.")
    return Picture(folder / "study-labels.png", caption, TRACK, "overview")


def _by_batch(found: Sequence[Record], metrics: list[str]) -> pd.DataFrame:
    """One row per image: attack (its name), batch, metric, value; empty unless two batch sizes were attacked.

    From scenarios that differ in the batch alone; attacks that none of those has, from wherever they were run.
    """
    study = {name for group in groups(found, STUDIES[0]) for name in group}
    has = {r["attack"] for r in found if r["scenario"] in study}
    found = [r for r in found if r["scenario"] in study or r["attack"] not in has] if study else []
    rows = [
        {"attack": words.method("attack", r["attack"], r["method"]), "batch": protocol_of(r).batch_size, "metric": m,
         "value": float(v)}
        for r in found if r["kind"] == "attack"
        for m in metrics if m in r["metrics"]
        for v in r["metrics"][m]["values"]
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["attack", "batch", "metric", "value"])
    return frame if frame["batch"].nunique() > 1 else frame.iloc[:0]
