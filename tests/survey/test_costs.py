"""What a run cost: priors paid by one cell or shared by all, and nothing invented where a timing is missing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from survey_cells import record

from inversionbench.core.files import write_json
from inversionbench.survey import costs


def cell(attack: str, seed: int, seconds: float | None, **change: object) -> dict:
    timing = {} if seconds is None else {"seconds": 2 * seconds, "cpu_seconds": seconds, "peak_memory_mib": 500}
    return {**record("portraits", attack, "none", 0.0, seed, target_seed=seed), "timing": timing, **change}


@pytest.fixture
def params(tmp_path: Path) -> SimpleNamespace:
    """GMI searches a shared prior; PLG-MI one that asks the target and starts from the shared one."""
    def prior(**attributes: object) -> SimpleNamespace:
        return SimpleNamespace(described=SimpleNamespace(attributes=attributes))

    needs = {"gmi": ("gan",), "plg_mi": ("aware",), "brep_mi": ()}
    for name, seconds in {"priors/portraits/gan": 60, "priors/targets/portraits/none/0/aware/0": 30,
                          "priors/targets/portraits/none/0/aware/1": 50, "evaluators/judges": 5,
                          "targets/portraits/none/0/0": 7, "targets/portraits/none/0/1": 9}.items():
        timing = {"cpu_seconds": seconds, "seconds": 1, "peak_memory_mib": 300}
        write_json(tmp_path / "timings" / f"{name}.json", timing)
    return SimpleNamespace(
        folder=tmp_path, scale="smoke", scenarios={"portraits": SimpleNamespace(dataset="portraits")},
        attacks={name: SimpleNamespace(priors=lambda scenario, own=own: own) for name, own in needs.items()},
        priors={"gan": prior(), "aware": prior(target_aware=True, base="gan")}, defenses={},
    )  # fmt: skip


def test_a_prior_is_paid_once_and_shared_by_the_cells_that_use_it(params: SimpleNamespace) -> None:
    found = [cell("gmi", 0, 10.0), cell("gmi", 1, 12.0), cell("plg_mi", 0, 20.0), cell("brep_mi", 0, 4.0)]
    table = costs.by_attack(params, found).set_index("attack")
    assert table["prior_seconds"].to_dict() == {"brep_mi": 0, "gmi": 60, "plg_mi": 90}
    assert table["single"].to_dict() == {"brep_mi": 4, "gmi": 71, "plg_mi": 110}
    assert table["amortised"].to_dict() == {"brep_mi": 4, "gmi": 31, "plg_mi": 70}  # the shared one has three users
    assert table.loc["plg_mi", "priors"] == "gan aware"
    assert table.loc["brep_mi", "queries"] == 400


def test_a_restored_run_has_counts_and_no_seconds(params: SimpleNamespace) -> None:
    (params.folder / "timings/priors/portraits/gan.json").unlink()
    row = costs.by_attack(params, [cell("gmi", 0, None)]).iloc[0]
    assert row["passes"] == 300
    assert pd.isna(row["cpu_seconds"])
    assert pd.isna(row["amortised"])


def test_training_is_listed_by_what_was_trained(params: SimpleNamespace) -> None:
    table = costs.training(params.folder / "timings").set_index("what")
    assert table["cpu_seconds"].to_dict() == {"portraits/none/0": 8, "judges": 5, "portraits/gan": 60,
                                              "targets/portraits/none/0/aware": 40}
    assert table["trained"].to_dict() == {"portraits/none/0": 2, "judges": 1, "portraits/gan": 1,
                                          "targets/portraits/none/0/aware": 2}


def test_the_page_leaves_out_columns_that_hold_nothing(params: SimpleNamespace) -> None:
    costs.write(params, [cell("gmi", 0, 10.0)])
    page = (params.folder / "timings/costs.html").read_text()
    for said in ("amortised", "70.0", "300", "white-box"):
        assert said in page
    assert "passes of the prior" not in page
    assert "nan" not in page
