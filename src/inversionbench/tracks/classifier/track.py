"""The classifier track: what does a trained classifier give away of the classes it was trained on?

Target: a classifier of private classes (people). The attacker sees it white-box, by scores or by labels, has
public images of other people, and wants an image of each attacked class. A verifier and two evaluators judge.

Scenario: `model` {"name": one of models/names.py, options}; `training` a recipe (`core.recipe`);
`subjects` the attacked classes, the first ones; `protocol`: `budget` (most queries of one attack, over all
classes), `top_k` and `decimals` (what the service gives away of its scores), `hints` and `hint_labels` (damaged private
photographs of each attacked class, see `_hints`), `siblings` (further models of the same classes that the
owner trains with the same defense and releases too, as a list of models, and with `halves` 1 each on one half
of the private images by turns); `judges` is required. Attacks that need one of these, or a federated target
(`training.clients`), say so in their class attribute `needs`, and run only where it is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.levels import HOOKS
from inversionbench.core.recipe import Recipe, check_recipe
from inversionbench.core.scenario import Evaluation, Progress, Scenario, Target
from inversionbench.models.names import check_model
from inversionbench.tracks._plain import acting, plain, rebuilt
from inversionbench.tracks.base import Track
from inversionbench.tracks.classifier.hints import damage
from inversionbench.training.evaluator_options import check_options

if TYPE_CHECKING:
    from torch import nn

    from inversionbench.core.attack import Attack, Knowledge, Reconstruction
    from inversionbench.core.defense import Defense
    from inversionbench.core.registry import Method
    from inversionbench.data.base import Dataset, Part
    from inversionbench.oracle.base import Oracle
    from inversionbench.training.evaluators import Judges

PROTOCOL = ("budget", "decimals", "halves", "hint_labels", "hints", "siblings", "top_k")
ROBUST = 256  # held-out images on which robust accuracy is measured
SERVICE = ("budget", "decimals", "top_k")  # what the oracle is built with


class Classifier(Track):
    id: ClassVar[str] = "classifier"
    order = 2
    title = "Classifiers"
    about = """A classifier of private people or classes is published, or answers queries. The attacker looks for images
        of a chosen class, with a generator trained on public data of other people. A verifier that learnt from public
        people alone judges the result. Beside it stand two evaluators trained on the attacked people, whom texture
        convinces too, and the target's own opinion, which proves nothing."""
    nearest = "nearest private"
    on_device: ClassVar[bool] = True
    hooks = frozenset(HOOKS) - {"client_update", "aggregate", "release_features"}
    headline: ClassVar[str] = "identified"
    compared = "knn_distance"
    metrics = (
        "identified", "verified", "dlib_identified", "dlib_verified", "agreement", "top1", "second", "top5",
        "knn_distance", "feature_distance", "attribute_recovery", "people", "target_top1", "label_recovery",
        "hole_psnr",
    )  # fmt: skip
    controls = {
        "private_heldout": {
            "label": "private photographs",
            "reach": "ceiling",
            "note": "private images that trained nothing; the most that the judges grant",
        },
        "other_person": {
            "label": "another person",
            "reach": "guess",
            "note": "private photographs of another attacked class; should be chance",
        },
    }

    def check(self, scenario: Scenario) -> None:
        check_model(scenario.model, "model")
        check_recipe(scenario.training, "training")
        for name, value in scenario.protocol.items():
            if name not in PROTOCOL:
                raise UserError(f"protocol: unknown '{name}': {suggest(name, PROTOCOL)}")
            if name == "siblings":
                _check_siblings(value)
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < (name != "decimals"):
                raise UserError(f"protocol.{name}: expected a positive whole number, got {value!r}")
        if not scenario.judges:
            raise UserError("judges: the classifier track needs an entry of `evaluators:` that judges it")

    def accepts(self, scenario: Scenario, attack: Method) -> bool:
        needs = attack.attributes.get("needs")
        return not needs or bool({**scenario.training, **scenario.protocol}.get(needs))

    def train_target(
        self, scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress
    ) -> Target:
        import numpy as np
        import torch

        from inversionbench.core.device import device
        from inversionbench.core.seeds import stream
        from inversionbench.federation.averaging import fit_rounds
        from inversionbench.metrics.robust_accuracy import robust_accuracy
        from inversionbench.models.classifiers import build, drawn
        from inversionbench.training.effects import effects
        from inversionbench.training.evaluators import plain_state
        from inversionbench.training.loop import evaluate_classifier, fit, steps_per_epoch

        x = torch.from_numpy(np.array(data.private.x)).to(device())
        y = data.private.labels().to(x.device)
        recipe = Recipe(**scenario.training)
        fresh = drawn(scenario.model, data.shape, data.classes)
        ready = defense.prepare(data, fresh, torch.Generator().manual_seed(seed))

        def train(model: Mapping[str, Any], rows: Any, seed: int, name: str) -> nn.Module:
            return (fit_rounds if recipe.clients else fit)(
                lambda: build(model, data.shape, data.classes), x[rows], y[rows], data.classes, recipe, ready,
                torch.Generator().manual_seed(seed), progress, name,
            )

        net = train(scenario.model, slice(None), seed, "target")
        defense = defense.learn(net, data, stream(seed, "defense", "learn"))
        hints, truth = damage(data, min(scenario.subjects, data.classes), scenario.protocol, seed)
        released = {
            "model": dict(scenario.model), "shape": list(data.shape), "classes": data.classes,
            "defense": plain(defense), "state": plain_state(net), **hints,
        }
        halves = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).tensor_split(2)
        for i, model in enumerate(scenario.protocol.get("siblings", ())):
            rows = halves[i % 2] if scenario.protocol.get("halves") else slice(None)
            state = plain_state(train(model, rows, seed + i + 1, f"sibling {i + 1}"))
            released.setdefault("siblings", []).append({"model": dict(model), "state": state})
        own = len(x) // max(1, recipe.clients)  # of one client, who takes part in every round at most
        rounds = recipe.rounds if recipe.clients else 1
        taken = min(1.0, recipe.batch / own), rounds * recipe.epochs * steps_per_epoch(own, recipe.batch)
        stated = ready.statements(*taken, sum(p.numel() for p in net.parameters()), 1)
        released |= {"guarantee": "; ".join(stated)} if stated else {}
        utility = {"train_accuracy": evaluate_classifier(net, x, y)["accuracy"], **ready.guarantee(*taken)}
        shown, of = data.heldout.images(slice(ROBUST)).to(x.device), data.heldout.labels(slice(ROBUST)).to(x.device)
        utility |= {"robust_accuracy": robust_accuracy(net, shown, of, seed=seed)}
        return Target(released, truth, utility | effects(net, x, y, data.classes, seed))

    def oracle(
        self, scenario: Scenario, released: dict[str, Any], attack: Attack, level: str, defense: Defense, seed: int
    ) -> Oracle:
        import torch

        from inversionbench.oracle.base import InputSpec
        from inversionbench.oracle.classifier import classifier_oracle

        rng = torch.Generator().manual_seed(seed)
        spec = InputSpec(tuple(released["shape"]))
        net, classes = network(released), released["classes"]
        siblings = [network({**released, **sibling}) for sibling in released.get("siblings", ())]
        service = {name: value for name, value in scenario.protocol.items() if name in SERVICE}
        defense = acting(released, defense)
        return classifier_oracle(net, level, spec, classes, defense, rng, siblings=siblings, **service)

    def knowledge(
        self, scenario: Scenario, released: dict[str, Any], public: Part, meta: Mapping[str, Any], prior: Any
    ) -> Knowledge:
        import torch

        from inversionbench.core.attack import Knowledge

        targets = torch.arange(min(scenario.subjects, released["classes"]))
        granted = {"public": public, "targets": targets, "shape": tuple(released["shape"]),
                   "defense": rebuilt(released["defense"]).public_knowledge()}  # fmt: skip
        granted |= {name: released[name] for name in ("hints", "hint_mask", "hint_labels") if name in released}
        if "siblings" in released:
            granted["models"] = 1 + len(released["siblings"])
        return Knowledge(**granted, **({} if prior is None else {"prior": prior}))

    def utility_of(
        self, scenario: Scenario, target: Target, defense: Defense, data: Dataset, seed: int
    ) -> dict[str, Any]:
        import torch

        from inversionbench.training.loop import evaluate_classifier

        net = network(target.released)
        where = next(net.parameters()).device
        rng, defense = torch.Generator().manual_seed(seed), acting(target.released, defense)
        release = (lambda logits: defense.release(logits, rng)) if "release" in defense.hooks else None
        x, y = data.heldout.images().to(where), data.heldout.labels().to(where)
        return {**target.utility, **evaluate_classifier(net, x, y, release, defense.keeps_labels)}

    def evaluate(
        self, scenario: Scenario, reconstruction: Reconstruction, target: Target, data: Dataset,
        evaluator: Judges, seed: int,
    ) -> Evaluation:
        from inversionbench.tracks.classifier.evaluate import evaluate

        of = f"{scenario.name} {_under(target.released['defense'])}"
        done = evaluate(reconstruction, network(target.released), data, evaluator, seed, target.truth, of)
        done.facts |= {name: target.released[name] for name in ("guarantee",) if name in target.released}
        return done

    def load_evaluator(self, state: dict[str, Any]) -> Judges:
        from inversionbench.training.evaluators import Judges

        return Judges(state)

    def check_evaluator(self, options: Mapping[str, Any]) -> None:
        check_options(options)

    def train_evaluator(
        self, options: Mapping[str, Any], data: Dataset, seed: int, progress: Progress
    ) -> dict[str, Any]:
        from inversionbench.training.evaluators import train_evaluators

        return train_evaluators(options, data, seed, progress)


def _check_siblings(models: Any) -> None:
    if not isinstance(models, list) or not all(isinstance(model, Mapping) for model in models):
        raise UserError(f"protocol.siblings: expected a list of models such as [{{name: cnn}}], got {models!r}")
    for i, model in enumerate(models):
        check_model(model, f"protocol.siblings[{i}]")


def network(released: Mapping[str, Any]) -> nn.Module:
    """The trained target, frozen; a defense that changed the architecture builds it again."""
    import torch

    from inversionbench.core.device import device
    from inversionbench.models.classifiers import build, freeze

    def factory() -> nn.Module:
        return build(released["model"], tuple(released["shape"]), released["classes"])

    with torch.random.fork_rng(devices=[]):
        net = rebuilt(released["defense"]).build_model(factory)
    net.load_state_dict(released["state"])
    return freeze(net).to(device())


def _under(plain: Mapping[str, Any]) -> str:
    """How a target was trained, in words."""
    return "without defense" if plain["id"] == "none" else f"under {plain['id']} {plain['params']['strength']:g}"
