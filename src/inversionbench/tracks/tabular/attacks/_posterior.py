"""The shared part of attribute inference: how likely each value of the sensitive attribute is, for all
records at once.

    posterior(v) ~ fit(v) * belief(v)

fit: how well the model's answer for the record completed with v agrees with the true response y.
belief: what is assumed about v before the model is asked. Where no value fits at all (scores rounded to 0,
empty leaves), the answer says nothing and the belief is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inversionbench.core.attack import Reconstruction
from inversionbench.core.errors import AccessDenied, UserError, suggest
from inversionbench.defenses.miscellaneous.confidence_rounding import rounded_to
from inversionbench.models import trees
from inversionbench.models.imputers import impute, train_imputer
from inversionbench.oracle.base import Oracle

if TYPE_CHECKING:
    from inversionbench.core.attack import Knowledge
    from inversionbench.models.columns import Question

LEVELS = ("LO", "BB-S", "WB")
BELIEFS = ("marginal", "conditional", "uniform")


def candidates(knowledge: Knowledge) -> Tensor:
    """Every record completed with every value: float32 (n * V, width), values fastest."""
    return torch.from_numpy(knowledge.question.complete(knowledge.records.numpy()))


def fit_of_labels(oracle: Oracle, knowledge: Knowledge, counts: Tensor) -> Tensor:
    """Pr[true y | predicted y_v], Fredrikson et al. 2014: float64 (n, V).

    counts: (classes, classes), (true, predicted) on public rows; one is added to each, so that no pair that
    public rows happen not to show is impossible.
    """
    errors = (counts.double() + 1) / (counts.double() + 1).sum(0)
    predicted = oracle.labels(candidates(knowledge)).view(-1, len(knowledge.question.values))
    return errors[knowledge.responses[:, None], predicted]


def fit_of_scores(oracle: Oracle, knowledge: Knowledge, rounding: float = 0.0) -> Tensor:
    """The score of the true response, p_y(v, x_K): float64 (n, V). rounding: width of the grid that the attacker
    rounds the scores to, 0 for none."""
    values = len(knowledge.question.values)
    scores = oracle.scores(candidates(knowledge))
    scores = (rounded_to(scores, rounding) if rounding else scores).double()
    return scores.gather(1, knowledge.responses.repeat_interleave(values)[:, None]).view(-1, values)


def fit_of_counts(oracle: Oracle, knowledge: Knowledge) -> Tensor:
    """White box with counts, Fredrikson et al. 2015: float64 (n, V).

    A path phi_i of the tree ends in a leaf with n_i of the N training rows. Of the paths that agree with
    x_K and v there is one; its n_i counts here the rows with response y, which for pure leaves is the paper's
    "paths with label y" and also serves leaves that mix labels. It is divided by the share of training rows
    on all paths that admit v.
    """
    module = oracle.module()
    tree = getattr(module, "model", None)
    if not isinstance(tree, trees.TreeModel):
        raise AccessDenied("the white-box form counts training rows in the leaves of a tree; this model has no leaves")
    arrays, question = tree.trees, knowledge.question
    complete = candidates(knowledge)
    module.charge(len(complete), "search")
    leaf = trees.leaves(arrays, complete.numpy())[:, 0].reshape(-1, len(question.values))
    rows = arrays.counts[leaf, knowledge.responses.numpy()[:, None]]
    total = arrays.counts[arrays.roots[0]].sum()
    return torch.from_numpy(rows / total / _admitted(arrays, question))


def _admitted(arrays: trees.Trees, question: Question) -> np.ndarray:
    """Share of the training rows that lie on paths which a value v can take, float64 (V,)."""
    reach = np.zeros((len(arrays.left), len(question.values)), dtype=bool)
    reach[arrays.roots[0]] = True
    for node in range(len(arrays.left)):  # parents stand before their children
        feature = arrays.feature[node]
        if feature < 0:
            continue
        left = right = reach[node]
        if question.start <= feature < question.stop:
            low = np.eye(len(question.values))[feature - question.start] <= arrays.threshold[node]
            left, right = left & low, right & ~low
        reach[arrays.left[node]], reach[arrays.right[node]] = left, right
    leaf = arrays.left < 0
    rows = arrays.counts[leaf].sum(1)
    return (rows[:, None] * reach[leaf]).sum(0) / rows.sum()


def belief_of(kind: str, knowledge: Knowledge, rng: torch.Generator) -> Tensor:
    """p(v), p(v given x_K) from an imputer that does not see the response, or 1 / V: float64 (n, V)."""
    n, values = len(knowledge.records), len(knowledge.question.values)
    if kind == "uniform":
        return torch.full((n, values), 1 / values, dtype=torch.float64)
    if kind == "marginal":
        return knowledge.marginal.double().expand(n, values)
    seed = int(torch.randint(2**31, (1,), generator=rng))
    model = train_imputer(knowledge.question, knowledge.public.x, None, knowledge.classes, seed)
    return torch.from_numpy(impute(model, knowledge.records.numpy(), None, knowledge.classes))


def choose(weight: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """The most likely value, int64 (n,), and the posterior, float32 (n, V). Ties are drawn by lot.

    A row of zeros (no value agrees) becomes uniform.
    """
    total = weight.sum(1, keepdim=True)
    posterior = torch.where(total > 0, weight / total.clamp_min(torch.finfo(torch.float64).tiny), 1 / weight.shape[1])
    lots = torch.rand(posterior.shape, generator=rng, dtype=torch.float64)
    best = posterior == posterior.max(1, keepdim=True).values
    return (best * (1 + lots)).argmax(1), posterior.float()


def infer(
    access: str, belief: str, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator, errors: str = "confusion",
    rounding: float = 0.0,
) -> Reconstruction:
    """The whole attack at one access level. errors: which published confusion matrix belongs to the oracle. rounding:
    of the scores, see `fit_of_scores`."""
    if access == "LO":
        fit = fit_of_labels(oracle, knowledge, getattr(knowledge, errors))
    elif access == "BB-S":
        fit = fit_of_scores(oracle, knowledge, rounding)
    else:
        fit = fit_of_counts(oracle, knowledge)
    fit = torch.where(fit.sum(1, keepdim=True) > 0, fit, 1.0)
    value, posterior = choose(fit * belief_of(belief, knowledge, rng), rng)
    return Reconstruction(value, knowledge.responses, posterior, notes=facts(knowledge))


def check(method: str, access: str, belief: str) -> None:
    """Refuse what is neither an access level nor a belief."""
    for name, got, allowed in (("access", access, LEVELS), ("belief", belief, BELIEFS)):
        if got not in allowed:
            raise UserError(f"{method}.{name}: '{got}': {suggest(got, allowed)}")


def facts(knowledge: Knowledge) -> dict[str, Any]:
    """What stands in the record beside the numbers."""
    return {"sensitive": knowledge.question.name, "values": list(knowledge.question.values)}
