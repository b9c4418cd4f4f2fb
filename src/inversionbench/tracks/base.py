"""What a track must provide, and how the tracks map on it.

A track is one folder `tracks/<id>/` whose `track.py` has one class derived from `Track` with `id = "<id>"`; its
attacks are the files of `tracks/<id>/attacks/`. Figures of its own are drawn by `draw(survey, folder)` of
`tracks/<id>/figures`, which only the survey loads. It is found by looking. Everything that runs jobs (workflow,
command line) knows only this interface; everything that is specific to a kind of leak stands behind it.

| track | target | oracle level | truth | evaluator | reconstruction |
| --- | --- | --- | --- | --- | --- |
| federated | global model, updates of client batches | GR | the batches | none (pixels) | images, labels |
| classifier | classifier of people | WB, BB, LO | private images | verifier, two classifiers | images of a class |
| tabular | classifier of a table | BB-S, LO, GR | the sensitive column | imputers | attribute values, rows |
| split | client and server half, observed features | FT-* | the inputs | verifier (people) | images, token ids |
| answers | classifier, observed scores and explanations | AN-* | the inputs | two classifiers | images |
| text | language model, updates of client batches | GR | private sentences | none | token ids |
| text_classifier | classifier of sentences | WB, BB-S | entities named too often | none | token ids |
| audio | speaker classifier | WB, BB-S | clips per speaker | two classifiers | log-mel patches |
| graph | node classifier | WB, BB-S, LO | the edges | none | edge scores |

`released` and `truth` are separate on purpose: the workflow stores them in separate files, and the attack
step is given `released` only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core import registry
from inversionbench.core.errors import UserError

if TYPE_CHECKING:
    from inversionbench.core.attack import Attack, Knowledge, Reconstruction
    from inversionbench.core.defense import Defense
    from inversionbench.core.levels import Level
    from inversionbench.core.registry import Method
    from inversionbench.core.scenario import Evaluation, Progress, Scenario, Target
    from inversionbench.data.base import Dataset, Part
    from inversionbench.oracle.base import Oracle

PIXELS = ("psnr", "ssim", "mse", "rdlv", "iip")  # of every reconstruction that is compared with its original


def pairs(anyhow: Collection[str]) -> list[str]:
    """Metrics of pairs of images that a scenario may ask for: all that need no features of evaluators, but for those
    that are measured anyhow."""
    known = {name: said for name, said in registry.quantities().items() if said.get("kind") == "pair"}
    return [name for name, said in known.items() if name not in anyhow and said.get("needs") != "features"]


class Track:
    """Base of the tracks; every method gets all it needs as arguments and keeps no state."""

    id: ClassVar[str]
    order: ClassVar[int] = 100  # among tracks, in tables
    title: ClassVar[str]
    about: ClassVar[str] = ""  # what is attacked, by whom, what for; in one to three sentences
    nearest: ClassVar[str] = "nearest"  # what galleries show beside a reconstruction
    levels: ClassVar[Mapping[str, Level]] = {}  # access levels that no other track has
    # controls that no other track has: name -> {"label", "note", "reach": "guess", "ceiling" or neither}
    controls: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    headline: ClassVar[str]  # the metric that the table sorts by
    compared: ClassVar[str] = ""  # a second metric, drawn against it and shown of pairs that differ in one thing
    metrics: ClassVar[tuple[str, ...]]  # what its evaluation measures; a module states each as a `Quantity`
    utility: ClassVar[str] = "accuracy"
    unpriced: ClassVar[str] = ""  # why a defense has no price where no utility was measured
    modality: ClassVar[str] = "image"  # of the private data: image, table, text, audio, graph
    judged_by: ClassVar[str] = ""  # the track whose evaluators judge here too, where it trains none of its own
    hooks: ClassVar[frozenset[str]] = frozenset()  # of defenses that its training and its oracles call
    on_device: ClassVar[bool] = False  # whether attacks compute on the device of `core.device`

    def further(self) -> Collection[str]:
        """Metrics that a scenario may ask for beyond those: which cost more, or need files."""
        return ()

    def check(self, scenario: Scenario) -> None:
        """Raise `UserError` where model, training or protocol hold something this track does not know.

        Runs before any job, without importing torch.
        """
        raise NotImplementedError

    def reaches(self, scenario: Scenario) -> frozenset[str]:
        """The hooks of defenses that are called in this scenario."""
        return self.hooks

    def modality_of(self, scenario: Scenario) -> str:
        """The kind of data of this scenario, where a track attacks several."""
        return self.modality

    def accepts(self, scenario: Scenario, attack: Method) -> bool:
        """Whether this scenario offers what an attack of this track needs; from its description alone."""
        return True

    def train_target(
        self, scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress
    ) -> Target:
        """Train the target (or simulate the clients) with the defense in the loop."""
        raise NotImplementedError

    def price(
        self, scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """What the defense costs, where that takes trainings of its own: utility by name, and one trial for each
        training (see `records`). Once for all targets of a scenario and defense."""
        return {}, []

    def check_evaluator(self, options: Mapping[str, Any]) -> None:
        """Raise `UserError` where the options of an entry of `evaluators:` are wrong; before any job, no torch."""
        for name in options:
            raise UserError(f"options: the {self.id} track's evaluators take no options, got '{name}'")

    def train_evaluator(
        self, options: Mapping[str, Any], data: Dataset, seed: int, progress: Progress
    ) -> dict[str, Any]:
        """Train the evaluators of a data set; saved like `Target.released`."""
        return {}

    def load_evaluator(self, state: dict[str, Any]) -> Any:
        """The evaluators as `evaluate` wants them, from what `train_evaluator` returned; once for many cells."""
        return state

    def oracle(
        self, scenario: Scenario, released: dict[str, Any], attack: Attack, level: str, defense: Defense, seed: int
    ) -> Oracle:
        """The oracle for one attack at one level, with the defense's release inside."""
        raise NotImplementedError

    def knowledge(
        self, scenario: Scenario, released: dict[str, Any], public: Part, meta: Mapping[str, Any], prior: Any
    ) -> Knowledge:
        """The side information that the scenario grants."""
        raise NotImplementedError

    def utility_of(
        self, scenario: Scenario, target: Target, defense: Defense, data: Dataset, seed: int
    ) -> dict[str, Any]:
        """Utility of the deployed path, on held-out data and with the defense's release: numbers by name, and as
        "hits" whether it is right on each held-out sample (n booleans), where known.

        The default is what training measured; a track whose defenses may act on the release alone measures
        here, because such a defense shares the undefended target.
        """
        return target.utility

    def evaluate(
        self,
        scenario: Scenario,
        reconstruction: Reconstruction,
        target: Target,
        data: Dataset,
        evaluator: Any,
        seed: int,
    ) -> Evaluation:
        """Compare a reconstruction with the truth."""
        raise NotImplementedError
