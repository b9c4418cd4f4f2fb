"""Reconstructed batches against the true ones, and the check that comes before every attack.

All images of a batch are matched once (linear assignment on the mean squared error), and every metric uses
that order. Values are per image, their group is the client. Controls: what the public mean image, a random
public image and noise score on the same batches, and the true images themselves.
A scenario with `judges` E adds `lpips_like[E]`, a perceptual distance by its evaluators (`_perceptual`), and its
`metrics` what costs more (fsim) or needs files (lpips). A metric that is undefined for one image has no mean here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inversionbench.core import registry
from inversionbench.core.attack import Reconstruction
from inversionbench.core.defense import NONE
from inversionbench.core.protocol import read_protocol
from inversionbench.core.scenario import Evaluation, Scenario, Target
from inversionbench.federation.images import Images
from inversionbench.federation.settings import read_federation
from inversionbench.gradients.labels import RULES
from inversionbench.gradients.problem import Problem, recovered
from inversionbench.metrics._controls import score_controls
from inversionbench.metrics._pairwise import PairScores, pairwise
from inversionbench.metrics.base import Unavailable
from inversionbench.metrics.certified import certified
from inversionbench.metrics.label_recovery import blind_overlap, label_recovery
from inversionbench.tracks.federated.perceptual import Perception
from inversionbench.tracks.federated.track import ALWAYS

if TYPE_CHECKING:
    from inversionbench.data.base import Dataset
    from inversionbench.models.federated import Victim

NAMES = ("mse", "psnr", "ssim")
POOL = 1000  # originals among which IIP looks for the attacked one
SUCCESS = (20, 30)  # dB
CERTIFIED = 30  # dB that every image of a certified batch must have
CONTROLS = {"mean_image": "mean_image", "random_image": "random_image", "uniform_noise": "noise", "identical": "truth"}


def evaluate(
    scenario: Scenario, reconstruction: Reconstruction, target: Target, data: Dataset, seed: int,
    evaluator: Mapping[str, Any] | None = None,
) -> Evaluation:
    """All numbers of one cell. evaluator: the state of the scenario's `judges`, where it names any."""
    protocol = read_protocol(scenario.protocol, f"scenarios.{scenario.name}.protocol")
    index, labels = target.truth["index"], target.truth["labels"]
    truth = data.private.images(index.flatten().numpy())
    pools = reconstruction.notes.get("pools", range(len(index)))  # clients behind one sum are matched as one batch
    groups = np.repeat(np.asarray(pools), protocol.batch_size)
    images = reconstruction.data.flatten(0, 1).clone()
    if reconstruction.failed is not None:
        images[torch.as_tensor(np.repeat(reconstruction.failed.numpy(), protocol.batch_size))] = torch.nan
    eyes = Perception(scenario.judges, evaluator or {}, data) if scenario.judges else None
    how = _how(scenario, data, index, eyes, seed)
    scores = pairwise(truth, images, match=True, groups=groups, seed=seed, **how)
    metrics, unavailable = _split(scores)
    controls = _controls(truth, data, groups, seed, how)
    if reconstruction.notes.get("labels") == "given":
        unavailable["label_recovery"] = "the labels were given to the attacker"
    else:
        per_client = [
            label_recovery(guess, true, data.classes).overlap for guess, true in zip(reconstruction.labels, labels)
        ]
        metrics["label_recovery"] = np.repeat(np.array(per_client), protocol.batch_size)
    proven = {}
    if "certified" in reconstruction.notes:
        exact = (metrics["psnr"].reshape(len(index), -1) > CERTIFIED).all(1)
        claims, proven["certified_wrong"] = certified(reconstruction.notes["certified"], exact)
        metrics["certified"] = np.repeat(claims, protocol.batch_size)
    facts = {
        **proven,
        "label_rules": label_rules(scenario, target, seed),
        "clipped": scores.clipped,
        "failures": scores.failures,
        "capped": scores.capped,
        "metrics": scores.notes,
        "checks": target.truth["checks"],
    }
    facts["label_blind"] = float(_blind(labels, data, seed).mean())
    facts |= state_of(scenario, data) | (eyes.facts(truth, images, groups, seed) if eyes else {})
    facts |= _said(target.released["defense"])
    if "sent_images" in target.truth:
        facts["to_transformed"] = _to_transformed(target.truth["sent_images"], images, groups, seed)
    gallery = _gallery(truth, images, scores, data)
    curves = _curves(truth, reconstruction, groups, seed)
    clients = np.repeat(index[:, 0].numpy(), protocol.batch_size)  # a client is the same in two seeds if its images are
    return Evaluation(metrics, clients, controls, curves, unavailable, facts, gallery)


def evaluate_labels(
    scenario: Scenario, reconstruction: Reconstruction, target: Target, data: Dataset, seed: int
) -> Evaluation:
    """Recovered labels against the true ones, a value per client; no images."""
    index, labels = target.truth["index"], target.truth["labels"]
    scores = [label_recovery(guess, true, data.classes) for guess, true in zip(reconstruction.labels, labels)]
    metrics = {
        "label_recovery": np.array([s.overlap for s in scores]),
        "labels_exact": np.array([s.exact for s in scores]),
    }
    unavailable = {}
    existence = [s.existence for s in scores]
    if gone := [e.reason for e in existence if isinstance(e, Unavailable)]:
        unavailable["classes_found"] = gone[0]
    else:
        metrics["classes_found"] = np.array(existence)
    controls = {
        "blind_guess": {"label_recovery": _blind(labels, data, seed)},
        "truth": {name: np.ones(len(index)) for name in metrics},
    }
    facts = {"checks": target.truth["checks"], **state_of(scenario, data), **_said(target.released["defense"])}
    return Evaluation(metrics, index[:, 0].numpy(), controls, {}, unavailable, facts)


