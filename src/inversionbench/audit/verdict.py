"""What an audit found, for people and for machines."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from inversionbench import __version__
from inversionbench.core.errors import UserError
from inversionbench.core.files import write_json, write_text
from inversionbench.metrics._aggregate import interval

SHOWN = 8  # images of a batch
RECOVERED, MARGIN = 20.0, 3.0  # dB: an image counts as recovered above this, and this far above every control
NOT_TRIED = (
    "other attacks than those named, longer searches, priors trained on more public data: a low number is no proof",
    "a server that chooses the weights, or sees several rounds",
    "other batches: images differ in how much they give away",
)


@dataclass
class Row:
    """One attack or control. values: metric -> one number for each image, in the order of the batch. images: (batch, c,
    h, w) in that order. seconds: of the processor. passes: gradients computed."""

    name: str
    control: bool
    values: dict[str, list[float]]
    images: Tensor
    seconds: float
    passes: int
    shown: bool = True

    def mean(self, metric: str) -> float:
        return float(np.mean(self.values[metric]))


@dataclass
class Verdict:
    """about: what was audited. selfcheck: whether the update is what its batch gives, in words; matches: the same as a
    fact. hints: what else to know. stopped: why attacks were left out."""

    about: dict[str, Any]
    selfcheck: str
    hints: list[str]
    matches: bool
    rows: list[Row] = field(default_factory=list)
    pictures: dict[str, Tensor] = field(default_factory=dict)
    stopped: str = ""

    @property
    def strongest(self) -> Row | None:
        """The attack with the highest mean PSNR."""
        return max((r for r in self.rows if not r.control), key=lambda r: r.mean("psnr"), default=None)

    @property
    def recovered(self) -> list[bool]:
        """For each image, whether the strongest attack shows it: above 20 dB, and 3 dB above every control."""
        best = self.strongest
        if best is None:
            return []
        floor = np.max([r.values["psnr"] for r in self.rows if r.control], axis=0)
        values = np.array(best.values["psnr"])
        return ((values > RECOVERED) & (values > floor + MARGIN)).tolist()

    def above_control(self, metric: str = "ssim") -> float | None:
        """How far the strongest attack is above the best control, in the mean over the images; None without numbers."""
        have = [r for r in self.rows if metric in r.values]
        attacks, controls = [r for r in have if not r.control], [r for r in have if r.control]
        if not attacks or not controls:
            return None
        return max(r.mean(metric) for r in attacks) - max(r.mean(metric) for r in controls)

    @property
    def said(self) -> str:
        """The verdict in one sentence."""
        if not self.matches:
            return f"No verdict: {self.selfcheck}."
        best, hits = self.strongest, self.recovered
        assert best is not None
        controls = max((r for r in self.rows if r.control), key=lambda r: r.mean("psnr"))
        numbers = (
            f"{best.name} reaches {best.mean('psnr'):.1f} dB, the best control ({controls.name}) "
            f"{controls.mean('psnr'):.1f} dB"
        )
        if (gap := self.above_control()) is not None:
            numbers += f"; SSIM {abs(gap):.2f} {'above' if gap > 0 else 'below'} the best control"
        if any(hits):
            return f"This update gives away {sum(hits)} of {len(hits)} images: {numbers}."
        return f"No image was recovered by these attacks: {numbers}. That is no proof that none can be."

    def plain(self) -> dict[str, Any]:
        """The verdict without pictures, for machines."""
        rows = [
            {"name": r.name, "control": r.control, "seconds": round(r.seconds, 2), "gradient_evaluations": r.passes,
             "metrics": {m: _summary(v) for m, v in r.values.items()}}
            for r in self.rows
        ]  # fmt: skip
        return {
            "version": __version__, "verdict": self.said, "about": self.about, "self_check": self.selfcheck,
            "matches": self.matches, "hints": self.hints, "rows": rows, "recovered": self.recovered,
            "ssim_above_control": self.above_control(), "stopped": self.stopped, "not_tried": list(NOT_TRIED),
        }  # fmt: skip

    def text(self) -> str:
        """The verdict for a terminal."""
        lines = [self.said, f"self-check: {self.selfcheck}", *(f"note: {hint}" for hint in self.hints)]
        for row in self.rows:
            numbers = ", ".join(f"{m} {row.mean(m):.3g}" for m in row.values)
            cost = f", {row.passes} gradients, {row.seconds:.1f} s" if row.passes else ""
            lines.append(f"  {'control: ' if row.control else ''}{row.name}: {numbers}{cost}")
        return "\n".join([*lines, *([self.stopped] if self.stopped else [])])

    def save(self, path: str | Path) -> Path:
        """Write the page, one HTML file without a network, and beside it the numbers as JSON."""
        path = Path(path)
        write_text(path, self.html())
        write_json(path.with_suffix(".json"), self.plain())
        return path

    def html(self) -> str:
        from jinja2 import Environment, PackageLoader, StrictUndefined

        env = Environment(loader=PackageLoader("inversionbench.audit", "templates"), autoescape=True,
                          undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # fmt: skip
        strips = [(name, [_uri(x) for x in images[:SHOWN]]) for name, images in self.pictures.items()]
        return env.get_template("verdict.html.j2").render(v=self, found=self.plain(), strips=strips)


def _summary(values: list[float]) -> dict[str, Any]:
    low, high = interval(values)
    known = not (np.isnan(low) or np.isnan(high))
    return {"mean": float(np.mean(values)), "values": values, "interval": [low, high] if known else None}


def _uri(image: Tensor) -> str:
    """One image (c, h, w) in [0, 1] as a PNG in a link, enlarged by a whole factor where it is small."""
    from PIL import Image

    pixels = (image.clamp(0, 1) * 255).round().byte()
    factor = max(1, 128 // max(pixels.shape[1:]))
    pixels = pixels.repeat_interleave(factor, 1).repeat_interleave(factor, 2).permute(1, 2, 0).contiguous()
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()[..., 0] if pixels.shape[2] == 1 else pixels.numpy()).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def threshold(text: str) -> float:
    """How far above control SSIM may be: the number of `CONTROL+0.10`."""
    head, plus, number = text.partition("+")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if head != "CONTROL" or not plus or not 0 <= value <= 1:
        raise UserError(f"--fail-above: expected CONTROL+NUMBER, the number from 0 to 1, as CONTROL+0.10, got '{text}'")
    return value


def fails(verdict: Verdict, above: float) -> bool:
    """Whether a gate stops: the leak is larger than allowed, or nothing could be said."""
    found = verdict.above_control()
    return not verdict.matches or found is None or found > above
