"""The audio track: what a recogniser of speakers gives away of a speaker's voice.

target: a convolutional network that tells the private speakers apart by windows of log-mel patches (`models.audio`).
truth: their clips. The attacker wants a longer patch that sounds like a speaker; public speakers are other people.
evaluators: two networks trained on other clips of the private speakers, with a wider body and other pooling: the first
pools as the target does, by the mean over time, the second by mean and maximum over time and frequency. A patch that
only the first takes for the speaker is noise made for this kind of network; the headline counts windows that both do.

scenario.model     {name: speaker_net, width}
scenario.training  recipe, see `core.recipe.Recipe`
scenario.protocol  {frames: of a reconstruction, three windows by default}
scenario.subjects  attacked speakers
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.levels import HOOKS
from inversionbench.core.recipe import check_recipe
from inversionbench.core.scenario import Evaluation, Progress, Scenario, Target
from inversionbench.core.settings import check_options, check_value
from inversionbench.tracks.base import Track

if TYPE_CHECKING:
    from inversionbench.core.attack import Attack, Knowledge, Reconstruction
    from inversionbench.core.defense import Defense
    from inversionbench.data.base import Dataset, Part
    from inversionbench.oracle.base import Oracle

MODELS: dict[str, dict[str, Any]] = {"speaker_net": {"width": 8}}
RECIPE = {"epochs": 10, "rate": 5e-3}
FEWEST = 24  # frames of a window, as in models.audio, which needs torch


class Audio(Track):
    """Voices from recognisers of speakers; module docstring."""

    id: ClassVar[str] = "audio"
    order = 6
    nearest = "nearest clip of the speaker"
    title = "Sound"
    about = """A network recognises speakers. The attacker wants a sound that another listener, too, takes for a private
        speaker: what only networks built alike take for one is noise. Sounds are rebuilt as mel patches, with the
        recording channel taken away."""
    controls: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "heldout_speech": {"label": "the speaker", "reach": "ceiling",
                           "note": "clips of the speaker that trained nothing; the most that the judges grant"},
        "public_speech": {"label": "public speakers", "reach": "guess", "note": "random public clips"},
        "random_patch": {"label": "noise", "reach": "guess", "note": "noise, where inversion without a prior starts"},
    }  # fmt: skip
    headline: ClassVar[str] = "speaker_both"
    metrics = ("speaker_both", "speaker_first", "speaker_second", "speaker_target", "voice_margin", "pitch_error")
    modality = "audio"
    hooks = frozenset(HOOKS) - {"train_transform", "client_update", "aggregate"}

    def check(self, scenario: Scenario) -> None:
        check_options(scenario.model, MODELS, {"width": "Count"}, "model", "model")
        check_recipe({**RECIPE, **scenario.training}, "training")
        for option, value in scenario.protocol.items():
            if option != "frames":
                raise UserError(f"protocol: no option '{option}': {suggest(option, ['frames'])}")
            check_value(value, "Count", "protocol.frames")
            if value < FEWEST:
                raise UserError(f"protocol.frames: expected at least {FEWEST}, one window, got {value}")

    def check_evaluator(self, options: Mapping[str, Any]) -> None:
        for option, value in options.items():
            if option not in ("width", "epochs"):
                raise UserError(f"options: no option '{option}': {suggest(option, ['width', 'epochs'])}")
            check_value(value, "Count", f"options.{option}")

    def train_target(
        self, scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress
    ) -> Target:
        from inversionbench.tracks.audio.target import publish

        return Target(*publish(scenario, data, defense, seed, progress))

    def train_evaluator(
        self, options: Mapping[str, Any], data: Dataset, seed: int, progress: Progress
    ) -> dict[str, Any]:
        from inversionbench.tracks.audio.target import train_judges

        return train_judges(options, data, seed, progress)

    def oracle(
        self, scenario: Scenario, released: dict[str, Any], attack: Attack, level: str, defense: Defense, seed: int
    ) -> Oracle:
        import torch

        from inversionbench.models.audio import BANDS, FRAMES
        from inversionbench.oracle.base import InputSpec
        from inversionbench.oracle.classifier import classifier_oracle
        from inversionbench.tracks.audio.target import load

        spec, rng = InputSpec((1, BANDS, FRAMES)), torch.Generator().manual_seed(seed)
        return classifier_oracle(load(released, defense), level, spec, released["classes"], defense, rng)

    def knowledge(
        self, scenario: Scenario, released: dict[str, Any], public: Part, meta: Mapping[str, Any], prior: Any
    ) -> Knowledge:
        import torch

        from inversionbench.core.attack import Knowledge

        wanted = torch.arange(min(scenario.subjects, released["classes"]))
        return Knowledge(public=public, targets=wanted, frames=frames_of(scenario), defense=released["defense"])

    def utility_of(
        self, scenario: Scenario, target: Target, defense: Defense, data: Dataset, seed: int
    ) -> dict[str, Any]:
        from inversionbench.tracks.audio.target import load, utility

        return target.utility | utility(load(target.released, defense), data, defense, seed)

    def evaluate(
        self, scenario: Scenario, reconstruction: Reconstruction, target: Target, data: Dataset,
        evaluator: dict[str, Any], seed: int,
    ) -> Evaluation:
        from inversionbench.tracks.audio.evaluate import evaluate
        from inversionbench.tracks.audio.target import load

        return evaluate(reconstruction, load(target.released), data, evaluator, seed)


def frames_of(scenario: Scenario) -> int:
    """Frames of a reconstruction."""
    return int(scenario.protocol.get("frames", 3 * FEWEST))
