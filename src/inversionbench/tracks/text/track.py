"""The text track: what a client's update of a language model gives away of its sentences.

target: the global model and the updates of client batches of sentences. oracle level GR. truth: the sentences.
There is no evaluator: sentences are compared word by word.

scenario.model     {name: decoder, width, blocks, heads, vocabulary, length (words and two marks), task: language |
                   class (from the last word; the search then needs three blocks)}
scenario.training  recipe on the public text before the attacked round, see `core.recipe.Recipe`; epochs: 0,
                   the default, is untrained
scenario.protocol  {batch_size: a number or a list, precision: float64 | float32, trained: attention | all,
                   sends: gradient | delta, epochs, local_batch, local_rate, observer}; see `core.protocol.Protocol`
scenario.subjects  attacked clients of each batch size
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.levels import HOOKS, RELEASES
from inversionbench.core.recipe import check_recipe
from inversionbench.core.scenario import Evaluation, Progress, Scenario, Target
from inversionbench.core.settings import check_value
from inversionbench.federation.settings import batches_of_sentences
from inversionbench.models._text_names import check_model, options_of
from inversionbench.tracks.base import Track

if TYPE_CHECKING:
    from inversionbench.core.attack import Attack, Knowledge, Reconstruction
    from inversionbench.core.defense import Defense
    from inversionbench.data.base import Dataset, Part
    from inversionbench.oracle.base import Oracle

CHOICES = {"precision": ("float64", "float32"), "trained": ("attention", "all")}


class Text(Track):
    """Sentences from updates; module docstring."""

    id: ClassVar[str] = "text"
    order = 5
    title = "Text"
    about = "A language model, or an update of one. The attacker tries to recover private sentences."
    headline: ClassVar[str] = "exact_match"
    metrics = (
        "exact_match", "verbatim", "token_accuracy", "token_recall", "rouge1", "rouge2", "rougeL",
    )  # fmt: skip
    controls = {
        "random_sentences": {
            "label": "random sentences",
            "reach": "guess",
            "note": "public sentences, matched as the attack is",
        },
        "unigram": {"label": "frequent words", "reach": "guess", "note": "words drawn by their public frequency"},
    }
    utility: ClassVar[str] = "accuracy"
    unpriced = "clients send one round of a model that stands already: no training shows what a defense costs"
    modality = "text"
    hooks = frozenset(HOOKS) - RELEASES

    def check(self, scenario: Scenario) -> None:
        check_model(scenario.model)
        batches_of_sentences(scenario)
        for option, allowed in CHOICES.items():
            check_value(scenario.protocol.get(option, allowed[0]), f"Literal{list(allowed)}", f"protocol.{option}")
        check_recipe({"epochs": 0, **scenario.training}, "training")

    def train_target(
        self, scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress
    ) -> Target:
        from inversionbench.federation.round import make_target
        from inversionbench.federation.sentences import Sentences

        return make_target(Sentences(scenario), defense, data, seed, progress)

    def oracle(
        self, scenario: Scenario, released: dict[str, Any], attack: Attack, level: str, defense: Defense, seed: int
    ) -> Oracle:
        from inversionbench.federation.oracle import update_oracle
        from inversionbench.federation.sentences import Sentences

        sentences = Sentences(scenario)
        model = sentences.load(released, defense)
        return update_oracle(model, released, sentences.batches, sentences.classes(released), level)

    def knowledge(
        self, scenario: Scenario, released: dict[str, Any], public: Part, meta: Mapping[str, Any], prior: Any
    ) -> Knowledge:
        from inversionbench.core.attack import Knowledge

        return Knowledge(public=public, words=tuple(released["words"]), defense=released["defense"])

    def evaluate(
        self, scenario: Scenario, reconstruction: Reconstruction, target: Target, data: Dataset,
        evaluator: dict[str, Any], seed: int,
    ) -> Evaluation:
        from inversionbench.models.text import Tokenizer
        from inversionbench.tracks.text.evaluate import evaluate

        words = Tokenizer(tuple(target.released["words"]))
        return evaluate(
            reconstruction, target.truth["tokens"], words, data.public.x, batches_of_sentences(scenario),
            options_of(scenario.model), seed % 2**63,
        )  # fmt: skip
