"""Figures of single images in the federated track: how quality is spread, how many were recovered, which labels.

Rows are attacks, in blocks: one for each family of scenarios that differ in the batch alone (`studies.families`), and
one for attacks that no such family has, by the scenario they were run in. Families are never pooled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.patches import Patch
from matplotlib.transforms import blended_transform_factory

from inversionbench.survey import words
from inversionbench.survey.figures import Picture, canvas, save
from inversionbench.tracks.federated.figures.studies import STUDIES, TRACK, families, protocol_of, titles

BATCH = STUDIES[0]
ELSEWHERE = "other settings"
CEILING = {"psnr": 40.0}  # in shown units; exact answers (60) would flatten every other box
SHOWN = ("psnr", "ssim", "lpips_like")  # spread of these, in any variant
RECOVERED = ("success_20", "success_30")
Record = Mapping[str, Any]


def images(found: Sequence[Record], metrics: Sequence[str]) -> pd.DataFrame:
    """One row per image: block, attack (its name), batch, metric, value; empty unless two batch sizes were attacked."""
    sets = families(found, BATCH)
    block = {s: title for family, title in zip(sets, titles(sets)) for s in family.values}
    inside = {r["attack"] for r in found if r["scenario"] in block}
    rows = []
    for r in found if sets else ():
        if r["scenario"] not in block and (r["attack"] in inside or r["kind"] == "control"):
            continue
        name = words.method("attack", r["attack"], r["method"])
        label = name if r["scenario"] in block else f"{name}, {r['scenario']}"
        place = {"block": block.get(r["scenario"], ELSEWHERE), "attack": label, "control": r["kind"] == "control",
                 "batch": protocol_of(r).batch_size}  # fmt: skip
        rows += [{**place, "metric": m, "value": float(v)}
                 for m in metrics if m in r["metrics"] for v in r["metrics"][m]["values"]]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["block", "attack", "control", "batch", "metric", "value"])
    order = {title: i for i, title in enumerate([*titles(sets), ELSEWHERE])}
    return frame.assign(at=frame["block"].map(order)).sort_values(["at", "control", "attack", "batch"],
                                                                 kind="stable", ignore_index=True)  # fmt: skip


def spread(found: Sequence[Record], folder: Path) -> Picture | None:
    """Quality of single images: a column for each metric, a box for each attack and batch size."""
    present = sorted({m for r in found for m in r["metrics"]})
    names = [m for base in SHOWN for m in present if m.partition("[")[0] == base]
    frame = images(found, names)
    if frame.empty:
        return None
    boxes = list(frame.groupby(["at", "block", "control", "attack", "batch"], sort=False).groups)
    places, ticks = _lines(boxes)
    sizes = sorted(set(frame["batch"]))
    colour = dict(zip(sizes, sns.color_palette("viridis_r", len(sizes))))
    depth = max(ticks) + 1
    with canvas(2.2 + 3.1 * len(names), 1.2 + 0.17 * depth, 1, len(names), sharey=True) as (figure, axes):
        for ax, name in zip(axes[0], names):
            metric, top = words.metric(name, TRACK), CEILING.get(name, np.inf)
            for box, part in frame[frame["metric"] == name].groupby(
                    ["at", "block", "control", "attack", "batch"], sort=False):  # fmt: skip
                _box(ax, (part["value"] * metric.factor).clip(upper=top), places[box], colour[box[-1]], bool(box[2]))
            ax.set_xlabel(f"{metric.title}\n{words.arrow(metric.direction)}")
            ax.grid(axis="y", visible=False)
            if top < np.inf and (frame.loc[frame["metric"] == name, "value"] * metric.factor > top).any():
                ax.set_xticks(np.arange(0, top + 1, 10), [*(f"{x:.0f}" for x in np.arange(0, top, 10)), f"≥ {top:.0f}"])
        _name(axes[0, 0], ticks)
        axes[0, 0].set_ylim(depth + 0.2, -0.8)
        handles = [Patch(color=colour[size], label=f"{size}") for size in sizes]
        figure.legend(handles=handles, title=BATCH.label, loc="outside upper center", ncols=len(sizes), fontsize=8,
                      title_fontsize=8)  # fmt: skip
        save(figure, folder / "study-spread.png")
    caption = ("How quality is spread over single images, by attack and batch size, without defense: quartiles, "
               "whiskers to 1.5 times their distance, points beyond; hatched: controls; exact images stand at the "
               "ceiling of the axis. Blocks are families of "
               "scenarios that differ in the batch alone. An attack may recover one image and miss the next.")
    return Picture(folder / "study-spread.png", caption, TRACK, "overview")


def _lines(boxes: Sequence[tuple[Any, ...]]) -> tuple[dict[tuple[Any, ...], float], dict[int, tuple[str, bool]]]:
    """Where each box stands, from the top, and the names beside them: line -> (name, whether of a block)."""
    places: dict[tuple[Any, ...], float] = {}
    ticks: dict[int, tuple[str, bool]] = {}
    line, last = 0, ("", "")
    for box in boxes:
        _, block, _, attack, _ = box
        if block != last[0]:
            line += bool(places)
            ticks[line] = (block, True)
            line += 1
        if (block, attack) != last:
            ticks[line] = (attack, False)
        places[box], last = line, (block, attack)
        line += 1
    return places, ticks


def _box(ax: Any, values: pd.Series, place: float, colour: Any, control: bool) -> None:
    drawn = ax.boxplot([values], positions=[place], orientation="horizontal", widths=0.75, patch_artist=True,
                       manage_ticks=False, flierprops={"marker": "o", "markersize": 2, "markeredgecolor": "#555555"},
                       medianprops={"color": "#111111", "linewidth": 1.4})  # fmt: skip
    for patch in drawn["boxes"]:
        patch.set(facecolor=colour, edgecolor="#555555", linewidth=0.7, hatch="////" if control else None)
    for part in (*drawn["whiskers"], *drawn["caps"]):
        part.set(color="#555555", linewidth=0.8)


def _name(ax: Any, ticks: Mapping[Any, tuple[str, bool]]) -> None:
    """Names of attacks beside the lines, those of blocks on their empty lines."""
    plain = {line: name for line, (name, block) in ticks.items() if not block}
    ax.set_yticks(list(plain), list(plain.values()), fontsize=8, rotation=0)
    for line, (name, block) in ticks.items():
        if block:
            place = blended_transform_factory(ax.figure.transFigure, ax.transData)  # from the left edge of the figure
            text = ax.text(0.005, line, name, transform=place, va="center", fontsize=8, fontweight="bold")
            text.set_in_layout(False)


def success(found: Sequence[Record], folder: Path) -> Picture | None:
    """Share of images above a quality, by attack and batch size."""
    names = [m for m in RECOVERED if any(m in r["metrics"] for r in found)]
    frame = images(found, names)
    if frame.empty:
        return None
    count = len(frame.groupby(["block", "attack"])) + frame["block"].nunique()
    width = 2.8 + len(names) * (0.9 + 0.5 * frame["batch"].nunique())
    with canvas(width, 1.1 + 0.27 * count, 1, len(names), sharey=True) as (figure, axes):
        for ax, name in zip(axes[0], names):
            table, ticks = _shares(frame[frame["metric"] == name], sorted(set(frame["batch"])))
            _heat(ax, table)
            ax.set(xlabel=BATCH.label, ylabel="", title=words.metric(name, TRACK).title)
        _name(axes[0, 0], {line + 0.5: tick for line, tick in ticks.items()})
        save(figure, folder / "study-success.png")
    caption = ("Share of images that were recovered (in %), by attack and batch size, without defense; white: not run. "
               "Blocks are families of scenarios that differ in the batch alone.")
    return Picture(folder / "study-success.png", caption, TRACK, "overview")


def _shares(part: pd.DataFrame, sizes: Sequence[int]) -> tuple[pd.DataFrame, dict[int, tuple[str, bool]]]:
    """Shares in %, a line for each attack and an empty one above each block, and the names of the lines."""
    lines: list[Any] = []
    ticks: dict[int, tuple[str, bool]] = {}
    for (_, block), own in part.groupby(["at", "block"], sort=False):
        ticks[len(lines)] = (block, True)
        lines.append([np.nan] * len(sizes))
        for attack, rows in own.groupby("attack", sort=False):
            ticks[len(lines)] = (str(attack), False)
            lines.append(100 * rows.groupby("batch")["value"].mean().reindex(sizes).to_numpy())
    return pd.DataFrame(lines, columns=list(sizes)), ticks


def _heat(ax: Any, table: pd.DataFrame) -> None:
    """Percentages, dark where more was recovered; without a grid behind what was not run."""
    ax.grid(visible=False)
    sns.heatmap(table, ax=ax, annot=True, fmt=".0f", vmin=0, vmax=100, cmap=matplotlib.colormaps["rocket_r"],
                linewidths=0.5, cbar=False, annot_kws={"fontsize": 8})  # fmt: skip


def _rule(record: Record) -> str:
    """The rule, and the entry that uses it where that has another name."""
    rule = str(record["parameters"]["attack"].get("rule", record["attack"])).replace("_", " ")
    entry = words.method("attack", record["attack"], record["method"]).partition("(")[2].rstrip(")")
    return rule if entry in ("", rule) else f"{rule} ({entry})"


def labels(found: Sequence[Record], folder: Path) -> Picture | None:
    """Accuracy of every rule for labels in every scenario that asks for labels alone."""
    rows = [
        {"rule": _rule(r), "value": r["metrics"]["label_recovery"]["mean"],
         "batch": protocol_of(r).batch_size, "epochs": STUDIES[2].value(r),
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
    blind = frame.groupby("where")["blind"].mean().to_frame("blind guess (control)").T
    table = frame.pivot_table("value", "rule", "where")[order]
    table = pd.concat([table.sort_values(order[::-1], ascending=False), blind[order]]) * 100
    with canvas(2.8 + 1.1 * table.shape[1], 1.4 + 0.3 * len(table)) as (figure, axes):
        ax = axes[0, 0]
        _heat(ax, table)
        ax.axhline(len(table) - 1, color="#222222", linewidth=1.4)
        ax.set(xlabel="batch and training of the model", ylabel="", title="label recovery (%)")
        save(figure, folder / "study-labels.png")
    caption = ("Labels read off one update, by rule: overlap of recovered and true class counts, in %; white: the rule "
               "cannot be used there. Rules that count assume an untrained model; the blind guess knows class "
               "frequencies only.")
    return Picture(folder / "study-labels.png", caption, TRACK, "overview")