def _said(public: Mapping[str, Any]) -> dict[str, str]:
    """What the defense states of itself, in words: NOT PRIVATE and INSECURE where it is."""
    return {name: public[name] for name in ("security", "guarantee") if name in public}


def state_of(scenario: Scenario, data: Dataset) -> dict[str, float]:
    """How far the attacked model was trained: passes over the private set before the attacked round; and the
    steps that a client takes."""
    federation = read_federation(scenario.training, f"scenarios.{scenario.name}.training")
    protocol = read_protocol(scenario.protocol, f"scenarios.{scenario.name}.protocol")
    seen = federation.rounds * federation.clients * federation.batch
    return {"target_epochs": seen / len(data.private), "local_steps": float(len(protocol.steps))}


def _blind(labels: Tensor, data: Dataset, seed: int) -> np.ndarray:
    """Overlap per client of a guess from the public class frequencies."""
    known = data.public.y[data.public.y >= 0]  # none where public data come from another data set
    prior = np.bincount(known, minlength=data.classes) if len(known) else np.ones(data.classes)
    return np.array([blind_overlap(row.numpy(), prior, np.random.default_rng(seed)) for row in labels])


def label_rules(scenario: Scenario, target: Target, seed: int) -> dict[str, list[float] | str]:
    """Overlap of true and recovered labels per client, by every rule, from the update alone."""
    released = target.released
    protocol = read_protocol(scenario.protocol, f"scenarios.{scenario.name}.protocol")
    problem = problem_of(scenario, target)
    out: dict[str, list[float] | str] = {}
    for rule in RULES:
        if rule == "inner_product" and protocol.batch_size > 1:
            out[rule] = "defined for one image"
            continue
        guess = recovered(problem, rule, torch.Generator().manual_seed(seed % 2**31))
        out[rule] = [
            label_recovery(g, t, released["classes"]).overlap for g, t in zip(guess, target.truth["labels"])
        ]
    return out


def problem_of(scenario: Scenario, target: Target) -> Problem:
    """The attacked round as an attacker reads it, without an oracle."""
    released = target.released
    protocol = read_protocol(scenario.protocol, f"scenarios.{scenario.name}.protocol")
    built = dict(released["architecture"])
    defense = NONE if built["id"] == NONE.id else registry.get("defense", built.pop("id"))(**built)
    model: Victim = Images(scenario).load(released, defense)  # type: ignore[assignment]
    update = {n: t * protocol.scale for n, t in released["updates"]["client"].items()}
    return Problem(model.bn_mode(protocol.bn), protocol, update, None)


def _to_transformed(sent: Tensor, images: Tensor, groups: np.ndarray, seed: int) -> dict[str, float]:
    """Mean scores against what the clients trained on in place of their images (clients, batch, c, h, w)."""
    seen = sent.flatten(0, 1).clamp(0, 1)  # codes of a private encoder leave the range
    scores = pairwise(seen, images, NAMES, match=True, groups=groups, seed=seed)
    return {n: float(np.nanmean(v)) for n, v in scores.values.items()}


def _split(scores: PairScores) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Finite values per image, with the success rates; reasons for what is missing."""
    missing = {name: gone.reason for name, gone in scores.unavailable.items()}
    undefined = {name: int(np.isnan(v).sum()) for name, v in scores.values.items()}
    missing |= {name: f"undefined for {n} of {len(scores)} images" for name, n in undefined.items() if n}
    metrics = {name: v for name, v in scores.values.items() if name not in missing}
    for level in SUCCESS:
        metrics[f"success_{level}"] = (metrics["psnr"] > level).astype(np.float64)
    return metrics, missing


def _how(scenario: Scenario, data: Dataset, index: Tensor, eyes: Perception | None, seed: int) -> dict[str, Any]:
    """What is measured and by what, as arguments of `pairwise`; attacks and controls share it."""
    others = np.random.default_rng(seed).permutation(len(data.private))[:POOL]
    return {
        "names": (*ALWAYS, *scenario.metrics, *(["lpips_like"] if eyes else [])),
        "prior": data.public.images().mean(0, keepdim=True),
        "pool": data.private.images(np.union1d(index.flatten().numpy(), others)),
        "features": eyes.first if eyes else None,
    }


def _controls(
    truth: Tensor, data: Dataset, groups: np.ndarray, seed: int, how: Mapping[str, Any]
) -> dict[str, dict[str, np.ndarray]]:
    """Control -> metric -> values, all matched as the attack was."""
    rng = np.random.default_rng(seed)
    scored = score_controls(truth, data.public.images(), rng=rng, match=True, groups=groups, **how)
    return {ours: _split(scored[theirs])[0] for theirs, ours in CONTROLS.items()}


def _curves(
    truth: Tensor, reconstruction: Reconstruction, groups: np.ndarray, seed: int
) -> dict[str, list[tuple[int, np.ndarray]]]:
    """PSNR of what the attack had after fewer gradient evaluations, matched anew at each."""
    points = [
        (n, pairwise(truth, x.flatten(0, 1), ("psnr",), match=True, groups=groups, seed=seed).values["psnr"])
        for n, x in reconstruction.checkpoints
    ]
    return {"psnr": points} if points else {}


def _gallery(truth: Tensor, images: Tensor, scores: PairScores, data: Dataset, most: int = 8) -> dict[str, Tensor]:
    """Original, reconstruction in the matched order, nearest public image."""
    order = torch.as_tensor(scores.permutation)
    found = images[order].nan_to_num(0.5).clamp(0, 1)[:most]
    public = data.public.images()
    nearest = torch.cdist(found.flatten(1), public.flatten(1)).argmin(dim=1)
    return {"original": truth[:most], "reconstruction": found, "nearest": public[nearest]}


