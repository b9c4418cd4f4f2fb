"""Evaluators: the judges of reconstructions. No attack may touch them.

Two classifiers of the private classes, of other architectures than the target and than each other, trained on
other images of the same classes (the part `evaluation`); the second with noise and blur, so that what fools
the first by high frequencies does not fool both. For generated faces, whose visible attributes are known
exactly, a third network reads attributes off a photograph; it is trained on *other* people, drawn for it.
Beside them stand the judges that learnt from other people alone: the verifier, and for real faces dlib's.

Options: training/evaluator_options.py. State: plain tensors and numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from inversionbench.core.device import device
from inversionbench.core.recipe import Recipe
from inversionbench.core.seeds import draw_seed, spawn
from inversionbench.metrics.attack_accuracy import hits
from inversionbench.metrics.base import Unavailable
from inversionbench.models.base import trace
from inversionbench.models.classifiers import build, load
from inversionbench.training.dlib_faces import DlibFaces, enrol_dlib, weights
from inversionbench.training.evaluator_options import check_options
from inversionbench.training.loop import Regression, as_float, fit
from inversionbench.training.verifier import Gallery, Verifier, train_verifier

if TYPE_CHECKING:
    from inversionbench.core.scenario import Progress
    from inversionbench.data.base import Dataset


def train_evaluators(
    options: Mapping[str, Any], data: Dataset, seed: int, progress: Progress
) -> dict[str, Any]:
    """Train the judges of a data set. `hits`: which photographs of `heldout`, which trains nothing, each gets right."""
    options = check_options(options)
    rng = torch.Generator().manual_seed(seed)
    state: dict[str, Any] = {"shape": list(data.shape), "classes": data.classes, "judges": []}
    for name in ("first", "second"):
        state["judges"].append(_judge(name, options[name], data, spawn(rng), progress))
    readable = "render" in data.meta and "attribute_names" in data.meta
    if readable and "attributes" in options:
        state["attributes"] = _reader(options["attributes"], data, spawn(rng), progress)
    if "verifier" in options:
        state["verifier"] = train_verifier(options["verifier"], data, spawn(rng), progress)
    if "dlib" in options:
        state["dlib"] = enrol_dlib(options["dlib"], data)
    return state


def _judge(
    name: str, given: Mapping[str, Any], data: Dataset, rng: torch.Generator, progress: Progress
) -> dict[str, Any]:
    x = torch.from_numpy(np.array(data.evaluation.x)).to(device())
    y = data.evaluation.labels().to(x.device)
    net = fit(
        lambda: build(given["model"], data.shape, data.classes), x, y, data.classes,
        Recipe(**given["training"]), rng=rng, progress=progress, description=f"{name} evaluator",
    )
    right = hits(outputs(net, data.heldout.images()), data.heldout.labels())
    return {"model": dict(given["model"]), "state": plain_state(net), "hits": right}


def _reader(
    given: Mapping[str, Any], data: Dataset, rng: torch.Generator, progress: Progress
) -> dict[str, Any]:
    """A network that reads standardised attributes; `r2`: share of variance it explains on people it never
    saw, per attribute."""
    from inversionbench.data.faces import random_people, render

    how = data.meta["render"]
    draw = np.random.default_rng(draw_seed(rng) % 2**32)
    people = random_people(given["people"], draw, spread=how["spread"])
    held = max(len(people) // 10, 2)
    mean, sd = people.mean(0), people.std(0).clip(1e-3)
    x = torch.from_numpy(render(people, given["photos"], draw, how["resolution"], how["nuisance"]))
    y = torch.from_numpy(np.repeat((people - mean) / sd, given["photos"], axis=0)).float()
    n = held * given["photos"]
    where = device()
    net = fit(
        lambda: build(given["model"], data.shape, y.shape[1]), x[n:].to(where), y[n:].to(where), y.shape[1],
        Recipe(**given["training"]), Regression(), rng, progress, "attribute reader",
    )
    guess = outputs(net, x[:n])
    left = (guess - y[:n]).square().mean(0) / y[:n].square().mean(0).clamp_min(1e-6)
    return {
        "model": dict(given["model"]), "state": plain_state(net), "names": list(data.meta["attribute_names"]),
        "mean": torch.from_numpy(mean), "sd": torch.from_numpy(sd), "r2": (1 - left).clamp(0, 1),
    }


class Judges:
    """The evaluators, loaded: logits and features of images by each, attributes where they can be read."""

    def __init__(self, state: Mapping[str, Any]):
        shape, classes = tuple(state["shape"]), state["classes"]
        self.where = device()
        self.nets = [load(j["model"], shape, classes, j["state"]).to(self.where) for j in state["judges"]]
        self.hits = [j["hits"].double().numpy() for j in state["judges"]]  # each (held-out photographs,)
        self.accuracies = [float(right.mean()) for right in self.hits]
        self.names = [j["model"]["name"] for j in state["judges"]]
        self.references: dict[int, tuple[Any, Any]] = {}  # what the evaluation remembers of data sets
        reader = state.get("attributes")
        self.attribute_names: list[str] = list(reader["names"]) if reader else []
        if reader:
            self.reader = load(reader["model"], shape, len(reader["names"]), reader["state"]).to(self.where)
            self.mean, self.sd, self.r2 = reader["mean"], reader["sd"], reader["r2"]
        self.galleries: dict[str, Gallery] = {}  # by the prefix of the metrics' names
        self.absent: dict[str, str] = {}  # prefix -> why there is none
        self.heldout: dict[str, dict[str, float]] = {}  # what held-out photographs score in each
        self._open(state)

    def _open(self, state: Mapping[str, Any]) -> None:
        """The judges that learnt from other people, where they are."""
        left_out = {"reason": "the evaluators were trained without a verifier"}
        found: dict[str, tuple[str, type[Verifier | DlibFaces], Any]]
        found = {"": ("verifier", Verifier, state.get("verifier", left_out))}
        if "dlib" in state:
            gone = weights()
            missing = {"reason": gone.reason} if isinstance(gone, Unavailable) else None
            found["dlib_"] = ("dlib", DlibFaces, missing or state["dlib"])
        for prefix, (name, kind, own) in found.items():
            if "reason" in own:
                self.absent[prefix] = own["reason"]
            else:
                self.galleries[prefix], self.heldout[name] = kind(own), dict(own["heldout"])

    @torch.no_grad()
    def see(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Logits (n, classes) by each judge, and the first judge's penultimate features (n, d)."""
        logits: list[list[Tensor]] = [[] for _ in self.nets]
        features = []
        for part in x.split(256):
            for which, net in enumerate(self.nets):
                seen = trace(net, as_float(part.to(self.where)))
                logits[which].append(seen.logits.cpu())
                if which == 0 and seen.features is not None:
                    features.append(seen.features.cpu())
        return [torch.cat(rows) for rows in logits], torch.cat(features)

    def read(self, x: Tensor) -> Tensor:
        """Standardised attributes read off images: (n, attributes)."""
        return outputs(self.reader, x)

    def standard(self, attributes: Tensor) -> Tensor:
        """Attribute vectors (n, attributes) on the scale of `read`."""
        return (attributes - self.mean) / self.sd


@torch.no_grad()
def outputs(net: nn.Module, x: Tensor) -> Tensor:
    """What a network says of images x (n, c, h, w), floats in [0, 1] or uint8, on the CPU."""
    where = next(net.parameters()).device
    return torch.cat([net(as_float(part.to(where))).cpu() for part in x.split(256)])


def plain_state(net: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers as plain tensors on the CPU, in the usual memory order."""
    return {k: v.detach().cpu().contiguous().clone() for k, v in net.state_dict().items()}
