"""The answers track: what the scores, or an explanation, that a service gives for an input tell of that input.

Target: a classifier of private data behind an interface. `subjects` victims, held-out inputs of its classes, asked it;
the attacker saw the answers they got, may ask it himself about public images, and never sees a weight. Truth is the
very input.

scenario.model      {"name": one of models/names.py, options}
scenario.training   a recipe (`core.recipe`)
scenario.protocol   attacked: victims are of so many first classes (all unless given)
                    explanations: kinds that the service gives with its scores, see `models.explain`; none unless given
                    every_class: it explains all classes, not only the predicted one
                    budget: most queries of one attack
scenario.judges     evaluators of the classifier track, for identity and class
scenario.metrics    further metrics of pairs of images
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.levels import HOOKS, Level
from inversionbench.core.recipe import check_recipe
from inversionbench.core.scenario import Evaluation, Progress, Scenario, Target
from inversionbench.core.settings import check_value
from inversionbench.models._own_names import NAME as OWN
from inversionbench.models.names import check_model
from inversionbench.tracks.base import PIXELS, Track, pairs

if TYPE_CHECKING:
    from inversionbench.core.attack import Attack, Knowledge, Reconstruction
    from inversionbench.core.defense import Defense
    from inversionbench.core.registry import Method
    from inversionbench.data.base import Dataset, Part
    from inversionbench.oracle.base import Oracle
    from inversionbench.training.evaluators import Judges

KIND = "Literal['gradient', 'gradient_x_input', 'gradcam', 'lrp']"
PROTOCOL = {"attacked": "Count", "budget": "Count", "every_class": "bool", "explanations": "tuple"}
UNEXPLAINED = {"gradcam": (OWN, "softmax", "mlp"), "lrp": (OWN,)}
FEWEST = 2  # victims: controls swap them


class Answers(Track):
    """Module docstring."""

    id: ClassVar[str] = "answers"
    order = 4
    title = "Answers of a service"
    about = """A service answers a private input with scores, some also with an explanation. Whoever sees the answer
        rebuilds the input, with public images whose answers the service tells him, too."""
    nearest = "nearest public"
    judged_by = "classifier"
    levels = {
        "AN-S": Level("scores of the victims, scores by query", frozenset({"observe", "scores"})),
        "AN-EX": Level("scores and explanations of the victims, both by query",
                       frozenset({"observe", "scores", "explain"})),
        "AN-OLD": Level("scores of the victims, queries before the defense", frozenset({"observe", "undefended"})),
    }  # fmt: skip
    headline: ClassVar[str] = "psnr"
    metrics = ("psnr", "ssim", "mse", "identified", "verified", "dlib_identified", "dlib_verified", "agreement", "top1",
               "second", "iip", "rdlv", "fsim", "lpips")  # fmt: skip
    on_device: ClassVar[bool] = True
    hooks = frozenset(HOOKS) - {"client_update", "aggregate", "release_features"}

    def further(self) -> Collection[str]:
        return pairs(PIXELS)

    def check(self, scenario: Scenario) -> None:
        check_model(scenario.model, "model")
        check_recipe(scenario.training, "training")
        for name, value in scenario.protocol.items():
            if name not in PROTOCOL:
                raise UserError(f"protocol: unknown '{name}': {suggest(name, PROTOCOL)}")
            check_value(value, PROTOCOL[name], f"protocol.{name}")
        for kind in scenario.protocol.get("explanations", ()):
            check_value(kind, KIND, "protocol.explanations")
            if scenario.model["name"] in UNEXPLAINED.get(kind, ()):
                raise UserError(f"protocol.explanations: '{kind}' reads the layers of a network, which "
                                f"'{scenario.model['name']}' does not show; gradient and gradient_x_input need none")
        if scenario.subjects < FEWEST:
            raise UserError(f"subjects: expected at least {FEWEST} victims, got {scenario.subjects}")

    def accepts(self, scenario: Scenario, attack: Method) -> bool:
        needs = attack.attributes.get("needs")
        return not needs or bool(scenario.protocol.get(needs))

    def train_target(
        self, scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress
    ) -> Target:
        from inversionbench.tracks.answers.service import train_service

        return train_service(scenario, defense, data, seed, progress)

    def oracle(
        self, scenario: Scenario, released: dict[str, Any], attack: Attack, level: str, defense: Defense, seed: int
    ) -> Oracle:
        import torch

        from inversionbench.oracle.answers import answers_oracle
        from inversionbench.oracle.base import InputSpec
        from inversionbench.tracks._plain import acting
        from inversionbench.tracks.answers.service import network

        rng, protocol = torch.Generator().manual_seed(seed), scenario.protocol
        return answers_oracle(
            network(released), released["observed"], level, InputSpec(tuple(released["shape"])), released["classes"],
            acting(released, defense), rng, protocol.get("budget"), protocol.get("every_class", False),
        )  # fmt: skip

    def knowledge(
        self, scenario: Scenario, released: dict[str, Any], public: Part, meta: Mapping[str, Any], prior: Any
    ) -> Knowledge:
        from inversionbench.core.attack import Knowledge

        granted = {"public": public, "shape": tuple(released["shape"]), "classes": released["classes"],
                   "attacked": released["attacked"], "defense": released["public_knowledge"]}  # fmt: skip
        return Knowledge(**granted, **({} if prior is None else {"prior": prior}))

    def utility_of(
        self, scenario: Scenario, target: Target, defense: Defense, data: Dataset, seed: int
    ) -> dict[str, Any]:
        from inversionbench.tracks.answers.service import utility

        return {**target.utility, **utility(target.released, defense, data, seed)}

    def evaluate(
        self, scenario: Scenario, reconstruction: Reconstruction, target: Target, data: Dataset, evaluator: Any,
        seed: int,
    ) -> Evaluation:
        from inversionbench.tracks.answers.evaluate import evaluate

        return evaluate(reconstruction, target.truth["rows"], data, seed, evaluator or None, scenario.metrics)

    def load_evaluator(self, state: dict[str, Any]) -> Judges:
        from inversionbench.training.evaluators import Judges

        return Judges(state)
