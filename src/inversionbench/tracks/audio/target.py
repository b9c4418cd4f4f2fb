"""Training targets and evaluators of the audio track, on windows of clips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inversionbench.core.defense import NONE, Defense
from inversionbench.core.errors import UserError
from inversionbench.core.recipe import Recipe
from inversionbench.core.seeds import stream
from inversionbench.models import audio
from inversionbench.tracks.audio.track import RECIPE
from inversionbench.training.effects import effects
from inversionbench.training.loop import evaluate_classifier, fit

if TYPE_CHECKING:
    from inversionbench.core.scenario import Progress, Scenario
    from inversionbench.data.base import Dataset, Part

JUDGES = {"width": 16, "epochs": 7}
# name -> pooling: the first judge pools as the target does
POOLING = {"first": "time", "second": "global"}


def clips(part: Part) -> list[Tensor]:
    """Every clip of a part as a patch (BANDS, frames)."""
    return audio.patches(part.tensor(), torch.from_numpy(part.extra["length"].copy()))


def cut(part: Part) -> tuple[Tensor, Tensor, Tensor]:
    """All windows of a part, one every half window: x (n, 1, BANDS, FRAMES), y (n,), the clip of each (n,)."""
    found = [audio.windows(patch) for patch in clips(part)]
    clip = torch.repeat_interleave(torch.arange(len(found)), torch.tensor([len(w) for w in found]))
    return torch.cat(found)[:, None], part.labels()[clip], clip


def publish(
    scenario: Scenario, data: Dataset, defense: Defense, seed: int, progress: Progress | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
    """Train a target; what is released, what is true (nothing but the clips, which the data set holds), its utility."""
    x, y, _ = cut(data.private)
    width = scenario.model.get("width", 8)
    factory = lambda: audio.SpeakerNet(width, "time", data.classes)
    rng = torch.Generator().manual_seed(seed)
    recipe = Recipe(**{**RECIPE, **scenario.training})
    network = fit(factory, x, y, data.classes, recipe, defense, rng, progress, scenario.name)
    released = {"weights": _weights(network), "width": width, "classes": data.classes,
                "defense": defense.public_knowledge()}  # fmt: skip
    found = {"train_accuracy": evaluate_classifier(network, x, y)["accuracy"]}
    return released, {}, found | effects(network, x, y, data.classes, seed)


def load(released: Mapping[str, Any], defense: Defense = NONE) -> nn.Module:
    """The target from what was released, frozen. defense: the one it was trained with (its H3)."""
    network = defense.build_model(lambda: audio.SpeakerNet(released["width"], "time", released["classes"]))
    network.load_state_dict(released["weights"])
    return network.eval().requires_grad_(False)


def utility(network: nn.Module, data: Dataset, defense: Defense, seed: int) -> dict[str, Any]:
    """Of windows of held-out clips: accuracy, nll, ece, hits; and clip_accuracy, of the mean over a clip's windows."""
    x, y, clip = cut(data.heldout)
    rng = torch.Generator().manual_seed(seed)
    found = evaluate_classifier(network, x, y, lambda logits: defense.release(logits, rng), defense.keeps_labels)
    with torch.no_grad():
        scores = network(x).softmax(1)
    summed = torch.zeros(int(clip.max()) + 1, scores.shape[1]).index_add_(0, clip, scores)
    said = summed.argmax(1) == data.heldout.labels()
    return found | {"clip_accuracy": said.float().mean().item()}


def train_judges(
    options: Mapping[str, Any], data: Dataset, seed: int, progress: Progress | None
) -> dict[str, Any]:
    """Two recognisers with other pooling, trained on the evaluation clips with noise; how well they know held-out
    windows stands in "accuracy"."""
    width, epochs = (options.get(name, value) for name, value in JUDGES.items())
    (x, y, _), (hx, hy, _) = cut(data.evaluation), cut(data.heldout)
    out: dict[str, Any] = {"width": width, "classes": data.classes, "accuracy": {}}
    for name, pooling in POOLING.items():
        recipe = Recipe(epochs=epochs, rate=5e-3, noise=0.1)
        factory = lambda pooling=pooling: audio.SpeakerNet(width, pooling, data.classes)
        network = fit(factory, x, y, data.classes, recipe, NONE, stream(seed, name), progress, name)
        out[name] = _weights(network)
        out["accuracy"][name] = evaluate_classifier(network, hx, hy)["accuracy"]
    return out


def judges(state: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The evaluators by name, from what `train_judges` returned."""
    if "first" not in state:
        raise UserError("judges: a scenario of sound needs its two listeners: name an entry of `evaluators:`")
    out: dict[str, nn.Module] = {}
    for name, pooling in POOLING.items():
        out[name] = audio.SpeakerNet(state["width"], pooling, state["classes"])
        out[name].load_state_dict(state[name])
        out[name].eval()
    return out


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
