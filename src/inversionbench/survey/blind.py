"""A blind test by people: which of two pictures shows this person?

`inversionbench blind CELLS` draws pairs from the reconstructions of one attack under one defense: above, private
photographs of a person; below, side by side, what the attack reconstructed of this person and what it reconstructed of
another one. Both come from the same attack, so that neither style nor sharpness tells them apart: who sees no person is
right in half of the pairs. Some pairs hold held-out photographs instead; their share says how well people know these
faces at all, and whether they looked. The page is one file, works without a network, and does not know which side is
right: that is drawn again, from the same seed and the same reconstructions, when the answers are read back.

Answers become a file below `<results>/<scale>/blind/`, and a column of the tables. Where nobody answered there is none.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from inversionbench.core import registry
from inversionbench.core.errors import UserError
from inversionbench.core.files import read_json, whole, write_json
from inversionbench.core.provenance import file_digest
from inversionbench.metrics._aggregate import interval
from inversionbench.survey import collect

if TYPE_CHECKING:
    from inversionbench.data.base import Dataset, Part

METRIC = "people"
SHOWN = 3  # photographs of the person above each pair
CHECKS = 10  # one pair in so many holds photographs
SIDE = 192  # pixels of an enlarged picture, at least


@dataclass(frozen=True)
class Pair:
    """One question. person: the class asked for. left: whether its picture stands left. own, other: uint8
    (channels, height, width). seed: of the cell; None for a pair of photographs."""

    person: int
    left: bool
    own: np.ndarray
    other: np.ndarray
    seed: int | None


@dataclass(frozen=True)
class Draw:
    """All questions of a page. id: of the reconstructions and of the draw, so that answers find their page."""

    cells: str
    number: int
    seed: int
    id: str
    pairs: tuple[Pair, ...]


def strongest(cells: Path, scenario: str) -> str:
    """SCENARIO/ATTACK/none/0 of the attack with the highest headline, from the records below `cells`."""
    found = [r for r in collect.read(cells) if r["scenario"] == scenario and r["defense"] == "none"]
    frame = collect.tidy(r for r in found if r["kind"] == "attack")
    main = frame[frame["headline"] & frame["value"].notna()] if found else frame
    if main.empty:
        raise UserError(f"{cells}: no undefended attack of '{scenario}' has a number")
    means = main.groupby("attack")["value"].mean()
    best = means.idxmin() if (main["direction"] == "lower").all() else means.idxmax()
    return f"{scenario}/{best}/none/0"


def draw(folder: Path, cells: str, data: Dataset, number: int, seed: int) -> Draw:
    """`number` pairs of the reconstructions below `<folder>/reconstructions/<cells>`, and photographs among them.

    cells: SCENARIO/ATTACK/DEFENSE/STRENGTH. Answers that failed are left out; no reconstruction is asked twice.
    """
    files = sorted((folder / "reconstructions" / cells).glob("*/reconstruction.pt"))
    digests = [file_digest(path) for path in files]
    named = json.dumps([cells, number, seed, digests])
    rng = random.Random(named)
    answers = {int(path.parent.name): _answers(path) for path in files}
    asked = [(s, row) for s, (labels, _) in answers.items() for row in range(len(labels))]
    rng.shuffle(asked)
    pairs: list[Pair] = []
    for s, row in asked:
        labels, images = answers[s]
        others = [i for i, label in enumerate(labels) if label != labels[row]]
        if len(pairs) < number and others:
            other = rng.choice(others)
            pairs.append(Pair(labels[row], rng.random() < 0.5, images[row], images[other], s))
    if not pairs:
        raise UserError(f"{folder}/reconstructions/{cells} holds no two people: run its cells first")
    pairs += _checks(data.heldout, sorted({p.person for p in pairs}), max(1, len(pairs) // CHECKS), rng)
    rng.shuffle(pairs)
    return Draw(cells, number, seed, hashlib.sha256(named.encode()).hexdigest()[:16], tuple(pairs))


def _answers(path: Path) -> tuple[list[int], list[np.ndarray]]:
    """People and pictures of one answer, without those that failed."""
    import torch

    with whole(path, path.parents[1]):
        saved = torch.load(path, weights_only=True)
    if saved["status"] != "ok":
        return [], []
    answer = saved["answer"]
    images = answer["data"]
    if images.ndim != 4 or answer["labels"].ndim != 1:
        raise UserError(f"{path}: holds no pictures of people, {tuple(images.shape)}: nobody can be asked")
    good = images.flatten(1).isfinite().all(1)
    if answer["failed"] is not None:
        good &= ~answer["failed"]
    pixels = (images[good].clamp(0, 1) * 255).round().byte().numpy()
    return answer["labels"][good].tolist(), list(pixels)


def _checks(photographs: Part, people: list[int], number: int, rng: random.Random) -> list[Pair]:
    """Pairs of photographs that trained nothing, of the person and of another attacked one."""
    of = {person: np.flatnonzero(np.asarray(photographs.y) == person).tolist() for person in people}
    known = [person for person in people if of[person]]
    if len(known) < 2:
        return []
    out = []
    for _ in range(number):
        person, other = rng.sample(known, 2)
        own, foreign = (np.array(photographs.x[rng.choice(of[who])]) for who in (person, other))
        out.append(Pair(person, rng.random() < 0.5, own, foreign, None))
    return out


def page(drawn: Draw, data: Dataset) -> str:
    """The whole test as one HTML file; it holds no word of which side is right."""
    from inversionbench.survey.report import environment

    own = {p.person: np.flatnonzero(np.asarray(data.private.y) == p.person)[:SHOWN] for p in drawn.pairs}
    photographs = {person: [_uri(data.private.x[i]) for i in rows] for person, rows in own.items()}
    questions = [
        {"of": photographs[p.person], "pictures": [_uri(x) for x in ((p.own, p.other) if p.left else (p.other, p.own))]}
        for p in drawn.pairs
    ]
    told = {"page": drawn.id, "cells": drawn.cells, "number": drawn.number, "seed": drawn.seed}
    return environment(True).get_template("blind.html.j2").render(
        told=told, questions=questions, terms=data.meta.get("terms", ""))  # fmt: skip


def _uri(image: Any) -> str:
    """A picture, uint8 (channels, height, width), enlarged by a whole factor, as a PNG in a link."""
    from PIL import Image

    pixels = np.asarray(image)
    factor = -(-SIDE // max(pixels.shape[1:]))
    pixels = pixels.repeat(factor, 1).repeat(factor, 2).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def read_answers(path: Path) -> dict[str, Any]:
    """What a page saved, checked to the field. chosen: "left" or "right" for each pair."""
    with whole(path):
        found = json.loads(path.read_text())
    wanted = {"page": str, "cells": str, "number": int, "seed": int, "chosen": list}
    if not isinstance(found, dict) or found.keys() != wanted.keys():
        raise UserError(f"{path}: no answers of a page: expected {', '.join(wanted)}")
    for name, kind in wanted.items():
        if not isinstance(found[name], kind):
            raise UserError(f"{path}: {name}: expected {kind.__name__}, got {found[name]!r}")
    if wrong := [c for c in found["chosen"] if c not in ("left", "right")]:
        raise UserError(f"{path}: chosen: expected left or right, got {wrong[0]!r}")
    return found


def judge(drawn: Draw, answers: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What people saw, as it is kept: for each pair of reconstructions its seed, person and whether they were right,
    the share with its interval over people, and the share of pairs of photographs."""
    if answers["page"] != drawn.id:
        raise UserError(f"{where}: its page was made of other reconstructions of {drawn.cells}, or of another draw")
    if len(answers["chosen"]) != len(drawn.pairs):
        raise UserError(f"{where}: {len(answers['chosen'])} answers to {len(drawn.pairs)} pairs")
    right = [(p, (c == "left") == p.left) for p, c in zip(drawn.pairs, answers["chosen"], strict=True)]
    asked = [{"seed": p.seed, "person": p.person, "right": hit} for p, hit in right if p.seed is not None]
    hits = [float(a["right"]) for a in asked]
    bounds = interval(hits, [a["person"] for a in asked], share=True)
    known = [float(hit) for p, hit in right if p.seed is None]
    return {
        "cells": drawn.cells, "page": drawn.id, "asked": asked, "share": sum(hits) / len(hits),
        "interval": None if np.isnan(bounds).any() else list(bounds),
        "photographs": sum(known) / len(known) if known else None,
    }  # fmt: skip


