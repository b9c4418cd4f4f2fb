"""`inversionbench score TRUTH RECONSTRUCTION`: how much do these reconstructions give away?"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from inversionbench.core import numerics, registry
from inversionbench.core.errors import UserError, suggest

if TYPE_CHECKING:
    import numpy as np
    import torch

    from inversionbench.metrics._pairwise import PairScores

DEFAULT = "mse,psnr,ssim,avd"
ABOUT = """Scores reconstructions against their originals, beside what knowing nothing would score.

TRUTH and RECONSTRUCTION are .npy or .npz arrays (uint8, or floats in [0, 1]; channels first or last) or
folders of pictures, paired by their place or name, or by --match. Batches behind one update each are matched
apart, as in our tables: with --batch 8 the first 8 images are one batch, the next 8 another, and intervals are
over batches. The columns mean_image, random_image and uniform_noise are made from the other originals: leakage
is the difference to them. Where reconstructions are matched the random images are, too: those of another batch,
or of the other half of a single one. RDLV takes the mean of the other originals as prior, IIP the originals as
pool."""


def add_commands(subparsers: Any) -> None:
    """Add `score` to the command line; `func` takes the namespace and returns the exit code."""
    parser = subparsers.add_parser(
        "score",
        help="score reconstructions against their originals",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("truth", metavar="TRUTH")
    parser.add_argument("reconstruction", metavar="RECONSTRUCTION")
    parser.add_argument("--metrics", default=DEFAULT, help=f"of {','.join(_names())} (default: {DEFAULT})")
    parser.add_argument("--match", action="store_true", help="find which reconstruction belongs to which original")
    parser.add_argument("--batch", type=int, metavar="B", help="match within batches of B images; implies --match")
    parser.add_argument("--layout", default="auto", choices=("auto", "nchw", "nhwc"), help="axes of the arrays")
    parser.add_argument("--weights", metavar="DIR", help="folder of pretrained weights, for lpips and fid")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=score)


def _names() -> list[str]:
    """Metrics of two images that need no evaluator, and FID."""
    pairs = {name: said for name, said in registry.quantities().items() if said.get("kind") == "pair"}
    return [*(name for name, said in pairs.items() if said.get("needs") != "features"), "fid"]


def score(args: argparse.Namespace) -> int:
    """Print the scores; 0, or `UserError` for bad input."""
    names, known = [name.strip() for name in args.metrics.split(",") if name.strip()], _names()
    for name in names:
        if name not in known:
            raise UserError(f"score: unknown metric '{name}': {suggest(name, known)}")
    if not names:
        raise UserError(f"score: --metrics names no metric; allowed: {', '.join(known)}")
    if args.batch is not None and args.batch < 1:
        raise UserError(f"score: --batch: expected a number of images per batch, 1 or more; got {args.batch}")
    numerics.apply("portable")
    import torch

    from inversionbench.metrics._read import read_pair
    from inversionbench.metrics.base import check_images

    match = args.match or args.batch is not None
    t, r = (torch.from_numpy(x.copy()) for x in read_pair(args.truth, args.reconstruction, args.layout, match))
    check_images(t, "score", f"'{args.truth}'")
    result = measure(t, r, names, match, args.weights, args.batch)
    print(json.dumps(result, indent=1, sort_keys=True, allow_nan=False) if args.json else table(result))
    return 0


def measure(
    t: torch.Tensor, r: torch.Tensor, names: list[str], match: bool = False, weights: str | None = None,
    batch: int | None = None,
) -> dict[str, Any]:
    """All numbers as plain JSON: the record of `pairwise`, plus `controls` (means) and what the images are."""
    import numpy as np

    from inversionbench.metrics._controls import mean_of_others, score_controls
    from inversionbench.metrics._pairwise import pairwise

    pairs = [name for name in names if name != "fid"]
    prior = mean_of_others(t) if len(t) > 1 and "rdlv" in names else None
    groups = None if batch is None else np.arange(len(t)) // batch
    options: dict[str, Any] = {"match": match, "weights": weights, "prior": prior, "pool": t, "groups": groups}
    scores = pairwise(t, r, pairs, **options)
    result = scores.record(groups) | {"shape": list(t.shape[1:]), "batch": batch, "controls": {}}
    if "fid" in names:
        result["metrics"]["fid"] = _fid(t, r, weights)
    if len(t) > 1:
        controls = score_controls(t, None, pairs, np.random.default_rng(0), **options)
        result["controls"] = {name: _means(found) for name, found in controls.items()}
    directions = _directions(names)
    for name, metric in result["metrics"].items():
        metric["more_leakage"] = directions.get(name, "higher")
    return result


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    controls = result["controls"]
    head = ["metric", "more leakage", "mean", "95 % interval", "median", "n", *controls]
    rows, remarks = [head], []
    for name, m in result["metrics"].items():
        if "unavailable" in m:
            remarks.append(f"{name}: unavailable, {m['unavailable']}")
            continue
        between = "-" if m["low"] is None else f"{_short(m['low'])} .. {_short(m['high'])}"
        scale = [_short(controls[c].get(name)) for c in controls]
        rows.append([name, m["more_leakage"], _short(m["mean"]), between, _short(m["median"]), str(m["n"]), *scale])
        if m["undefined"]:
            remarks.append(f"{name}: undefined for {m['undefined']} images, left out")
    shape = " x ".join(map(str, result["shape"]))
    matched = ", matched by MSE" if result["matched"] else ""
    within = f" within batches of {result['batch']}" if result["batch"] else ""
    remarks.insert(0, f"{result['n']} images of {shape}{matched}{within}")
    if result["clipped"]:
        remarks.append(f"{result['clipped']:.1%} of the pixels were outside [0, 1] and clipped")
    if result["failures"]:
        remarks.append(f"{result['failures']} reconstructions were not finite and score as uniform noise")
    if result["capped"]:
        remarks.append(f"{result['capped']} images reach the PSNR cap of 60 dB")
    remarks += [f"{name}: {value}" for name, value in result.get("notes", {}).items()]
    return "\n".join([*_aligned(rows), "", *remarks])


def _fid(t: torch.Tensor, r: torch.Tensor, weights: str | None) -> dict[str, Any]:
    """FID of the whole sets; reconstructions that are not finite count as noise, as in `pairwise`."""
    from inversionbench.metrics._pairwise import repaired
    from inversionbench.metrics.base import Unavailable
    from inversionbench.metrics.fid import fid, load

    network, value = load(weights), fid(t, repaired(r), weights)
    for found in (network, value):
        if isinstance(found, Unavailable):
            return {"unavailable": found.reason}
    numbers = {"mean": value, "median": value, "low": None, "high": None, "n": len(t), "undefined": 0}
    return numbers | {"weights_sha256": network.weights_sha256}  # type: ignore[union-attr]


def _means(scores: PairScores) -> dict[str, float]:
    import numpy as np

    values: dict[str, np.ndarray] = scores.values
    return {name: float(np.nanmean(v)) for name, v in values.items()}


def _directions(names: list[str]) -> dict[str, str]:
    return {name: registry.quantities()[name]["direction"] for name in names}


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
