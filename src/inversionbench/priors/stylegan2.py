"""P4 from published weights: an official StyleGAN2-ADA generator, read from its file and never trained here.

Survey 3.2, the prior of PPA, MIRROR, IF-GMI and DMMIA as published (FFHQ, MetFaces at 1024, AFHQ at 512). The file
is a declared input that the user downloads and accepts the terms of (NVIDIA source code licence,
non-commercial): `weights`, a path below the folder of data (INVERSIONBENCH_DATA) or an absolute one, e.g.
stylegan2/ffhq.pkl; `sha256` is checked where given. Its pickle is read without running what is in it
(`models._stylegan2`).

The generator makes faces at its own size; the prior cuts the centred square of `crop` pixels (0: all; 800 of 1024 in
PPA, which brings the face to the size that the private sets have) and shrinks it to the data set's, so
attacks never see the full picture. P-space statistics as in `style`. No critic: realism terms must be 0.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.core.device import device
from inversionbench.core.errors import UserError
from inversionbench.core.prior import PriorRecipe
from inversionbench.core.ranges import Whole
from inversionbench.core.seeds import spawn
from inversionbench.data.sources import ROOT_VARIABLE, data_root
from inversionbench.models.classifiers import freeze
from inversionbench.models.style import SLOPE, StyleGenerator
from inversionbench.models.style_prior import StylePrior
from inversionbench.priors.style import SAMPLES

if TYPE_CHECKING:
    from inversionbench.core.scenario import Progress
    from inversionbench.data.base import Part
    from inversionbench.oracle.base import Oracle


class Framed(StyleGenerator):
    """A generator whose finished image is cut and shrunk; inner blocks are untouched."""

    crop, side = 0, 0

    def run_blocks(self, ws: Tensor, start: int, stop: int, *state: Any, **more: Any) -> tuple[Tensor, Tensor]:
        x, img = super().run_blocks(ws, start, stop, *state, **more)
        return (x, framed(img, self.crop, self.side)) if stop == self.n_blocks else (x, img)

    def forward(self, z: Tensor) -> Tensor:
        """A few at a time: large pictures fill the memory of a device."""
        return torch.cat([super(Framed, self).forward(part) for part in z.split(8)])


def framed(img: Tensor, crop: int, side: int) -> Tensor:
    """The centred square of `crop` pixels (0: all) of img (n, c, h, w), resized to (n, c, side, side)."""
    if crop:
        edge = (img.shape[-1] - crop) // 2
        img = img[..., edge : edge + crop, edge : edge + crop]
    if img.shape[-1] == side:
        return img
    return F.interpolate(img, (side, side), mode="bilinear", align_corners=False, antialias=True)


@dataclass(frozen=True)
class Stylegan2(PriorRecipe):
    """weights: file. sha256: of it, "" = not checked. crop: side of the square kept of the generator's picture."""

    id: ClassVar[str] = "stylegan2"
    target_aware: ClassVar[bool] = False

    weights: str = "stylegan2/ffhq.pkl"
    sha256: str = ""
    crop: Whole = 800

    def train(
        self, public: Part, rng: torch.Generator, progress: Progress, target: Oracle | None = None, base: Any = None,
        checkpoint: Path | None = None,
    ) -> dict[str, Any]:
        """Read the weights; of the public images only the size is used."""
        from inversionbench.models._stylegan2 import generator, read

        path = self.file()
        net = generator(read(path))
        if not 0 <= self.crop <= net.resolution:
            raise UserError(f"crop: expected 0 to {net.resolution}, the size of {path.name}, got {self.crop}")
        if net.colours != public.x.shape[1]:
            raise UserError(f"{path.name} makes {net.colours} channels, the data set has {public.x.shape[1]}")
        with torch.no_grad():
            w = net.style(torch.randn(SAMPLES, net.z_dim, generator=spawn(rng)))
        p = torch.where(w < 0, w / SLOPE, w)
        sizes = [net.z_dim, net.w_dim, list(net.channels), net.colours, net.resolution, len(net.map)]
        return {
            "sizes": sizes, "side": public.x.shape[-1], "generator": net.state_dict(),
            "p_mean": p.mean(0), "p_std": p.std(0), "facts": {"resolution": net.resolution, "crop": self.crop},
        }

    def load(self, state: dict[str, Any]) -> StylePrior:
        with torch.random.fork_rng(devices=[]):
            net = Framed(*state["sizes"])
        net.load_state_dict(state["generator"])
        net.crop, net.side = self.crop, state["side"]
        where = device()
        kept = freeze(net).to(where)
        return StylePrior(kept, None, net.z_dim, state["p_mean"].to(where), state["p_std"].to(where))

    def file(self) -> Path:
        """The weights, checked; a `UserError` that says what to do where they are missing or others."""
        path = (data_root(None) or Path()) / self.weights
        if not path.is_file():
            raise UserError(
                f"{path}: no such file. Download an official StyleGAN2-ADA pickle (accept its terms) and place it "
                f"there, below the folder that {ROOT_VARIABLE} names, or set `weights` of the prior to its path"
            )
        if self.sha256:
            with path.open("rb") as handle:
                got = hashlib.file_digest(handle, "sha256").hexdigest()
            if got != self.sha256:
                raise UserError(f"{path}: sha256 {got}, expected {self.sha256}: get the file again")
        return path
