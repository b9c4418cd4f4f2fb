"""Training and publishing a target of the tabular track.

    private rows ── draw members ──▶ D ── swap share of the sensitive column ──▶ H1 … H5 ──▶ target
                                     │                                          (again, all swapped) ──▶ twin
    members + as many other rows, shuffled ──▶ victims: records without the sensitive column, responses
    public rows ──▶ marginal of the sensitive column, confusion matrix of the target

The twin is the same training on rows whose sensitive column was permuted: what an attack still finds
through it is correlation in the population. Controls are run without defense only, and so is the twin. Victims of both
kinds are mixed so that their place says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from inversionbench.core.defense import NONE, Defense
from inversionbench.core.errors import UserError
from inversionbench.core.recipe import Recipe
from inversionbench.core.seeds import spawn, stream
from inversionbench.models import cart, columns, tabular, trees
from inversionbench.models._tabular_names import RECIPES, TREES
from inversionbench.models.columns import Question
from inversionbench.training.loop import evaluate_classifier, fit, steps_per_epoch

if TYPE_CHECKING:
    from inversionbench.core.scenario import Progress, Scenario
    from inversionbench.data.base import Dataset

NETWORK_HOOKS = frozenset({"train_transform", "loss", "gradient"})


@dataclass(frozen=True)
class Rows:
    """Some rows of a table. x: float32 (n, width). y: int64 (n,)."""

    x: np.ndarray
    y: np.ndarray

    def take(self, index: np.ndarray) -> Rows:
        return Rows(self.x[index], self.y[index])


@dataclass(frozen=True)
class Victims:
    """The attacked records: rows, and whether each was trained on, bool (n,)."""

    rows: Rows
    member: np.ndarray


def rows_of(part: Any) -> Rows:
    """A part of a data set, in memory."""
    return Rows(np.array(part.x, dtype=np.float32), np.array(part.y, dtype=np.int64))


def draw(data: Dataset, count: int | None, subjects: int, rng: np.random.Generator) -> tuple[Rows, Victims]:
    """(rows that the target is trained on, attacked records).

    Members: `count` of the private rows, or all. Victims: `subjects` records in random order, half of them
    members, the others private rows that were left out (so that chance deals both from one pack) and, where
    these are too few, held-out rows.
    """
    private, heldout, half = rows_of(data.private), rows_of(data.heldout), subjects // 2
    count = len(private.y) if count is None else count
    if count > len(private.y):
        raise UserError(f"training.members: '{data.name}' has {len(private.y)} private rows, {count} were asked for")
    order = rng.permutation(len(private.y))
    members, left = private.take(order[:count]), private.take(order[count:])
    further = rng.permutation(len(heldout.y))
    x, y = np.concatenate([left.x, heldout.x[further]]), np.concatenate([left.y, heldout.y[further]])
    if half > min(count, len(y)):
        raise UserError(f"subjects: {subjects} records need {half} members and as many other rows; "
                        f"'{data.name}' has {count} and {len(y)}")  # fmt: skip
    mixed = rng.permutation(2 * half)
    both = Rows(np.concatenate([members.x[:half], x[:half]]), np.concatenate([members.y[:half], y[:half]]))
    return members, Victims(both.take(mixed), mixed < half)


def swap(rows: Rows, question: Question, share: float, rng: np.random.Generator) -> Rows:
    """Permute the sensitive column among a `share` of the rows; its encoded columns move together."""
    chosen = rng.permutation(len(rows.y))[: round(share * len(rows.y))]
    x = rows.x.copy()
    where = np.s_[question.start : question.stop]
    x[chosen, where] = x[rng.permutation(chosen), where]
    return Rows(x, rows.y)


def train(
    scenario: Scenario, rows: Rows, classes: int, question: Question, defense: Defense, seed: int,
    progress: Progress | None,
) -> nn.Module:
    """Train one target on some rows; the same seed gives the same initial weights and batches. H3 of a tree gets its
    learner."""
    name, options = scenario.model["name"], tabular.options_of(scenario.model)
    x, y = torch.from_numpy(rows.x), torch.from_numpy(rows.y)
    rng = torch.Generator().manual_seed(seed)
    if name in TREES:
        idle = defense.hooks & NETWORK_HOOKS
        if idle:
            raise UserError(f"defense '{defense.id}' acts through {', '.join(sorted(idle))}; '{name}' has no such step")
        x, y = defense.training_set(x, y, spawn(rng))
        sensitive = question.start, question.stop
        learner: Any = defense.build_model(lambda: cart.Learner(options["depth"], options["leaf"], sensitive))  # type: ignore[arg-type, return-value]
        return trees.TreeModel(learner.grow(x.numpy(), y.numpy(), classes, seed % 2**31)).eval()
    factory = lambda: tabular.build(options, rows.x.shape[1], classes)
    return fit(factory, x, y, classes, recipe_of(scenario), defense, rng, progress, scenario.name)


def recipe_of(scenario: Scenario) -> Recipe:
    """How the network of a scenario is trained."""
    given = {k: v for k, v in scenario.training.items() if k not in ("members", "swap")}
    return Recipe(**{**RECIPES[scenario.model["name"]], **given})


def confusion(model: nn.Module, rows: Rows, classes: int) -> Tensor:
    """Counts of (true, predicted) classes, float32 (classes, classes)."""
    with torch.no_grad():
        predicted = model(torch.from_numpy(rows.x)).argmax(1).numpy()
    flat = np.bincount(rows.y * classes + predicted, minlength=classes * classes)
    return torch.from_numpy(flat.reshape(classes, classes).astype(np.float32))


def flips(model: nn.Module, rows: Rows, question: Question) -> Tensor:
    """Whether some value of the sensitive column changes the predicted class, bool (n,)."""
    with torch.no_grad():
        label = model(torch.from_numpy(question.complete(question.known(rows.x)))).argmax(1)
    label = label.view(-1, len(question.values))
    return (label != label[:, :1]).any(1)


def publish(
    scenario: Scenario, data: Dataset, defense: Defense, seed: int, progress: Progress | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
    """Train target and twin; what is released, what is true, and the utility of the target."""
    public, rng = rows_of(data.public), np.random.default_rng(seed)
    if (public.y < 0).any():
        raise UserError(f"data set '{data.name}': attribute inference needs public rows with their response")
    protocol, training = scenario.protocol, scenario.training
    question = columns.ask(data.meta, protocol.get("sensitive"))
    members, victims = draw(data, training.get("members"), scenario.subjects, rng)
    trained_on = swap(members, question, training.get("swap", 0.0), rng)
    options, width = tabular.options_of(scenario.model), members.x.shape[1]
    defense = _prepared(defense, data, question, options, seed)
    model = train(scenario, trained_on, data.classes, question, defense, seed, progress)
    nets = {"model": model}
    if defense.strength == 0:
        swapped = swap(members, question, 1.0, rng)
        nets["twin"] = train(scenario, swapped, data.classes, question, defense, seed, progress)
    counts = [confusion(net, public, data.classes) for net in nets.values()]
    parts = (data.private, data.public, data.heldout)
    frequencies = np.bincount(question.truth(public.x), minlength=len(question.values))
    released = {
        **{name: tabular.state_of(net, options, width, data.classes) for name, net in nets.items()},
        **dict(zip(("confusion", "twin_confusion"), counts)),
        "question": question.state(),
        "one_hot": columns.one_hot_slices(data.meta),
        "range": [min(float(p.x.min()) for p in parts), max(float(p.x.max()) for p in parts)],
        "classes": data.classes,
        "records": torch.from_numpy(question.known(victims.rows.x)),
        "responses": torch.from_numpy(victims.rows.y),
        "marginal": torch.from_numpy(frequencies / len(public.y)),
    }
    truth = {
        "value": torch.from_numpy(question.truth(victims.rows.x)),
        "member": torch.from_numpy(victims.member),
        "flips": flips(model, victims.rows, question),
    }
    price = utility(model, data, defense, seed) | {"train_accuracy": _accuracy(model, members)}
    if defense.strength:
        price |= _stated(scenario, defense, model, len(members.y), question, released)
    return released, truth, price


def _prepared(
    defense: Defense, data: Dataset, question: Question, options: Mapping[str, Any], seed: int
) -> Defense:
    """The defense made ready; `meta` of the data names the column that is asked for."""
    if not defense.strength:
        return defense
    asked = replace(data, meta={**data.meta, "sensitive": question.name})
    return defense.prepare(asked, lambda _: tabular.build(options, data.shape[0], data.classes),
                           stream(seed, "defense", "prepare"))  # fmt: skip


def _stated(
    scenario: Scenario, defense: Defense, model: nn.Module, members: int, question: Question, released: dict[str, Any]
) -> dict[str, float]:
    """What is proven, in words for `released` and in numbers; of a tree, what the sensitive column still decides."""
    if isinstance(model, trees.TreeModel):
        rate, steps = 1.0, 1
        shown = {"sensitive_importance": cart.importance(model.trees, question.start, question.stop)}
    else:
        recipe, shown = recipe_of(scenario), {}
        rate, steps = min(1.0, recipe.batch / members), recipe.epochs * steps_per_epoch(members, recipe.batch)
    if stated := defense.statements(rate, steps, sum(p.numel() for p in model.parameters()), steps):
        released["guarantee"] = "; ".join(stated)
    return shown | defense.guarantee(rate, steps)


def utility(model: nn.Module, data: Dataset, defense: Defense = NONE, seed: int = 0) -> dict[str, Any]:
    """accuracy in [0, 1], nll in nats, ece and hits of the deployed path on held-out rows."""
    rows = rows_of(data.heldout)
    x, y = torch.from_numpy(rows.x), torch.from_numpy(rows.y)
    rng = torch.Generator().manual_seed(seed)
    return evaluate_classifier(model, x, y, lambda logits: defense.release(logits, rng), defense.keeps_labels)


def _accuracy(model: nn.Module, rows: Rows) -> float:
    with torch.no_grad():
        return (model(torch.from_numpy(rows.x)).argmax(1).numpy() == rows.y).mean().item()

