"""A trained style-based prior as attacks search it; `priors.style` and `priors.stylegan2` make it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from inversionbench.core.prior import Prior
from inversionbench.models.style import SLOPE, StyleGenerator, to_pixels


@dataclass(frozen=True)
class StylePrior(Prior):
    """A trained style-based prior. p_mean, p_std: (w_dim,), of P space. `style`: the generator with its inner
    spaces, see `models.style.StyleGenerator`.
    """

    p_mean: Tensor
    p_std: Tensor

    @property
    def style(self) -> StyleGenerator:
        assert isinstance(self.generator, StyleGenerator)
        return self.generator

    def discriminator(self, img: Tensor) -> Tensor:
        """Realism score (n,) of images in the generator's range, about [-1, 1]."""
        assert self.critic is not None
        return self.critic(to_pixels(img))

    def to_w(self, v: Tensor) -> Tensor:
        """Standard-normal codes v (..., w_dim) to w, by the Gaussian fitted in P space."""
        return F.leaky_relu(self.p_mean + self.p_std * v, SLOPE)
