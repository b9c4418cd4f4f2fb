"""SIA-GAN (survey 3.2): undo block-wise scrambling without the key, from labelled scrambled and unpaired plain images.

Madono, Tanaka, Onishi, Ogawa, "SIA-GAN: Scrambling Inversion Attack Using Generative Adversarial Network", IEEE Access
2021. A network H reads scrambled images x~ block by block (`models.unscramble`), a discriminator D compares what it
makes with plain images x of other samples, and a classifier N, trained with H, must find the label y in it:

    L_D = E max(0, 1 + D(H(x~))) + E max(0, 1 - D(x))
    L_{H,N} = -E D(H(x~)) + classes * E CE(N(H(x~)), y) + tv * TV(F)

F are the features that H assembles, TV the squared differences of its first three channels, by pixel, summed over the
batch. No pair of a scrambled image and its original is ever used.

steps: of the three networks together; 0 is the untrained H. classes: weight of the class term; 0 is the control without
it, plausible images of the wrong content. shared: one reading of blocks for all places (right with one key, places
kept), else one for each. mixing: blocks may have changed places. width, depth, critic_width: of H and D. batch: plain
and scrambled images each.

Measured (digits of 16 pixels, blocks of 4, 473 scrambled and 673 plain images, 350 steps, 7 s of one core; SSIM and how
often a frozen classifier of plain digits, which is right on 94 %, names the digit; three keys):

    one key                 0.58 0.18 0.82    52 13 88 %        without the class term    0.75 0.88 0.89    77 86 88 %
    eight keys              0.53              69 %              blocks shuffled           0.05              12 %
    scrambled, untrained    at most 0.09      8 to 14 %

So here the class term hinders: that every block is read alike, and that the whole must look plain, fixes the content.

Deviations: widths, steps and batch of a laptop (published: 256 and 64 channels, 3 residual blocks, D of 128 to 1024
with self-attention, N a pyramid network, 75 to 100 epochs of CIFAR-10, batch 256); D has no self-attention; the block
reading has batch norm and no spectral norm; `mixing` is ours, in place of the authors' permutation stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive, Whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class SiaGan(Attack):
    """data: (subjects, channels, height, width), the first scrambled images undone. notes["untrained"]: the same by the
    network before training."""

    id = "sia_gan"
    level = "SC"
    budget = ("steps", "batch")
    published: ClassVar[dict[str, Any]] = {"width": 64, "depth": 3, "critic_width": 128, "steps": 15_000, "batch": 256,
                                           "rate": 1e-4, "critic_rate": 4e-4, "tv": 1e-3}  # fmt: skip

    steps: Whole = 400
    batch: Count = 32
    classes: NonNegative = 1.0
    tv: NonNegative = 1e-2
    shared: bool = True
    mixing: bool = False
    width: Count = 8
    depth: Count = 1
    critic_width: Count = 16
    rate: Positive = 4e-3
    critic_rate: Positive = 2e-3

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        import torch

        from inversionbench.core.seeds import draw_seed
        from inversionbench.models.classifiers import build
        from inversionbench.models.unscramble import Unscrambler, discriminator

        seen, labels = oracle.scrambled()
        plain = knowledge.public.images() * 2 - 1
        shape = tuple(seen.shape[1:])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(rng))
            undo = Unscrambler(shape, knowledge.block, self.width, self.depth, self.shared, self.mixing)
            critic = discriminator(shape[0], self.critic_width)
            naming = build({"name": "cnn", "width": self.width}, shape, oracle.num_classes or 1)
            seen = seen.float() / 127.5 - 1
            subjects = min(knowledge.subjects, len(seen))
            before = self._answer(undo, seen, subjects)
            self._train(undo, critic, naming, seen, labels, plain, rng)
        data = self._answer(undo, seen, subjects)
        cost = {"gradient_evaluations": self.steps * self.batch}
        return Reconstruction(data, labels[:subjects], cost=cost, notes={"untrained": before})

    def _train(
        self, undo: nn.Module, critic: nn.Module, naming: nn.Module, seen: Tensor, labels: Tensor, plain: Tensor,
        rng: torch.Generator,
    ) -> None:
        """All three networks, in place."""
        import torch
        from torch.nn import functional as F

        both = [*undo.parameters(), *naming.parameters()]
        own = torch.optim.Adam(both, self.rate, (0.5, 0.9))
        other = torch.optim.Adam(critic.parameters(), self.critic_rate, (0.0, 0.9))
        for net in (undo, critic, naming):
            net.train()
        for _ in range(self.steps):
            rows, real = (torch.randint(len(t), (self.batch,), generator=rng) for t in (seen, plain))
            made, features = undo(seen[rows])
            loss = F.relu(1 + critic(made.detach())).mean() + F.relu(1 - critic(plain[real])).mean()
            other.zero_grad()
            loss.backward()
            other.step()
            for p in critic.parameters():
                p.requires_grad_(False)
            loss = -critic(made).mean() + self.tv * _variation(features)
            if self.classes:
                loss = loss + self.classes * F.cross_entropy(naming((made + 1) / 2), labels[rows])
            own.zero_grad()
            loss.backward()
            own.step()
            for p in critic.parameters():
                p.requires_grad_(True)

    def _answer(self, undo: nn.Module, seen: Tensor, subjects: int) -> Tensor:
        """The judged images in [0, 1], with running statistics of the batch norms; of the batch before any training."""
        import torch

        with torch.no_grad():
            made = torch.cat([undo.train(False)(part)[0] for part in seen[:subjects].split(256)])
        return (made + 1) / 2


def _variation(features: Tensor) -> Tensor:
    """Squared differences of the first three channels, by pixel, summed over the batch."""
    f = features[:, :3]
    down, right = f[..., 1:, :] - f[..., :-1, :], f[..., 1:] - f[..., :-1]
    return (down.square().sum() + right.square().sum()) / f[0].numel()
