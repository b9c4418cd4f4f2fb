"""The split track: what the features that a device sends to a server give away of its input.

Target: a network in two halves, trained together on private data (`halves`). The attacker is the server, or somebody on
the wire: he sees what the client sends for each of `subjects` victims, which are held-out inputs, knows the server
half, and, by level, may compute the client half himself, ask it, or neither. His inputs are of other people or classes.

scenario.model      {name: split_cnn, cut: 1 | 2 | 3, widths} for images, {name: split_decoder, cut (blocks), width,
                    blocks, heads, vocabulary, length} for sentences; see `models.split`
scenario.training   a recipe (`core.recipe`), of both halves
scenario.protocol   {budget: most inputs of which the client may be asked the features}
scenario.judges     evaluators of the classifier track; of data sets of people, for `identified`
scenario.metrics    further metrics of pairs of images
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.levels import HOOKS
from inversionbench.core.recipe import check_recipe
from inversionbench.core.scenario import Evaluation, Progress, Scenario, Target
from inversionbench.core.settings import check_options, check_value
from inversionbench.models._text_names import check_model
from inversionbench.tracks.base import PIXELS, Track, pairs

if TYPE_CHECKING:
    from inversionbench.core.attack import Attack, Knowledge, Reconstruction
    from inversionbench.core.defense import Defense
    from inversionbench.core.registry import Method
    from inversionbench.data.base import Dataset, Part
    from inversionbench.oracle.base import Oracle
    from inversionbench.training.evaluators import Judges

TEXT = "split_decoder"
IMAGES = {"split_cnn": {"cut": 2, "widths": (16, 32, 64)}}
KINDS = {"cut": "Literal[1, 2, 3]", "widths": "tuple[Count, Count, Count]"}
DECODER = {"width": 64, "blocks": 2, "heads": 4, "vocabulary": 640, "length": 18, "cut": 2}
FEWEST = 2  # victims: controls swap them


class Split(Track):
    """Module docstring."""

    id: ClassVar[str] = "split"
    order = 3
    title = "Split inference"
    about = """A device computes the first layers of a network on a private input and sends what comes out to a server,
        which computes the rest. The server rebuilds the input from what it gets."""
    nearest = "nearest public"
    judged_by = "classifier"
    headline: ClassVar[str] = "psnr"
    metrics = ("psnr", "ssim", "mse", "identified", "verified", "dlib_identified", "dlib_verified", "iip", "rdlv",
               "fsim", "lpips", "exact_match", "token_accuracy", "token_recall", "rougeL")  # fmt: skip
    on_device: ClassVar[bool] = True
    hooks = frozenset(HOOKS) - {"client_update", "aggregate", "release"}

    def further(self) -> Collection[str]:
        return pairs(PIXELS)

    def check(self, scenario: Scenario) -> None:
        if scenario.model.get("name") == TEXT:
            _check_decoder(scenario.model)
        else:
            check_options(scenario.model, {**IMAGES, TEXT: DECODER}, KINDS, "model", "network in two halves")
        check_recipe(scenario.training, "training")
        for name, value in scenario.protocol.items():
            if name != "budget":
                raise UserError(f"protocol: unknown '{name}': {suggest(name, ['budget'])}")
            check_value(value, "Count", "protocol.budget")
        if scenario.subjects < FEWEST:
            raise UserError(f"subjects: expected at least {FEWEST} victims, got {scenario.subjects}")

    def modality_of(self, scenario: Scenario) -> str:
        return "text" if scenario.model.get("name") == TEXT else self.modality

    def accepts(self, scenario: Scenario, attack: Method) -> bool:
        return attack.attributes.get("asks", self.modality) == self.modality_of(scenario)

    def train_target(
        self, scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress
    ) -> Target:
        from inversionbench.tracks.split.halves import train_halves

        return train_halves(scenario, defense, data, seed, progress)

    def oracle(
        self, scenario: Scenario, released: dict[str, Any], attack: Attack, level: str, defense: Defense, seed: int
    ) -> Oracle:
        from inversionbench.oracle.base import InputSpec
        from inversionbench.oracle.split import split_oracle
        from inversionbench.tracks.split.halves import load_halves

        net, spec = load_halves(released, defense, seed), InputSpec(tuple(released["shape"]))
        if "words" in released:
            spec = InputSpec(spec.shape, 0, released["classes"] - 1, "int64")
        return split_oracle(net, released["features"], level, spec, released["classes"], **scenario.protocol)

    def knowledge(
        self, scenario: Scenario, released: dict[str, Any], public: Part, meta: Mapping[str, Any], prior: Any
    ) -> Knowledge:
        from inversionbench.core.attack import Knowledge

        granted = {"public": public, "shape": tuple(released["shape"]), "classes": released["classes"],
                   "model": released["model"], "defense": released["public_knowledge"]}  # fmt: skip
        granted |= {"words": released["words"]} if "words" in released else {}
        return Knowledge(**granted, **({} if prior is None else {"prior": prior}))

    def utility_of(
        self, scenario: Scenario, target: Target, defense: Defense, data: Dataset, seed: int
    ) -> dict[str, Any]:
        from inversionbench.tracks.split.halves import load_halves, utility

        net = load_halves(target.released, defense, seed)
        return {**target.utility, **utility(net, target.released, defense, data)}

    def evaluate(
        self, scenario: Scenario, reconstruction: Reconstruction, target: Target, data: Dataset, evaluator: Any,
        seed: int,
    ) -> Evaluation:
        from inversionbench.tracks._instances import evaluate_instances
        from inversionbench.tracks.split.sentences import evaluate_sentences

        rows, told = target.truth["rows"], target.released["public_knowledge"]
        if "words" in target.released:
            found = evaluate_sentences(reconstruction, target.released, rows, data, seed % 2**32)
        else:
            found = evaluate_instances(reconstruction, rows, data, seed, evaluator or None, scenario.metrics)
        found.facts |= {"guarantee": told["guarantee"]} if "guarantee" in told else {}
        return found

    def load_evaluator(self, state: dict[str, Any]) -> Judges:
        from inversionbench.training.evaluators import Judges

        return Judges(state)


def options_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the split language model, defaults included."""
    return {**DECODER, **{k: v for k, v in model.items() if k != "name"}}


def _check_decoder(model: Mapping[str, Any]) -> None:
    """The options of a decoder, and a block to cut after."""
    options = options_of(model)
    cut = options.pop("cut")
    check_model({"name": "decoder", **options})
    check_value(cut, f"Literal{list(range(1, options['blocks'] + 1))}", "model.cut")
