"""The federated track: what a client's update gives away about its batch.

target: the global model and the updates of `subjects` client batches of one round. oracle level GR. truth:
the batches. Reconstructions are compared pixel by pixel; a scenario of images that names `judges`, an entry of
`evaluators:` (options: see `training.perceptual`), also gets a perceptual distance by them, `lpips_like[entry]`.

scenario.model      a network of `models.federated` with its options
scenario.training   the federation: see `federation.settings.Federation` (rounds before the attacked one, 0 =
                    untrained; rounds by which utility is measured, 0 = not measured)
scenario.protocol   see `core.protocol.Protocol` (gradient or weight difference, batch, labels, batch norm)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from inversionbench.core.errors import UserError
from inversionbench.core.levels import HOOKS, RELEASES
from inversionbench.core.protocol import read_protocol
from inversionbench.core.scenario import Evaluation, Progress, Scenario, Target
from inversionbench.federation.settings import read_federation
from inversionbench.models._federated_names import VICTIMS, check_victim
from inversionbench.tracks.base import PIXELS, Track, pairs

if TYPE_CHECKING:
    from inversionbench.core.attack import Attack, Knowledge, Reconstruction
    from inversionbench.core.defense import Defense
    from inversionbench.core.registry import Method
    from inversionbench.data.base import Dataset, Part
    from inversionbench.oracle.base import Oracle

ALWAYS = (*PIXELS, "avd")  # of every cell; AVD, RDLV and IIP want the public data


class Federated(Track):
    """Gradient and update inversion in federated learning."""

    id = "federated"
    order = 1
    title = "Federated learning"
    about = """A client trains on a small batch and sends its update. The attacker is the honest but curious server: it
        sees the update and the global model, and tries to rebuild the batch."""
    nearest = "nearest public"
    headline = "psnr"
    metrics = (
        "psnr", "ssim", "mse", "lpips", "lpips_like", "label_recovery", "success_20", "success_30", "fsim",
        "iip", "rdlv", "avd", "dssim", "labels_exact", "classes_found", "certified",
    )  # fmt: skip
    controls = {
        "blind_guess": {
            "label": "blind guess",
            "reach": "guess",
            "note": "labels drawn by the public class frequencies",
        },
    }
    utility = "accuracy"
    unpriced = "training.utility_rounds is 0: no federation was trained"
    on_device = True
    hooks = frozenset(HOOKS) - RELEASES

    def further(self) -> Collection[str]:
        """Metrics of pairs of images that are not measured anyhow; the features of evaluators are used where there are
        evaluators."""
        return pairs(ALWAYS)

    def check(self, scenario: Scenario) -> None:
        where = f"scenarios.{scenario.name}"
        check_victim(scenario.model, f"{where}.model")
        planted = read_protocol(scenario.protocol, f"{where}.protocol").planted
        if planted:
            self.check_planted(scenario.model, planted, f"{where}.protocol.planted")
        read_federation(scenario.training, f"{where}.training")

    def accepts(self, scenario: Scenario, attack: Method) -> bool:
        needs = attack.attributes.get("needs")
        if needs and not scenario.protocol.get(needs):
            return False
        return attack.attributes.get("asks", "images") == scenario.protocol.get("ask", "images")

    def check_planted(self, model: Mapping[str, Any], bins: int, where: str) -> None:
        """Weights can be planted in a first linear layer with ReLU and at least as many units as bins."""
        options = {**VICTIMS.get(model["name"], {}), **model}
        if model["name"] != "mlp" or options["activation"] != "relu":
            raise UserError(f"{where}: weights are planted in an 'mlp' with 'relu', not in {model}")
        if options["widths"][0] < bins:
            raise UserError(f"{where}: {bins} bins need as many units in the first layer, got {options['widths'][0]}")

    def train_target(
        self, scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress
    ) -> Target:
        from inversionbench.federation.images import Images
        from inversionbench.federation.round import make_target

        return make_target(Images(scenario), defense, data, seed, progress)

    def price(
        self, scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        from inversionbench.federation.images import Images
        from inversionbench.federation.trainer import price

        return price(Images(scenario), defense, data, seed, progress)

    def oracle(
        self, scenario: Scenario, released: dict[str, Any], attack: Attack, level: str, defense: Defense, seed: int
    ) -> Oracle:
        from inversionbench.federation.images import Images
        from inversionbench.federation.oracle import update_oracle

        images = Images(scenario)
        return update_oracle(images.load(released, defense), released, images.batches, released["classes"], level)

    def knowledge(
        self, scenario: Scenario, released: dict[str, Any], public: Part, meta: Mapping[str, Any], prior: Any
    ) -> Knowledge:
        from inversionbench.core.attack import Knowledge

        granted: dict[str, Any] = {"public": public, "defense": released["defense"]}
        granted |= dict(zip(("channels", "height", "width"), meta["shape"]))
        granted["mean_image"] = public.images().mean(0)
        if "labels" in released:
            granted["labels"] = released["labels"]
        if prior is not None:
            granted["prior"] = prior
        return Knowledge(**granted)

    def evaluate(
        self,
        scenario: Scenario,
        reconstruction: Reconstruction,
        target: Target,
        data: Dataset,
        evaluator: dict[str, Any],
        seed: int,
    ) -> Evaluation:
        from inversionbench.tracks.federated.evaluate import evaluate, evaluate_labels

        if scenario.protocol.get("ask", "images") == "labels":
            return evaluate_labels(scenario, reconstruction, target, data, seed)
        return evaluate(scenario, reconstruction, target, data, seed, evaluator)

    def check_evaluator(self, options: Mapping[str, Any]) -> None:
        from inversionbench.training.perceptual import check_perceptual

        check_perceptual(options)

    def train_evaluator(
        self, options: Mapping[str, Any], data: Dataset, seed: int, progress: Progress
    ) -> dict[str, Any]:
        from inversionbench.training.evaluators import train_evaluators
        from inversionbench.training.perceptual import check_perceptual

        return train_evaluators(check_perceptual(options), data, seed, progress)
