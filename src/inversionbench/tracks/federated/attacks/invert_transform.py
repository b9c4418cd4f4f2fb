"""The attacker who knows how images are transformed (ATS, image augmentation; survey 4.1). Its own, after the
remark of Balunovic et al. (ICLR 2022) that such defenses hide x behind T(x) and not T(x) itself.

The policy is public; which of its changes an image went through is not. For every change T that is possible for the
image (each policy of a hybrid, each direction of each operation; a class's own operation where the policy says so):

    J(x) = 1 - cos(g(T(x)), g) + tv TV(x)        over x, not over T(x), as in `inverting_gradients`

so T is undone by the search: what a border lost is filled by the total variation. The answer with the lowest matching
loss is taken: a reflected border that does not fit the change betrays a wrong direction, the more the larger the
change is; small rotations and changes of brightness fit in both directions, and the choice is then nearly blind.

One image in one step. Without a known policy this is the plain attack. `changes` in the record: how many changes were
possible for each client; all their searches count as gradient evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inversionbench.core.attack import Attack, Form, Knowledge, LabelRule, Reconstruction
from inversionbench.core.ranges import Count, NonNegative, Positive

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class InvertTransform(Attack):
    """The parameters of `inverting_gradients`; every possible change is one search of `steps`."""

    id = "invert_transform"
    level = "GR"
    adapts = "inverting_gradients"
    budget = ("steps",)

    steps: Count = 300
    rate: Positive = 0.1
    tv: NonNegative = 0.01
    label_rule: LabelRule = "bias_corrected"
    form: Form = "auto"

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        from inversionbench.core.errors import AccessDenied
        from inversionbench.gradients.composed import Descent, Parts, compose
        from inversionbench.gradients.matching import objective
        from inversionbench.gradients.objectives import Matching
        from inversionbench.gradients.problem import labels_of, read
        from inversionbench.gradients.simulate import simulator
        from inversionbench.tracks.federated.attacks._changes import Changed, changes

        problem = read(oracle)
        if problem.protocol.batch_size != 1 or len(problem.protocol.steps) != 1:
            raise AccessDenied("invert_transform models the change of one image in one step, not of a larger batch")
        labels, source = labels_of(problem, knowledge, self.label_rule, rng)
        possible = [changes(knowledge.defense, int(label)) for label in labels[:, 0]]
        searches = max(map(len, possible))
        client = simulator(problem.model, problem.protocol, self.form)
        front = problem.model.front

        def build(part: slice, y: torch.Tensor) -> Parts:
            observed = client.layout.flatten(problem.of(part).update).repeat(searches, 1)
            changed = Changed([own[k % len(own)] for k in range(searches) for own in possible[part]])

            def sent(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                return client(front(changed(front.pixels(x[:, 0])))[:, None], y)

            return Parts(objective(sent, Matching(observed), y, self.tv))

        d = Descent(self.steps, self.rate, restarts=searches)
        result = compose(problem, labels, client, d, build, rng)
        result.notes |= {"labels": source, "adaptive": True, "changes": [len(own) for own in possible]}
        return result
