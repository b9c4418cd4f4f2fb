"""Rebuilt voices before two listeners that are built differently, and next to the speaker's own clips.

A reconstruction is cut into windows, one every half window, so that some lie across the seams of windows that were
inverted apart; every number is a mean over them. Sound is made of patches (`models.audio.audible`) for the ear and to
read the pitch, which patches do not hold as a number; no listener is asked about it. Clips that stand for the speaker
or for a guess go through the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inversionbench.core.quantity import Quantity
from inversionbench.core.scenario import Evaluation
from inversionbench.models import audio
from inversionbench.tracks.audio.target import clips, judges

if TYPE_CHECKING:
    from inversionbench.core.attack import Reconstruction
    from inversionbench.data.base import Dataset, Part

QUANTITIES = (
    Quantity("speaker_both", "both listeners", unit="%", digits=0, factor=100, direction="higher",
             note="share of windows that both evaluators, which pool differently, take for the speaker"),
    Quantity("speaker_first", "first listener", unit="%", digits=0, factor=100, direction="higher",
             note="the evaluator that pools as the target does; high where the second is low is adversarial noise"),
    Quantity("speaker_second", "second listener", unit="%", digits=0, factor=100, direction="higher",
             note="the evaluator that pools over time and frequency"),
    Quantity("speaker_target", "the target itself", unit="%", digits=0, factor=100, direction="higher",
             note="share of windows that the attacked network takes for the speaker"),
    Quantity("voice_margin", "voice vector", digits=2, direction="higher",
             note="cosine of the first listener's mean features to the speaker's own, minus the largest to another's"),
    Quantity("pitch_error", "pitch error", unit="semitones", digits=1, direction="lower",
             note="of the pitch read from the sound of the reconstruction to the median over the speaker's clips"),
)  # fmt: skip
SHOWN = 6  # spectrograms of a cell
DRAWS = 2  # of every control, for each reconstruction; the first ones are heard


def evaluate(
    reconstruction: Reconstruction, target: nn.Module, data: Dataset, state: Mapping[str, Any], seed: int
) -> Evaluation:
    """All metrics of one reconstruction (data: float (n, 1, BANDS, frames); labels: the wanted speakers (n,))."""
    x, labels, rng = reconstruction.data[:, 0], reconstruction.labels, torch.Generator().manual_seed(seed)
    frames = x.shape[2]
    spoken = by_speaker(data)
    listen = Listeners(target, judges(state), data, spoken)
    own = [stretches(said, frames) for said in spoken]
    wanted = labels.repeat(DRAWS)
    guesses = {
        "heldout_speech": torch.stack([_some(own[k], 1, rng)[0] for k in wanted.tolist()]),
        "public_speech": public_speech(data.public, len(wanted), frames, rng),
        "random_patch": (0.5 + 0.1 * torch.randn(len(wanted), *x.shape[1:], generator=rng)).clamp(0, 1),
    }
    level = audio.decibels(data.public.tensor(slice(64))).mean((0, 2))
    values, sound = listen.values(x, labels, level, len(x), rng)
    out = Evaluation(values, labels.numpy())
    for name, patch in guesses.items():
        found, heard = listen.values(patch, wanted, level, len(x), rng)
        out.controls[name] = found
        if name == "heldout_speech":
            out.sounds["original"] = heard[0]
    out.sounds["reconstruction"] = sound[0]
    out.facts = {"judges": {name: round(known, 4) for name, known in state["accuracy"].items()}, "seams": seams(x)}
    some = torch.linspace(0, len(x) - 1, min(SHOWN, len(x))).long()
    out.gallery = {"original": guesses["heldout_speech"][some].flip(1)[:, None],  # low sounds below
                   "reconstruction": x[some].flip(1)[:, None],
                   "nearest": torch.stack([_nearest(x[i], own[int(labels[i])]) for i in some]).flip(1)[:, None],
                   }  # fmt: skip
    return out


class Listeners:
    """The target, the two evaluators, and what they say of the speakers' own held-out clips."""

    def __init__(self, target: nn.Module, judged: Mapping[str, nn.Module], data: Dataset, spoken: list[list[Tensor]]):
        self.networks = {"target": target, **judged}
        voices = [self._features(torch.cat([audio.windows(c) for c in said])).mean(0) for said in spoken]
        self.mean = torch.stack(voices).mean(0)
        self.voices = nn.functional.normalize(torch.stack(voices) - self.mean, dim=1)
        pitch, y = audio.pitch(data.heldout.tensor()), data.heldout.labels()
        self.pitch = torch.stack([pitch[y == k].median() for k in range(data.classes)])

    def values(
        self, patch: Tensor, labels: Tensor, level: Tensor, heard: int, rng: torch.Generator
    ) -> tuple[dict[str, Any], Tensor]:
        """Every metric of patches (n, BANDS, frames), each (n,), and the sound (heard, samples) of the first,
        from which their pitch is read. level: see `audio.audible`."""
        cut = audio.windows(patch)
        n, k = cut.shape[:2]
        flat, wanted = cut.flatten(0, 1), labels.repeat_interleave(k)
        with torch.no_grad():
            right = {name: (net(flat[:, None]).argmax(1) == wanted).view(n, k) for name, net in self.networks.items()}
        right["both"] = right["first"] & right["second"]
        out = {f"speaker_{name}": hits.double().mean(1).numpy() for name, hits in right.items()}
        voice = nn.functional.normalize(self._features(flat).view(n, k, -1).mean(1) - self.mean, dim=1)
        alike, each = voice @ self.voices.T, torch.arange(n)
        others = alike.clone()
        others[each, labels] = -1
        out["voice_margin"] = (alike[each, labels] - others.max(1).values).double().numpy()
        sound = audio.audible(patch[:heard], level, rng)
        out["pitch_error"] = (12 * (audio.pitch(sound) / self.pitch[labels[:heard]]).log2()).abs().double().numpy()
        return out, sound

    def _features(self, flat: Tensor) -> Tensor:
        with torch.no_grad():
            return self.networks["first"].trace(flat[:, None]).features  # type: ignore[operator]


