"""Text classifiers: what the classifier of a firm's sentences gives away of who and what they name.

A track of its own beside `text`: there an update of a language model is observed and whole sentences come back; here a
finished classifier is asked or read, and what can leak are entities that its classes name too often.

target: `models.encoder`, trained on private sentences; each target has secret entities of its own (`target`). oracle
levels WB and BB-S. truth: the secret entity of each class and type. There is no trained evaluator: entities are
counted.

scenario.model     {name: encoder, width, blocks, heads, vocabulary, length (words and two marks)}
scenario.training  recipe, see `core.recipe.Recipe`
scenario.protocol  {}
scenario.subjects  attacked classes: all of the data set's
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.errors import UserError
from inversionbench.core.levels import HOOKS
from inversionbench.core.recipe import check_recipe
from inversionbench.core.scenario import Evaluation, Progress, Scenario, Target
from inversionbench.tracks.base import Track
from inversionbench.tracks.text_classifier.settings import RECIPE, check_model

if TYPE_CHECKING:
    from inversionbench.core.attack import Attack, Knowledge, Reconstruction
    from inversionbench.core.defense import Defense
    from inversionbench.data.base import Dataset, Part
    from inversionbench.oracle.base import Oracle


class TextClassifier(Track):
    """Entities from classifiers; module docstring."""

    id: ClassVar[str] = "text_classifier"
    order = 6
    title = "Text classifiers"
    about = """A transformer classifies private sentences, whose classes name some people, places and amounts too often.
        The attacker has public text, makes sentences for each class and counts whom they name."""
    headline: ClassVar[str] = "entity_lift"
    metrics = ("entity_lift", "entity_rank", "entity_first", "surprise", "grammatical")
    controls = {
        "private_sentences": {
            "label": "private sentences", "reach": "ceiling",
            "note": "as many true sentences of the class, held out from training",
        },
        "public_sentences": {
            "label": "public sentences", "reach": "guess", "note": "as many public sentences of the class",
        },
    }  # fmt: skip
    utility: ClassVar[str] = "accuracy"
    modality = "text"
    hooks = frozenset(HOOKS) - {"client_update", "aggregate", "release_features"}

    def check(self, scenario: Scenario) -> None:
        check_model(scenario.model)
        check_recipe({**RECIPE, **scenario.training}, "training")
        for option in scenario.protocol:
            raise UserError(f"protocol: no option '{option}'; a text classifier has none")

    def train_target(
        self, scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress
    ) -> Target:
        from inversionbench.tracks.text_classifier.target import publish

        if "secrets" not in data.meta:
            raise UserError(f"data set '{data.name}': it does not say which entities its sentences name too often")
        return Target(*publish(scenario, data, defense, seed, progress))

    def oracle(
        self, scenario: Scenario, released: dict[str, Any], attack: Attack, level: str, defense: Defense, seed: int
    ) -> Oracle:
        import torch

        from inversionbench.oracle.base import InputSpec
        from inversionbench.oracle.classifier import classifier_oracle
        from inversionbench.tracks.text_classifier.target import load

        spec = InputSpec((released["options"]["length"],), 0, len(released["words"]) - 1, "int64")
        rng = torch.Generator().manual_seed(seed)
        return classifier_oracle(load(released, defense), level, spec, released["classes"], defense, rng)

    def knowledge(
        self, scenario: Scenario, released: dict[str, Any], public: Part, meta: Mapping[str, Any], prior: Any
    ) -> Knowledge:
        from inversionbench.core.attack import Knowledge

        if prior is not None and prior.words != tuple(released["words"]):
            raise UserError("the prior's words are not the target's: give both the same vocabulary")
        return Knowledge(public=public, prior=prior, words=tuple(released["words"]), classes=released["classes"])

    def utility_of(
        self, scenario: Scenario, target: Target, defense: Defense, data: Dataset, seed: int
    ) -> dict[str, Any]:
        from inversionbench.tracks.text_classifier.target import load, utility

        told, length = target.released, target.released["options"]["length"]
        net = load(told, defense)
        return target.utility | utility(net, tuple(told["words"]), length, target.truth["renamed"], data, defense, seed)

    def evaluate(
        self, scenario: Scenario, reconstruction: Reconstruction, target: Target, data: Dataset, evaluator: Any,
        seed: int,
    ) -> Evaluation:
        from inversionbench.tracks.text_classifier.evaluate import evaluate

        return evaluate(reconstruction, target, data, seed % 2**63)
