"""The tabular track: what a classifier of personal records gives away of one of their columns, or of whole rows.

scenario.protocol.ask chooses the question: "attribute" (the default, described here) or "rows", the rows behind a
federated client's update (`rows`). An attack says which one it answers (`asks`) and meets no other.

scenario.model     {name: tree | pruned_tree | mlp | early_mlp | logistic, depth, leaf, hidden}
scenario.training  {members: rows trained on, swap: share of them whose sensitive column is permuted, and for
                   networks the recipe: epochs, batch, optimiser, rate, weight_decay, schedule}
scenario.protocol  {ask: attribute, sensitive: the column asked for}
scenario.subjects  attacked records, half of them members, at least 80: a value of the column counts in averages from
                   20 members and 20 non-members on

An attack gets all other columns and the true response of members and non-members alike; the sensitive column
is taken out when the target is published. The member gap is the headline, the gap in AUROC stands beside it: what
a model gives of anybody, member or not, is correlation in the population.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.errors import UserError, suggest
from inversionbench.core.levels import HOOKS, RELEASES
from inversionbench.core.scenario import Evaluation, Progress, Scenario, Target
from inversionbench.models._tabular_names import TREES, check_model, check_training
from inversionbench.tracks.base import Track
from inversionbench.tracks.tabular import rows

if TYPE_CHECKING:
    from inversionbench.core.attack import Attack, Knowledge, Reconstruction
    from inversionbench.core.defense import Defense
    from inversionbench.core.registry import Method
    from inversionbench.data.base import Dataset, Part
    from inversionbench.oracle.base import Oracle

QUESTIONS = ("attribute", "rows")
MOST_USED = ("balanced_accuracy", "accuracy", "f1", "auc", "advantage")
FEWEST = 80  # two values


class Tabular(Track):
    """Attribute inference and row recovery; module docstring."""

    id: ClassVar[str] = "tabular"
    order = 4
    title = "Tables"
    about = """A model of personal records answers queries or trains in a federation. The attacker infers a sensitive
        column, or rebuilds rows from an update. Correlation in the population is not a leak: the imputation
        control shows what is known without the model."""
    headline: ClassVar[str] = "member_gap"
    metrics = (
        "member_gap", "auroc_gap", *(f"{name}{who}" for who in ("", "_nonmembers") for name in MOST_USED),
        *rows.METRICS,
    )  # fmt: skip
    controls = {
        "mode": {
            "label": "most frequent value",
            "reach": "guess",
            "note": "always the most frequent value of the column",
        },
        "marginals": {
            "label": "marginals",
            "reach": "guess",
            "note": "cells drawn from the public marginals, matched as the attack is",
        },
        "imputation": {
            "label": "imputation",
            "reach": "guess",
            "note": "a model trained on public records guesses from the other columns",
        },
        "imputation_without_response": {
            "label": "imputation without response",
            "reach": "guess",
            "note": "the same, without the answer that the target was trained to give",
        },
        "one_restart": {"label": "one restart", "note": "the first restart of the attack, alone"},
        "best_restart": {
            "label": "best restart",
            "note": "the restart that matches the update best, alone: pooling adds the difference to it",
        },
        "shuffled_rows": {
            "label": "shuffled rows",
            "note": "the restarts pooled without finding first which rows belong together",
        },
    }
    utility: ClassVar[str] = "accuracy"
    unpriced = "training.utility_rounds is 0: no federation was trained"
    modality = "table"

    def check(self, scenario: Scenario) -> None:
        if _asked(scenario) not in QUESTIONS:
            raise UserError(f"protocol.ask: '{_asked(scenario)}': {suggest(_asked(scenario), QUESTIONS)}")
        if _asked(scenario) == "rows":
            return rows.check(scenario)
        check_model(scenario.model)
        check_training(scenario.model["name"], scenario.training)
        for option, value in scenario.protocol.items():
            if option not in ("ask", "sensitive"):
                raise UserError(f"protocol: no option '{option}': {suggest(option, ['ask', 'sensitive'])}")
            if not isinstance(value, str):
                raise UserError(f"protocol.sensitive: expected the name of a column, got {value!r}")
        if scenario.subjects < FEWEST:
            raise UserError(f"subjects: expected at least {FEWEST} records, got {scenario.subjects}")
        return None

    def reaches(self, scenario: Scenario) -> frozenset[str]:
        if _asked(scenario) == "rows":
            return frozenset(HOOKS) - RELEASES
        trees = frozenset({"training_set", "build_model", "release"})  # H3 of a tree: how it is grown
        here = frozenset(HOOKS) - {"client_update", "aggregate", "release_features"}
        return trees if scenario.model["name"] in TREES else here

    def accepts(self, scenario: Scenario, attack: Method) -> bool:
        return attack.attributes.get("asks", "attribute") == _asked(scenario)

    def train_target(
        self, scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress
    ) -> Target:
        if _asked(scenario) == "rows":
            return rows.train_target(scenario, defense, data, seed, progress)
        from inversionbench.tracks.tabular.target import publish

        return Target(*publish(scenario, data, defense, seed, progress))

    def price(
        self, scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress
    ) -> tuple[dict[str, float], list[dict[str, Any]]]:
        return rows.price(scenario, defense, data, seed, progress) if _asked(scenario) == "rows" else ({}, [])

    def check_evaluator(self, options: Mapping[str, Any]) -> None:
        for option in options:
            if option != "sensitive":
                raise UserError(f"options: no option '{option}': {suggest(option, ['sensitive'])}")

    def train_evaluator(
        self, options: Mapping[str, Any], data: Dataset, seed: int, progress: Progress
    ) -> dict[str, Any]:
        from inversionbench.models.columns import ask
        from inversionbench.tracks.tabular.evaluate import train_judges

        return train_judges(data, ask(data.meta, options.get("sensitive")), seed % 2**31)

    def oracle(
        self, scenario: Scenario, released: dict[str, Any], attack: Attack, level: str, defense: Defense, seed: int
    ) -> Oracle:
        from inversionbench.core.errors import AccessDenied

        answers, question = getattr(attack, "asks", "attribute"), _asked(scenario)
        if answers != question:
            raise AccessDenied(f"'{attack.id}' asks for {answers}; scenario '{scenario.name}' is about {question}")
        if answers == "rows":
            return rows.oracle(scenario, released, defense, level)
        from inversionbench.oracle.tabular import tabular_oracle

        return tabular_oracle(released, level, defense, seed, twin=getattr(attack, "twin", False))

    def knowledge(
        self, scenario: Scenario, released: dict[str, Any], public: Part, meta: Mapping[str, Any], prior: Any
    ) -> Knowledge:
        if _asked(scenario) == "rows":
            return rows.knowledge(released, public, meta)
        from inversionbench.core.attack import Knowledge
        from inversionbench.models.columns import Question

        names = ("records", "responses", "marginal", "confusion", "twin_confusion", "classes")
        question = Question(**released["question"])
        there = {name: released[name] for name in names if name in released}
        return Knowledge(public=public, question=question, **there)

    def utility_of(
        self, scenario: Scenario, target: Target, defense: Defense, data: Dataset, seed: int
    ) -> dict[str, Any]:
        if _asked(scenario) == "rows":
            return target.utility
        from inversionbench.models.tabular import load
        from inversionbench.tracks.tabular.target import utility

        return target.utility | utility(load(target.released["model"], defense), data, defense, seed)

    def evaluate(
        self, scenario: Scenario, reconstruction: Reconstruction, target: Target, data: Dataset,
        evaluator: dict[str, Any], seed: int,
    ) -> Evaluation:
        if _asked(scenario) == "rows":
            return rows.evaluate(scenario, reconstruction, target, data, seed)
        from inversionbench.tracks.tabular.evaluate import evaluate

        return evaluate(reconstruction, target.released, target.truth, evaluator)


def _asked(scenario: Scenario) -> str:
    """The question of a scenario."""
    return str(scenario.protocol.get("ask", "attribute"))