def seams(x: Tensor) -> float:
    """How much more patches (n, BANDS, frames) change from frame to frame between whole windows than elsewhere: the
    ratio of mean squares, 1 without a seam."""
    change = x.diff(dim=2).square().mean((0, 1))
    at = torch.zeros(len(change), dtype=torch.bool)
    at[audio.FRAMES - 1 :: audio.FRAMES] = True
    return round(float(change[at].mean() / change[~at].mean().clamp_min(1e-12)), 4) if at.any() else 1.0


def by_speaker(data: Dataset) -> list[list[Tensor]]:
    """The held-out clips of each speaker, as patches (BANDS, frames)."""
    said = list(zip(clips(data.heldout), data.heldout.y.tolist()))
    return [[patch for patch, y in said if y == k] for k in range(data.classes)]


def stretches(said: list[Tensor], frames: int) -> Tensor:
    """All stretches of so many frames of clips, one every half window, (n, BANDS, frames). Who never talks so long is
    heard clip after clip."""
    if all(patch.shape[1] < frames for patch in said):
        said = [torch.cat(said * (1 + frames // sum(p.shape[1] for p in said)), 1)]
    long = [p.unfold(1, frames, audio.FRAMES // 2).movedim(1, 0) for p in said if p.shape[1] >= frames]
    return torch.cat(long)


def public_speech(part: Part, n: int, frames: int, rng: torch.Generator) -> Tensor:
    """n stretches of random public clips."""
    some = torch.randint(len(part), (n,), generator=rng).numpy()
    lengths = torch.from_numpy(part.extra["length"][some].copy())
    return torch.stack([_some(stretches([p], frames), 1, rng)[0] for p in audio.patches(part.tensor(some), lengths)])


def _nearest(x: Tensor, pool: Tensor) -> Tensor:
    return pool[(pool - x).square().sum((1, 2)).argmin()]


def _some(x: Tensor, n: int, rng: torch.Generator) -> Tensor:
    return x[torch.randint(len(x), (n,), generator=rng)]
