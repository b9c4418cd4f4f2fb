"""The tabular track's second question: the rows of a federated client's batch, from its update (level GR).

scenario.model     {name: mlp, hidden: [100, 100]}: linear layers with ReLU, PyTorch's initial weights
scenario.training  the federation around the attacked round, see `federation.settings.Federation`
scenario.protocol  {ask: rows, batch_size: a number or a list, labels: known | hidden, sends: gradient | delta,
                   epochs, local_batch, local_rate, observer}; see `core.protocol.Protocol`
scenario.subjects  attacked clients of each batch size
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from inversionbench.core.errors import UserError
from inversionbench.core.scenario import Evaluation, Progress, Scenario, Target
from inversionbench.federation.settings import batches_of_rows, federation_of_rows
from inversionbench.models._tabular_names import check_model

if TYPE_CHECKING:
    from inversionbench.core.attack import Knowledge, Reconstruction
    from inversionbench.core.defense import Defense
    from inversionbench.data.base import Dataset, Part
    from inversionbench.oracle.base import Oracle

METRICS = ("tabular_recovery", "categorical", "numeric", "whole_rows", "label_recovery", "certified")


def check(scenario: Scenario) -> None:
    """Raise `UserError` for what clients that train on rows do not know."""
    check_model(scenario.model)
    if scenario.model["name"] != "mlp":
        raise UserError(f"model.name: rows are recovered from updates of an 'mlp', not of '{scenario.model['name']}'")
    batches_of_rows(scenario)
    federation_of_rows(scenario)


def train_target(scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress) -> Target:
    from inversionbench.federation.round import make_target
    from inversionbench.federation.rows import Rows

    return make_target(Rows(scenario), defense, data, seed, progress)


def price(
    scenario: Scenario, defense: Defense, data: Dataset, seed: int, progress: Progress
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    from inversionbench.federation.rows import Rows
    from inversionbench.federation.trainer import price

    return price(Rows(scenario), defense, data, seed, progress)


def oracle(scenario: Scenario, released: dict[str, Any], defense: Defense, level: str) -> Oracle:
    from inversionbench.federation.oracle import update_oracle
    from inversionbench.federation.rows import Rows

    rows = Rows(scenario)
    return update_oracle(rows.load(released, defense), released, rows.batches, released["classes"], level)


def knowledge(released: dict[str, Any], public: Part, meta: Mapping[str, Any]) -> Knowledge:
    """The schema with the server's standardisation, the labels where the scenario gives them, the defense."""
    from inversionbench.core.attack import Knowledge
    from inversionbench.models.rows import read_schema

    labels = {"labels": released["labels"]} if "labels" in released else {}
    return Knowledge(schema=read_schema(meta, public.x), public=public, defense=released["defense"], **labels)


def evaluate(
    scenario: Scenario, reconstruction: Reconstruction, target: Target, data: Dataset, seed: int
) -> Evaluation:
    from inversionbench.models.rows import read_schema
    from inversionbench.tracks.tabular.evaluate_rows import evaluate_rows

    schema, classes = read_schema(data.meta, data.public.x), target.released["classes"]
    return evaluate_rows(
        reconstruction, target.truth, schema, batches_of_rows(scenario), data.public.x, classes, seed % 2**63
    )
