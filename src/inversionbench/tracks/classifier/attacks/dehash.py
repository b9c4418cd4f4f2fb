"""De-hashing: invert the network behind a perceptual hash, then take the hash back as learnt from other people's faces.

Against the defense `perceptual_hashing`, by who has the weights and knows the hash:

    h = MI-Face on the network without the hash in front of it (so h looks like a hashed photograph of the class)
    D = argmin over decoders of  mean |D(hash(x)) - x|^2  over public faces x              Adam, `steps` batches
    answer D(h)

Where no hash is told the answer is h itself. The card of the defense names the attack, the network is ours. With h from
pixels alone, D sees patterns unlike those of photographs; `adapt` of GMI lets a prior choose instead. Parameters of the
search as in MI-Face, the gradient divided by its norm.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.device import device
from inversionbench.core.ranges import Count, Positive
from inversionbench.core.seeds import draw_seed
from inversionbench.latent.rows import rows
from inversionbench.models.generators import UpConv
from inversionbench.models.hashing import HashedParts
from inversionbench.tracks.classifier.attacks.mi_face import MiFace, by_passes

if TYPE_CHECKING:
    from inversionbench.oracle.base import Oracle

BATCH, RATE = 32, 2e-3
KEPT = 128  # public images that the decoder is not trained on, to say how well it does


@dataclass(frozen=True)
class Dehash(Attack):
    """steps, width: of the decoder."""

    id: ClassVar[str] = "dehash"
    level: ClassVar[str] = "WB"
    adapts: ClassVar[str] = "mi_face"
    budget: ClassVar[tuple[str, ...]] = ("iterations",)

    iterations: Count = 300
    rate: Positive = 1.0
    restarts: Count = 4
    steps: Count = 400
    width: Count = 16

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        y = rows(knowledge.targets, self.restarts)
        target = oracle.module().to(device())
        hashes = [m for m in target.model.modules() if isinstance(m, HashedParts)] if knowledge.defense else []
        own = copy.deepcopy(hashes[0]) if hashes else None
        for layer in hashes:
            layer.share = 0.0  # the attacker's copy: what stands behind the hash
        search = MiFace(iterations=self.iterations, rate=self.rate, normalise=True, start="grey", goal=0.999)
        start = (0.5 + 0.05 * torch.randn(len(y), *knowledge.shape, generator=rng)).clamp(0, 1)
        h, cost, _ = search.descend(start, y, by_passes(target))
        if own is None:
            return Reconstruction(h.clamp(0, 1), y, scores=1 - cost[:, None])
        decoder, error = self.learn(own, knowledge.public.images(), rng)
        with torch.no_grad():
            answer = decoder(h.to(device())).cpu()
        return Reconstruction(answer, y, scores=1 - cost[:, None], notes={"decoder_mse": error})

    def learn(self, hashed: HashedParts, x: Tensor, rng: torch.Generator) -> tuple[nn.Module, float]:
        """The decoder from hashed faces to faces, and its error on public faces that it has not seen."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(rng))
            net = decoder(x.shape[1], self.width).to(device())
        optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
        kept = min(KEPT, len(x) // 5)
        for _ in range(self.steps):
            part = x[kept + torch.randint(len(x) - kept, (BATCH,), generator=rng)].to(device())
            optimiser.zero_grad()
            F.mse_loss(net(hashed(part)), part).backward()
            optimiser.step()
        net.eval()
        with torch.no_grad():
            shown = x[:kept].to(device())
            return net, float(F.mse_loss(net(hashed(shown)), shown))


def decoder(channels: int, width: int) -> nn.Sequential:
    """(n, channels, h, w) in [0, 1] -> the same, for sides that 4 divides; looks at fields of 40 pixels."""

    def block(a: int, b: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, stride, dilation, dilation, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]

    return nn.Sequential(
        *block(channels, width), *block(width, 2 * width, 2), *block(2 * width, 4 * width, 2),
        *block(4 * width, 4 * width, dilation=2), UpConv(4 * width, 2 * width, bias=False), nn.BatchNorm2d(2 * width),
        nn.LeakyReLU(0.2), UpConv(2 * width, width, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.2),
        nn.Conv2d(width, channels, 3, padding=1), nn.Sigmoid(),
    )  # fmt: skip
