"""The scrambled track: training images that leave their owner encrypted block by block, with their labels.

target: the scrambled private images. oracle level SC: these and their labels, never the key. truth: the images.
An evaluator, a classifier that was trained on plain images of other samples and frozen, says whether a reconstruction
shows what the original shows. No model of a victim is attacked: the scrambling is the defense, others do not act.

scenario.model     {name: nibbles, block: 4, keys: 1, shuffle: false}: see `scrambler`; an image has one of the keys
scenario.subjects  images that are judged, the first ones; the attack sees all
scenario.judges    required; options of the entry: {model, training}, a classifier of `models.names` and its recipe
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from inversionbench.core.errors import UserError
from inversionbench.core.levels import Level
from inversionbench.core.recipe import Recipe, check_recipe
from inversionbench.core.scenario import Evaluation, Progress, Scenario, Target
from inversionbench.core.settings import check_options
from inversionbench.models.names import check_model
from inversionbench.tracks.base import Track

if TYPE_CHECKING:
    from inversionbench.core.attack import Attack, Knowledge, Reconstruction
    from inversionbench.core.defense import Defense
    from inversionbench.data.base import Dataset, Part
    from inversionbench.oracle.base import Oracle

SCRAMBLERS: dict[str, dict[str, Any]] = {"nibbles": {"block": 4, "keys": 1, "shuffle": False}}
KINDS = {"block": "Count", "keys": "Count", "shuffle": "bool"}
JUDGE: dict[str, Any] = {"model": {"name": "cnn"}, "training": {"epochs": 10}}


class Scrambled(Track):
    id = "scrambled"
    order = 8
    title = "Scrambled images"
    about = """Training images are encrypted block by block before an untrusted trainer gets them, with their labels.
        The attacker has plain images of the same kind, not the key, and learns to undo the scrambling."""
    levels = {"SC": Level("scrambled images with labels", frozenset({"scrambled"}), axis="gradient evaluations")}
    controls = {
        "scrambled": {"label": "scrambled image", "reach": "guess", "note": "what the trainer received, as it is"},
        "untrained": {"label": "untrained network", "reach": "guess", "note": "the attacker's network, not trained"},
    }
    headline = "top1"
    metrics = ("top1", "ssim", "psnr", "mse")
    unpriced = "the scrambling is the defense: it has no price here"
    on_device = False

    def check(self, scenario: Scenario) -> None:
        check_options(scenario.model, SCRAMBLERS, KINDS, "model", "scrambler")
        if scenario.training or scenario.protocol:
            given = scenario.training or scenario.protocol
            raise UserError(f"training, protocol: the scrambled track has neither, got {given}")
        if not scenario.judges:
            raise UserError("judges: the scrambled track needs an entry of `evaluators:` that judges it")

    def train_target(
        self, scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress
    ) -> Target:
        import torch

        from inversionbench.core.seeds import stream
        from inversionbench.tracks.scrambled.scrambler import Scrambler

        o = {**SCRAMBLERS["nibbles"], **{k: v for k, v in scenario.model.items() if k != "name"}}
        if any(side % o["block"] for side in data.shape[1:]):
            raise UserError(f"model.block: blocks of {o['block']} pixels do not tile images of {data.shape[1:]}")
        x = torch.from_numpy(data.private.x.copy())
        scrambler = Scrambler.drawn(tuple(data.shape), o["block"], o["keys"], o["shuffle"], stream(seed, "key"))
        which = torch.randint(o["keys"], (len(x),), generator=stream(seed, "which key"))
        released = {"images": scrambler.scramble(x, which), "labels": data.private.labels(), "block": o["block"],
                    "classes": data.classes}  # fmt: skip
        return Target(released, {"subjects": min(scenario.subjects, len(x))}, {})

    def oracle(
        self, scenario: Scenario, released: dict[str, Any], attack: Attack, level: str, defense: Defense, seed: int
    ) -> Oracle:
        from inversionbench.oracle.base import Ledger, Oracle

        ledger = Ledger()

        def scrambled(phase: str = "init") -> tuple[Any, Any]:
            """uint8 (n, channels, height, width), int64 (n,)."""
            ledger.charge("scrambled", len(released["images"]), phase)
            return released["images"].clone(), released["labels"].clone()

        return Oracle(level, {"scrambled": scrambled}, ledger, None, released["classes"])

    def knowledge(
        self, scenario: Scenario, released: dict[str, Any], public: Part, meta: Mapping[str, Any], prior: Any
    ) -> Knowledge:
        from inversionbench.core.attack import Knowledge

        return Knowledge(public=public, block=released["block"], subjects=scenario.subjects)

    def evaluate(
        self, scenario: Scenario, reconstruction: Reconstruction, target: Target, data: Dataset, evaluator: Any,
        seed: int,
    ) -> Evaluation:
        from inversionbench.tracks.scrambled.evaluate import evaluate

        return evaluate(reconstruction, target, data, evaluator, seed)

    def check_evaluator(self, options: Mapping[str, Any]) -> None:
        for name in options:
            if name not in JUDGE:
                raise UserError(f"options: a judge of scrambled images has {' and '.join(JUDGE)}, not '{name}'")
        check_model({**JUDGE, **options}["model"], "options.model")
        check_recipe({**JUDGE, **options}["training"], "options.training")

    def train_evaluator(
        self, options: Mapping[str, Any], data: Dataset, seed: int, progress: Progress
    ) -> dict[str, Any]:
        import numpy as np
        import torch

        from inversionbench.models.classifiers import build
        from inversionbench.training.evaluators import plain_state
        from inversionbench.training.loop import fit

        o = {**JUDGE, **options}
        net = fit(
            lambda: build(o["model"], data.shape, data.classes), torch.from_numpy(np.array(data.evaluation.x)),
            data.evaluation.labels(), data.classes, Recipe(**o["training"]),
            rng=torch.Generator().manual_seed(seed), progress=progress, description="judge",
        )
        return {"model": dict(o["model"]), "state": plain_state(net)}
