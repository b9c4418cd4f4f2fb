"""The two halves: trained together with a defense in the loop, loaded again with the release in them, and their price.

    defense = defense.prepare(...)                      a search or a pre-training of its own, once
    x, y    = H1 training_set(x, y)
    net     = H3 build_model(factory)                   `models.split.Halves`; may change client and server
    for batch:
        x', y'  = H2 train_transform(batch)
        z       = client(x')                            `Step.hidden["features"]`
        sent    = H8 release_features(z, Sending(client, training=True, rng))
        loss    = H4 loss(Step)                         logits = server(sent); Step.model is the whole of `Halves`
        g'      = H5 gradient(g)                        of both halves
    at inference: sent = H8 release_features(z, Sending(client, training=False, rng))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inversionbench.core.defense import Defense, Sending
from inversionbench.core.device import device
from inversionbench.core.recipe import Recipe
from inversionbench.core.scenario import Progress, Scenario, Target
from inversionbench.core.seeds import draw_seed, stream
from inversionbench.data.base import Dataset, Part
from inversionbench.latent.dependence import distance_correlation
from inversionbench.models.classifiers import freeze
from inversionbench.models.split import Halves, Release, build, flops
from inversionbench.tracks._plain import plain, rebuilt
from inversionbench.tracks.split import sentences
from inversionbench.tracks.split.track import TEXT, options_of
from inversionbench.training.evaluators import plain_state
from inversionbench.training.loop import as_float, evaluate_classifier, fit

PAIRS = 256  # held-out images whose distance correlation with their features is taken


def release_of(defense: Defense, rng: torch.Generator) -> Release | None:
    """What a defense does to features, as the halves call it; None where it leaves them alone."""
    if "release_features" not in defense.hooks:
        return None
    return lambda z, net: defense.release_features(z, Sending(net.client, net.training, rng))


def train_halves(scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress) -> Target:
    """Train client and server half on the private part; draw the victims from the held-out part, which trains nothing.

    released: the halves and the victims' features before the release, which only the oracle reads. truth: their rows.
    """

    text = scenario.model["name"] == TEXT
    model = {"name": TEXT, **options_of(scenario.model)} if text else dict(scenario.model)
    known: dict[str, Any] = {"shape": list(data.shape), "classes": data.classes}
    if text:
        known = sentences.about(model, data)
    shape, classes = tuple(known["shape"]), known["classes"]

    def factory(rng: torch.Generator) -> Halves:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(rng))
            return build(model, shape, classes)

    defense = defense.prepare(data, factory, stream(seed, "defense", "prepare"))
    release = release_of(defense, stream(seed, "defense", "release"))
    x, y = (part.to(device()) for part in inputs(known, data.private))
    net: Halves = fit(  # type: ignore[assignment]
        lambda: build(model, shape, classes, release), x, y, classes, Recipe(**scenario.training), defense,
        torch.Generator().manual_seed(seed), progress, "halves",
    )  # fmt: skip
    rows = torch.randperm(len(data.heldout), generator=stream(seed, "victims"))[: scenario.subjects]
    with torch.no_grad():
        features = net.client(as_float(inputs(known, data.heldout, rows.numpy())[0]).to(x.device)).cpu()
    told = defense.public_knowledge()
    if stated := defense.statements(0.0, 0, features[0].numel(), 1):
        told["guarantee"] = "; ".join(stated)
    released = {
        **known, "model": model, "defense": plain(defense), "public_knowledge": told,
        "state": plain_state(net), "features": features.contiguous(),
    }  # fmt: skip
    return Target(released, {"rows": rows}, {})


def inputs(known: Mapping[str, Any], part: Part, rows: Any = slice(None)) -> tuple[Tensor, Tensor]:
    """Inputs and targets of some of a part: images uint8 and classes, or tokens and the tokens that follow. known: what
    a target released, or as much of it as says which."""
    if "words" in known:
        return sentences.tokens(known, part, rows)
    return torch.from_numpy(np.array(part.x[rows])), part.labels(rows)


def load_halves(released: Mapping[str, Any], defense: Defense, seed: int) -> Halves:
    """The trained halves, frozen, with the release of the defense that trained them, or of `defense` where that acts on
    the release alone and shares the undefended halves. seed: of what a release draws."""
    own = rebuilt(released["defense"])
    release = release_of(own if own.hooks else defense, torch.Generator().manual_seed(seed))
    with torch.random.fork_rng(devices=[]):
        net = own.build_model(lambda: build(released["model"], tuple(released["shape"]), released["classes"], release))
    net.load_state_dict(released["state"])
    return freeze(net).to(device())  # type: ignore[return-value]


def utility(net: Halves, known: Mapping[str, Any], defense: Defense, data: Dataset) -> dict[str, Any]:
    """Accuracy of the whole path with its release on the held-out part, and what the client pays for one input:
    parameters, floating-point operations, bytes sent. dcor: distance correlation of images and what is sent. known:
    what the target released."""
    where = next(net.parameters()).device
    x, y = (part.to(where) for part in inputs(known, data.heldout))
    images = "words" not in known
    found = evaluate_classifier(net, x, y) if images else sentences.quality(net, x, y)
    some = as_float(x[:PAIRS])
    with torch.no_grad():
        sent = net.send(some)
    return {
        **found, "client_parameters": sum(p.numel() for p in net.client.parameters()),
        "client_flops": flops(net.client, some[:1]), "bytes_sent": defense.bytes_sent({"features": sent[0]}),
        **({"dcor": float(distance_correlation(some, sent))} if images else {}),
    }  # fmt: skip
