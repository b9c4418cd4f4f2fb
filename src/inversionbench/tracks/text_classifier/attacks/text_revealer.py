"""Text Revealer: a language model's hidden state steered by the gradients of a text classifier; a reconstruction.

Zhang, Hidano, Koushanfar, "Text Revealer: Private Text Reconstruction via Model Inversion Attacks against
Transformers", arXiv 2209.10505 (survey 3.7.3). Read: that sentences of a language model of public text become private
ones by an optimal perturbation of its hidden state under the target's feedback. The steps are those of PPLM (Dathathri
et al., ICLR 2020), which that describes. At every word w_t, with H the keys and values of all words before it and D =
0, `iterations` times:

    p~ = softmax(LM(w_t, H + D))           e~ = p~ E          E: the target's embeddings
    L  = -log T(c | e(w_1 .. w_t), e~) + kl KL(p~ || p)        p = softmax(LM(w_t, H))
    D <- D - step dL/dD / (|dL/dD|^gamma + 1e-10)             the norm per block, keys and values apart, and sentence

then w_{t+1} from p~^fuse p^(1 - fuse), the `top` most likely words, and the perturbed keys and values stay. Of all
sentences of a class the `kept` that the target finds most likely are handed over.

calls: passes through the target for all classes together, those of the choice included; they decide how many sentences
there are. guide: the target, or a control in its place: `untrained`, the same network with fresh weights, or `public`,
a classifier of public text; then the target is asked nothing but its architecture.

Deviations: the first word follows the start mark, so that there is nothing to perturb before it; no templates for how a
sentence begins. The paper's step was not read; PPLM's 0.02 does nothing where keys are of order 1.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.core.attack import Attack, Knowledge, Reconstruction
from inversionbench.core.errors import UserError
from inversionbench.core.ranges import Count, NonNegative, Positive, Share, Whole
from inversionbench.core.seeds import draw_seed
from inversionbench.models.encoder import Cache, Encoder, advance
from inversionbench.models.text import PAD, START
from inversionbench.tracks.text_classifier.attacks._generate import answer, best, draw, likely

if TYPE_CHECKING:
    from inversionbench.models.text import Decoder
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class TextRevealer(Attack):
    """data: int64 (classes * kept, length), token numbers; labels: the class of each."""

    id: ClassVar[str] = "text_revealer"
    level: ClassVar[str] = "WB"
    prior: ClassVar[str] = "sentence_models"
    budget: ClassVar[tuple[str, ...]] = ("calls",)

    calls: Count = 4000
    kept: Count = 20
    iterations: Count = 3
    step: Positive = 3.0
    gamma: NonNegative = 1.0
    kl: NonNegative = 0.01
    fuse: Share = 0.9
    top: Whole = 10
    guide: Literal["target", "untrained", "public"] = "target"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        target, models, classes = oracle.module(), knowledge.prior, knowledge.classes
        each = self.calls // (classes * ((models.language.length - 1) * self.iterations + 1))
        if each < self.kept:
            raise UserError(f"text_revealer.calls: {self.calls} make {each} sentences for each of {classes} classes, "
                            f"{self.kept} are to be kept")  # fmt: skip
        guide = self._guide(target.model, models.classifier, rng)
        asked = target.charge if self.guide == "target" else lambda inputs, phase: None
        wanted = torch.arange(classes).repeat_interleave(each)
        x = self._steered(models.language, guide, wanted, asked, rng)
        asked(len(x), "select")
        with torch.no_grad():
            fit = guide(x).log_softmax(1)[torch.arange(len(x)), wanted]
        pools = x.view(classes, each, -1), fit.view(classes, each)
        return answer(best(*pools, self.kept), knowledge, made=each, guide=self.guide)

    def _guide(self, target: Any, public: Any, rng: torch.Generator) -> Encoder:
        if self.guide != "untrained":
            return target if self.guide == "target" else public
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw_seed(rng))
            return copy.deepcopy(target).untrained().requires_grad_(False)

    def _steered(self, model: Decoder, guide: Encoder, wanted: Tensor, asked: Any, rng: torch.Generator) -> Tensor:
        """One sentence for each wanted class (n,): int64 (n, length)."""
        x = torch.full((len(wanted), 1), START)
        cache: Cache = []
        while x.shape[1] < model.length:
            with torch.no_grad():
                plain = advance(model, x[:, -1], cache)[0]
            moved = self._perturbed(model, guide, x, cache, plain, wanted, asked) if cache else []
            with torch.no_grad():
                logits, cache = advance(model, x[:, -1], moved)
            mixed = self.fuse * logits.log_softmax(1) + (1 - self.fuse) * plain.log_softmax(1)
            x = torch.cat([x, draw(likely(mixed, self.top), x[:, -1], rng)[:, None]], dim=1)
        return x

    def _perturbed(
        self, model: Decoder, guide: Encoder, x: Tensor, cache: Cache, plain: Tensor, wanted: Tensor, asked: Any
    ) -> Cache:
        """The keys and values after `iterations` steps."""
        flat = [part for pair in cache for part in pair]
        shift = [torch.zeros_like(part) for part in flat]
        words, before = guide.embeddings(), guide.embeddings()[x]
        places = model.length - x.shape[1] - 1
        real = F.pad(x != PAD, (0, 1), value=True)
        for _ in range(self.iterations):
            for part in shift:
                part.requires_grad_()
            moved = [a + b for a, b in zip(flat, shift)]
            logits = advance(model, x[:, -1], list(zip(moved[::2], moved[1::2])))[0]
            e = F.pad(torch.cat([before, (logits.softmax(1) @ words)[:, None]], dim=1), (0, 0, 0, places))
            asked(len(x), "search")
            said = guide.soft(e, F.pad(real, (0, places))).logits
            off = F.kl_div(plain.log_softmax(1), logits.log_softmax(1), log_target=True, reduction="sum")
            loss = F.cross_entropy(said, wanted, reduction="sum") + self.kl * off
            slopes = torch.autograd.grad(loss, shift)
            shift = [(d - self.step * g / (g.flatten(1).norm(dim=1).view(-1, 1, 1, 1) ** self.gamma + 1e-10)).detach()
                     for d, g in zip(shift, slopes)]  # fmt: skip
        done = [a + b for a, b in zip(flat, shift)]
        return list(zip(done[::2], done[1::2]))
