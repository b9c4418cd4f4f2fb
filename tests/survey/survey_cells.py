"""Synthetic cells: what a finished run leaves behind, with every case that a table must show.

Two seeds; attacks at three levels, one that knows the defense; controls; defenses with strengths; a defense
that cannot act on white-box attacks; a denied, an unavailable and a partly failed attack; a metric that is
missing. The values follow simple formulas, so that tests can work them out by hand.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from inversionbench.core import records
from inversionbench.survey import galleries, words

TRACKS = {
    "federated": words.Track("federated", "Federated learning", "about", "psnr", "accuracy",
                             {"psnr": "higher", "ssim": "higher", "mse": "lower"}),
    "classifier": words.Track("classifier", "Classifiers", "about", "agreement", "accuracy",
                              {"agreement": "higher", "knn_distance": "lower"}, compared="knn_distance"),
}
# scenario -> track, attack -> (method, level, kind, knows the defense, undefended headline)
SCENARIOS = {"photos": "federated", "portraits": "classifier"}
ATTACKS = {
    "photos": {
        "inverting_gradients": ("inverting_gradients", "GR", "attack", False, 21.0),
        "inverting_gradients_aware": ("inverting_gradients", "GR", "attack", True, 21.0),
        "dlg": ("dlg", "GR", "attack", False, 16.0),
        "wrong_gradient": ("wrong_gradient", "GR", "control", False, 11.5),
    },
    "portraits": {
        "gmi": ("gmi", "WB", "attack", False, 0.6),
        "plg_mi": ("plg_mi", "WB", "attack", False, 0.85),
        "brep_mi": ("brep_mi", "LO", "attack", False, 0.4),
        "rlb_mi": ("rlb_mi", "BB-S", "attack", False, 0.0),
        "ppa": ("ppa", "WB", "attack", False, 0.0),
        "lomma": ("lomma", "WB", "attack", False, 0.7),
        "random_prior": ("random_prior", "WB", "control", False, 0.02),
    },
}
DEFENSES = {"photos": {"dgc": (0.9, 0.99, 0.999), "confidence_rounding": (0.1,)},
            "portraits": {"bido": (0.1, 0.5), "confidence_rounding": (0.05, 0.1)}}
SEEDS = (0, 1)
SUBJECTS = 6
METRICS = {"federated": ("psnr", "ssim", "mse"), "classifier": ("agreement", "knn_distance")}


def noise(*parts: Any) -> np.ndarray:
    """Six values that depend on the parts only, standard normal."""
    seed = int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(SUBJECTS)


def headline(track: str, base: float, rank: float, aware: bool, *parts: Any) -> np.ndarray:
    """The headline per subject: falls with the rank of the strength, half as fast for an aware attacker."""
    fall = rank * (0.5 if aware else 1.0)
    if track == "federated":
        return base - 3 * fall + noise(*parts)
    return np.clip(np.round(base * (1 - 0.25 * fall) + 0.1 * noise(*parts), 2), 0, 1)


def record(scenario: str, attack: str, defense: str, strength: float, seed: int, **change: Any) -> dict[str, Any]:
    """One record; `change` replaces fields."""
    track = SCENARIOS[scenario]
    method, level, kind, aware, base = ATTACKS[scenario][attack]
    strengths = (0.0, *DEFENSES[scenario].get(defense, ()))
    inert = defense == "confidence_rounding" and level in ("WB", "GR")
    rank = 0.0 if inert else float(strengths.index(strength))
    main = headline(track, base, rank, aware, scenario, attack, "none" if inert else defense, rank, seed)
    values = {"federated": {"psnr": main, "ssim": main / 30, "mse": 10 ** (-main / 10)},
              "classifier": {"agreement": main, "knn_distance": 1500 * (1 - main) + 200}}[track]
    floor = {"federated": {"psnr": 12.5, "ssim": 0.2, "mse": 0.056},
             "classifier": {"agreement": 0.02, "knn_distance": 1600.0}}[track]
    curve = [[b, float(main.mean() * s)] for b, s in ((10, 0.5), (100, 0.8), (1000, 1.0))]
    out = {
        "key": f"{scenario}/{attack}/{defense}/{strength:g}/{seed}", "track": track, "scenario": scenario,
        "dataset": scenario, "model": "convnet", "attack": attack, "method": method, "level": level,
        "defense": defense, "strength": strength, "seed": seed, "scale": "smoke", "kind": kind, "status": "ok",
        "inert": inert, "metrics": {k: summary(v) for k, v in values.items()}, "groups": list(range(SUBJECTS)),
        "unavailable": {"lpips": "weights alexnet-owt-7be5be79.pth are not on this machine"},
        "controls": {"mean_image": floor, "truth": {k: (1.0 if k == "agreement" else 0.0) for k in floor}},
        "curves": {} if kind == "control" else {METRICS[track][0]: curve},
        "utility": {"accuracy": 0.9 - 0.05 * rank, "nll": 0.3 + 0.1 * rank},
        "cost": {"queries": 400 if level == "LO" else 0, "passes": 300, "gradient_evaluations": 300,
                 "queries_by_phase": {"search": 400} if level == "LO" else {}},
        "knowledge": {"used": ["public"] + (["defense"] if aware and defense != "none" else [])},
        "parameters": {"attack": {"steps": 300, "rate": 0.1}, "defense": {"strength": strength},
                       "scenario": {"batch": 1, "model": {"name": "convnet"}}},
        "facts": {"matching_loss_at_truth": 1e-8},
        "provenance": {"code": "c" * 64, "data": "d" * 64, "target": f"{scenario}-{defense}-{strength:g}-{seed}",
                       "prior": None, "evaluator": None, "versions": {"torch": "2.13.0"}},
    }
    return {**out, **change}


def summary(values: np.ndarray) -> dict[str, Any]:
    return {"values": [float(v) for v in values], "mean": float(values.mean()), "median": float(np.median(values)),
            "low": float(values.min()), "high": float(values.max()), "n": len(values)}


def empty(status: str, reason: str) -> dict[str, Any]:
    """What differs in the record of a cell without an answer."""
    return {"status": status, "reason": reason, "metrics": {}, "groups": [], "controls": {}, "curves": {},
            "unavailable": {}, "cost": {}}


def special(scenario: str, attack: str, seed: int) -> dict[str, Any]:
    """The cells that have no answer."""
    if attack == "rlb_mi":
        return empty("denied", "scores() is not granted at level LO")
    if attack == "ppa":
        return empty("unavailable", "the prior stylegan is not on this machine")
    if attack == "lomma" and seed == 1:
        return empty("failed", "RuntimeError: out of memory")
    return {}


def all_records() -> list[dict[str, Any]]:
    out = []
    for scenario, attacks in ATTACKS.items():
        for attack, (_, level, *_) in attacks.items():
            for defense, strengths in {"none": (0.0,), **DEFENSES[scenario]}.items():
                inert = defense == "confidence_rounding" and level in ("WB", "GR")
                for strength in strengths[-1:] if inert else strengths:
                    for seed in SEEDS[:1] if inert else SEEDS:
                        change = special(scenario, attack, seed)
                        out.append(record(scenario, attack, defense, strength, seed, **change))
    return out


def write_cell(root: Path, cell: dict[str, Any], pictures: bool = True) -> Path:
    folder = root / cell["key"]
    records.write(folder, cell, {"seconds": 1.5, "cpu_seconds": 1.2, "peak_memory_mib": 400, "threads": 1})
    if pictures and cell["status"] == "ok" and cell["seed"] == 0:
        np.savez_compressed(folder / "gallery.npz", **gallery(cell))
        galleries.save_gallery(folder / "gallery.png", gallery(cell))
    return folder


def gallery(cell: dict[str, Any]) -> dict[str, np.ndarray]:
    """Four 16 x 16 pictures: a bright square at a place of its own, and the same with noise."""
    channels = 3 if cell["track"] == "federated" else 1
    original = np.zeros((4, channels, 16, 16), np.uint8) + 40
    for i in range(4):
        original[i, :, 2 + i : 8 + i, 3 * i : 3 * i + 5] = 220
    rng = np.random.default_rng(len(cell["key"]))
    blur = np.clip(original + rng.normal(0, 40, original.shape), 0, 255).astype(np.uint8)
    return {"original": original, "reconstruction": blur, "nearest": original[::-1].copy()}
