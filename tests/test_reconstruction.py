"""What an attack may hand over, and what is said of anything else."""

from dataclasses import replace

import pytest
import torch

from inversionbench.core.attack import Reconstruction

GOOD = Reconstruction(torch.rand(2, 1, 3, 4, 4), torch.zeros(2, 1, dtype=torch.int64))


def test_a_good_answer_has_no_problem():
    images = GOOD.data
    full = replace(GOOD, failed=torch.tensor([True, False]), checkpoints=[(1, images), (5, images)],
                   cost={"gradient_evaluations": 3},
                   notes={"form": "loop", "curve": [1.0, 2.0], "rows": [{"x": torch.ones(1)}]})  # fmt: skip
    assert GOOD.problem() == ""
    assert full.problem() == ""
    one_bad = images.clone()
    one_bad[0] = float("nan")
    assert replace(GOOD, data=one_bad).problem() == ""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": GOOD.data.numpy()}, "expected a tensor"),
        ({"labels": None}, "expected a tensor"),
        ({"data": GOOD.data.double()}, "images are torch.float64, expected float32"),
        ({"data": GOOD.data * float("nan")}, "no row of data is finite"),
        ({"data": GOOD.data[:1]}, "labels has 2 rows, data 1"),
        ({"labels": torch.zeros(2, 1)}, "whole numbers"),
        ({"failed": torch.zeros(2)}, "true or false"),
        ({"checkpoints": [(1, GOOD.data[:1])]}, "shape of data"),
        ({"checkpoints": [(10, GOOD.data), (5, GOOD.data)]}, "rise"),
        ({"checkpoints": [(5, GOOD.data), (5, GOOD.data)]}, "rise"),
        ({"cost": {"queries": "many"}}, "whole numbers: queries"),
        ({"notes": {"x": {1, 2}}}, "cannot stand in a record"),
        ({"notes": {"x": float("nan")}}, "cannot stand in a record"),
    ],
)
def test_what_is_no_answer_is_said(change, says):
    assert says in replace(GOOD, **change).problem()
