"""The service: a classifier trained with a defense in the loop, what it answered the victims, what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from inversionbench.core.defense import Defense
from inversionbench.core.device import device
from inversionbench.core.errors import UserError
from inversionbench.core.recipe import Recipe
from inversionbench.core.scenario import Progress, Scenario, Target
from inversionbench.core.seeds import stream
from inversionbench.data.base import Dataset
from inversionbench.models.classifiers import build, freeze
from inversionbench.oracle.answers import explained
from inversionbench.tracks._plain import acting, plain, rebuilt
from inversionbench.training.evaluators import outputs, plain_state
from inversionbench.training.loop import evaluate_classifier, fit


def train_service(scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress) -> Target:
    """Train on the private part; draw the victims from the held-out part, which trains nothing.

    released: weights and the victims' raw answers, which only the oracle reads. truth: the victims' rows.
    """
    x = torch.from_numpy(np.array(data.private.x)).to(device())
    y = data.private.labels().to(x.device)
    net = fit(
        lambda: build(scenario.model, data.shape, data.classes), x, y, data.classes, Recipe(**scenario.training),
        defense, torch.Generator().manual_seed(seed), progress, "service",
    )  # fmt: skip
    state = plain_state(net)
    frozen = freeze(net)
    defense = defense.learn(frozen, data, stream(seed, "defense", "learn"))
    attacked = min(scenario.protocol.get("attacked", data.classes), data.classes)
    rows = torch.nonzero(data.heldout.labels() < attacked).flatten()
    if len(rows) < scenario.subjects:
        raise UserError(f"subjects: {scenario.subjects} victims, but {len(rows)} held-out images of {attacked} classes")
    rows = rows[torch.randperm(len(rows), generator=stream(seed, "victims"))[: scenario.subjects]]
    victims = data.heldout.images(rows.numpy())
    observed = {"logits": outputs(frozen, victims)}
    for kind in scenario.protocol.get("explanations", ()):
        observed[kind] = explained(frozen, victims, kind, scenario.protocol.get("every_class", False))
    released = {
        "model": dict(scenario.model), "shape": list(data.shape), "classes": data.classes, "attacked": attacked,
        "defense": plain(defense), "public_knowledge": defense.public_knowledge(), "state": state, "observed": observed,
    }  # fmt: skip
    return Target(released, {"rows": rows}, {"train_accuracy": evaluate_classifier(net, x, y)["accuracy"]})


def network(released: Mapping[str, Any]) -> nn.Module:
    """The trained classifier, frozen."""
    with torch.random.fork_rng(devices=[]):
        net = rebuilt(released["defense"]).build_model(
            lambda: build(released["model"], tuple(released["shape"]), released["classes"])
        )
    net.load_state_dict(released["state"])
    return freeze(net).to(device())


def utility(released: Mapping[str, Any], defense: Defense, data: Dataset, seed: int) -> dict[str, Any]:
    """Accuracy, negative log likelihood and calibration of what is released, on the held-out part."""
    net, rng, own = network(released), torch.Generator().manual_seed(seed), acting(released, defense)
    x, y = (part.to(device()) for part in (data.heldout.images(), data.heldout.labels()))
    release = (lambda logits: own.release(logits, rng)) if "release" in own.hooks else None
    return evaluate_classifier(net, x, y, release, own.keeps_labels)
