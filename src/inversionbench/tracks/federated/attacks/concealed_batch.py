"""The attacker who knows that images were added to the batch (DCS-2, survey 4.1).

The update is [s g(z, y_p) + (1 - s) g(z, y_s) + g(batch)] / D with z the added images: the gradient of a larger batch,
whose images and labels have known weights. The attacker reconstructs all of it and hands over the batch.

Labels of the added images: those of the sensitive ones where the client prefers proxies of the same class, else
mixed with the class that the last layer's bias shows besides the known ones. An added image and a sensitive one of
the same label change places freely: of the two, the smoother one is handed over. The projection of the defense
moves the update along g(batch) and is not modelled; the cosine hardly sees it. Search as in `inverting_gradients`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from inversionbench.core.attack import Attack, Form, Knowledge, LabelRule, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive

if TYPE_CHECKING:
    import torch

    from inversionbench.gradients.problem import Problem
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class ConcealedBatch(Attack):
    """The parameters of `inverting_gradients`."""

    id = "concealed_batch"
    level = "GR"
    adapts = "inverting_gradients"
    budget = ("steps", "restarts")

    steps: Count = 300
    rate: Positive = 0.1
    tv: NonNegative = 0.01
    restarts: Count = 1
    label_rule: LabelRule = "bias_corrected"
    form: Form = "auto"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.core.errors import AccessDenied
        from inversionbench.gradients.composed import Descent, Parts, compose
        from inversionbench.gradients.matching import objective
        from inversionbench.gradients.objectives import Matching
        from inversionbench.gradients.problem import labels_of, read
        from inversionbench.gradients.simulate import simulator

        problem = read(oracle)
        if len(problem.protocol.steps) > 1:
            raise AccessDenied("concealed_batch models one step, not the path of several local ones")
        labels, source = labels_of(problem, knowledge, self.label_rule, rng)
        told, batch = knowledge.defense, problem.protocol.batch_size
        added = int(told.get("added", 0))
        wide = replace(problem, protocol=replace(problem.protocol, batch_size=batch + added, local_batch=0))
        targets = larger(problem, labels, told)
        client = simulator(problem.model, wide.protocol, self.form)

        def build(part: slice, _: torch.Tensor) -> Parts:
            observed = client.layout.flatten(problem.of(part).update).repeat(self.restarts, 1)
            return Parts(objective(client, Matching(observed), targets[part].repeat(self.restarts, 1, 1), self.tv))

        names = targets.argmax(2)
        result = compose(wide, names, client, Descent(self.steps, self.rate, self.restarts), build, rng)
        result.data = own_images(result.data, names, batch)
        result.labels, result.checkpoints = labels, []
        result.notes |= {"labels": source, "adaptive": True, "added": added}
        return result


def larger(problem: Problem, labels: torch.Tensor, told: dict[str, Any]) -> torch.Tensor:
    """Weighted labels (clients, batch + added, classes) of the larger batch, for a mean over it."""
    import torch
    from torch.nn import functional as F

    batch, added, classes = labels.shape[1], int(told.get("added", 0)), problem.model.classes
    own = F.one_hot(labels, classes).float()
    if not added:
        return own
    sensitive = min(int(told["sensitive"]), batch)
    theirs = own[:, batch - sensitive :].repeat_interleave(max(1, added // sensitive), dim=1)[:, :added]
    db = problem.update.get(problem.model.head_names[1])
    if told.get("kind") != "same" and db is not None:
        known = db.scatter(1, labels, torch.inf)
        proxy = F.one_hot(known.argmin(1), classes).float()[:, None]
        theirs = float(told["mix"]) * proxy + (1 - float(told["mix"])) * theirs
    n = batch + theirs.shape[1]
    return torch.cat([own * (n / batch), theirs * (n / theirs.shape[1])], dim=1)


def own_images(x: torch.Tensor, names: torch.Tensor, batch: int) -> torch.Tensor:
    """Of x (clients, batch + added, ...) one image per place of the batch: the smoothest of its label, once each."""
    import torch

    from inversionbench.gradients.regularisers import total_variation

    rough = total_variation(x.flatten(0, 1)[:, None]).view(x.shape[:2])
    rows = []
    for i in range(len(x)):
        free, taken = list(range(x.shape[1])), []
        for place in range(batch):
            same = [j for j in free if names[i, j] == names[i, place]]
            taken.append(min(same, key=lambda j: float(rough[i, j])))
            free.remove(taken[-1])
        rows.append(x[i, taken])
    return torch.stack(rows)