def keep(found: Mapping[str, Any], run: Path) -> Path:
    """Write what people saw; the same answers twice are one file."""
    name = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]
    path = run / "blind" / found["cells"] / f"{name}.json"
    write_json(path, found)
    return path


def kept(run: Path) -> list[Path]:
    """All files of answers of a run."""
    return sorted((run / "blind").glob("*/*/*/*/*.json"))


def rows(frame: pd.DataFrame, run: Path) -> pd.DataFrame:
    """`frame` (of `collect.tidy`) with a row of the metric `people` for each cell whose reconstructions were judged."""
    asked: dict[str, list[dict[str, Any]]] = {}
    for path in kept(run):
        found = read_json(path, path)
        asked.setdefault(found["cells"], []).extend(found["asked"])
    added = [row for cells, given in asked.items() for row in _rows(frame, cells, given)]
    return pd.concat([frame, pd.DataFrame(added)], ignore_index=True)[frame.columns] if added else frame


def _rows(frame: pd.DataFrame, cells: str, given: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    said = registry.quantities()[METRIC]
    for seed in sorted({a["seed"] for a in given}):
        cell = frame[frame["headline"] & (frame["key"] == f"{cells}/{seed}")]
        if cell.empty:
            continue
        asked = [a for a in given if a["seed"] == seed]
        hits = [float(a["right"]) for a in asked]
        low, high = interval(hits, [a["person"] for a in asked], share=True)
        same = {c: v for c, v in cell.iloc[0].items() if not str(c).startswith("control_")}
        yield {**same, "metric": METRIC, "direction": said["direction"], "headline": False, "status": "ok",
               "reason": "", "value": sum(hits) / len(hits), "low": low, "high": high, "median": float(np.median(hits)),
               "n": len(hits), "values": hits, "groups": [str(a["person"]) for a in asked]}
