"""Learning to invert (survey 3.1; Wu, Chen, Guo, Weinberger, UAI 2023).

No search: a network learns, from public images and the gradients that the attacked global model would give for
them, to map a gradient to the images behind it. Whatever the client does to its gradient is done to the pairs,
so the inverter adapts to the defense.

1. `pairs` groups of public images (flipped, shifted by up to `shift` pixels) go through the client's protocol;
   images without a label of the task get a random one. All groups of a chunk are one tensor.
2. disguise: clipping and Gaussian noise where the defense declares them (`_posterior`), noise drawn at every look;
   quantised as it declares; moved as Guardian moves it, from a start of its own; entries pruned as in the observed
   update (its share of non-zeros per tensor), signs where only signs arrived.
3. hashing to `features` random signed sums, then standardising by the pairs.
4. inverter "mlp": two hidden layers, sigmoid output; error in the best order of each batch, so the batch has
   no order to learn; Adam, rate x 0.1 at 75 % of the epochs; the epoch with the lowest error on a tenth of the
   pairs, of public images that no other pair shows, is taken. "ridge": the linear inverter in closed form, a cheap
   fallback under that name.
5. one forward pass per observed update. Labels are not used; those reported are recovered from the head.

One inverter serves all clients of the round, and this global model alone. `gradient_evaluations` counts the
gradients simulated for the pairs, one per local step, without the second pass that matching needs.
Deviations: signed sums; the defense acts on the gradient of the group, as in the simulated protocol, not on
each image's; groups are drawn once, not anew at every epoch; the epoch is chosen on public pairs, where the
released code looks at the test set. shuffled: a control, gradients paired with wrong images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from inversionbench.core.attack import Attack, Form, Knowledge, LabelRule, Reconstruction
from inversionbench.core.ranges import Count, Positive, Whole

if TYPE_CHECKING:
    import torch

    from inversionbench.gradients.inverter import Inverter, Pairs
    from inversionbench.gradients.problem import Problem
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class LearningToInvert(Attack):
    """features: width after hashing. hidden: of both layers. size: pairs per step of Adam."""

    id = "learning_to_invert"
    level = "GR"
    budget = ("pairs", "epochs")

    pairs: Count = 50000
    features: Count = 8000
    hidden: Count = 3000
    epochs: Count = 200
    rate: Positive = 1e-4
    size: Count = 256
    shift: Whole = 2
    inverter: Literal["mlp", "ridge"] = "mlp"
    shuffled: bool = False
    label_rule: LabelRule = "bias_corrected"
    form: Form = "auto"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        import torch

        from inversionbench.gradients.problem import read, recovered

        problem = read(oracle)
        inverter, hashed, notes = self.train(problem, knowledge, rng)
        with torch.no_grad():
            images = inverter(hashed).view(problem.shape).clamp(0, 1)
        return Reconstruction(
            data=images,
            labels=recovered(problem, self.label_rule, rng),
            cost={"gradient_evaluations": self.pairs * len(problem.protocol.steps)},
            notes={"labels": self.label_rule, "second_order": False, "adaptive": True, **notes},
        )

    @property
    def kept(self) -> int:
        """How many pairs, the first ones, choose the epoch or the ridge."""
        return max(1, self.pairs // 10)

    def train(
        self, problem: Problem, knowledge: Knowledge, rng: torch.Generator
    ) -> tuple[Inverter, torch.Tensor, dict[str, Any]]:
        """Learn from public pairs: the inverter, the features of the observed updates, facts."""
        import torch

        from inversionbench.gradients.inverter import fit_network, fit_ridge

        if self.inverter not in ("mlp", "ridge"):
            raise ValueError(f"inverter: expected 'mlp' or 'ridge', got '{self.inverter}'")
        pairs, hashed, facts = self.simulate(problem, knowledge, rng)
        check, train = torch.arange(self.pairs).tensor_split([self.kept])
        if self.shuffled:
            pairs.x = pairs.x[torch.randperm(self.pairs, generator=rng)]
        if self.inverter == "ridge":
            model, history = fit_ridge(pairs, train, check, rng)
        else:
            model, history = fit_network(
                pairs, train, check, self.hidden, self.epochs, self.rate, self.size, rng
            )
        return model, hashed, {**facts, "inverter": self.inverter, "validation_mse": min(history)}

    def drawn(self, images: int, batch: int, rng: torch.Generator) -> torch.Tensor:
        """Places (pairs * batch,) of public images, pair by pair; those of the `kept` pairs are in no other."""
        import torch

        apart, rest = torch.randperm(images, generator=rng).tensor_split([max(1, images // 10)])
        parts = ((apart, self.kept), (rest, self.pairs - self.kept))
        return torch.cat([p[torch.randint(len(p), (n * batch,), generator=rng)] for p, n in parts])

    def simulate(
        self, problem: Problem, knowledge: Knowledge, rng: torch.Generator
    ) -> tuple[Pairs, torch.Tensor, dict[str, Any]]:
        """Public pairs as the server would have received them, and the observed updates in the same features."""
        import torch

        from inversionbench.core.recipe import Recipe
        from inversionbench.gradients.inverter import CHUNK, Hash, InferredCompression, Pairs
        from inversionbench.gradients.posterior import Channel
        from inversionbench.gradients.simulate import simulator
        from inversionbench.tracks.federated.attacks._adaptive import guarded, quantised
        from inversionbench.training.loop import augment

        client = simulator(problem.model, problem.protocol, self.form)
        layout, batch = client.layout, problem.protocol.batch_size
        observed, channel = layout.flatten(problem.update), Channel.of(knowledge.defense, problem.protocol)
        hashing = Hash(layout.size, self.features, rng)
        public, look = knowledge.public, Recipe(flip=True, shift=self.shift)
        disguise: InferredCompression | None = None
        fs, xs = [], []
        for index in self.drawn(len(public), batch, rng).split(CHUNK * batch):
            n = len(index) // batch
            x, y = augment(public.images(index.numpy()), look, rng), public.labels(index.numpy())
            guess = torch.randint(problem.model.classes, y.shape, generator=rng)
            x, y = x.to(problem.where).unflatten(0, (n, batch)), torch.where(y < 0, guess, y).unflatten(0, (n, batch))
            with torch.no_grad():
                g = channel.mean(client, problem.model.front(x), problem.one_hot(y))
            g = guarded(g, layout, problem.model, x, y.to(problem.where), knowledge.defense, rng)
            g = quantised(g, layout, knowledge.defense, rng)
            disguise = disguise or InferredCompression.seen(observed, layout, g)
            fs.append(hashing(disguise(g, layout)))
            xs.append(x.flatten(2))
        assert disguise is not None
        noise = channel.deviation * hashing.counts.sqrt()  # of sums of so many entries
        pairs = Pairs(torch.cat(fs), torch.cat(xs), noise.to(xs[0].device))
        facts = {"form": client.form, "features": hashing.width, "clip": channel.clip, "noise_scale": channel.scale}
        return pairs, hashing(observed), facts | disguise.facts
