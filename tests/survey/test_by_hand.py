"""One cell by hand: a wrong key is answered with the part that is wrong, and a path is as good as a key."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pytest
from survey_cells import record, write_cell

from inversionbench.core.errors import UserError
from inversionbench.plan.params import Params, check, read
from inversionbench.workflow import by_hand, runner

KEY = "dosing_tree/mi_attribute/confidence_rounding/0.5/1"


@pytest.fixture(scope="module")
def params() -> Params:
    return read(Path(__file__).parents[1] / "workflow" / "mini.yaml")


@pytest.mark.parametrize(("key", "said"), [
    ("dosing/mi_attribute/none/0/0", "no scenario 'dosing'. Did you mean 'dosing_tree/mi_attribute/none/0/0'?"),
    ("dosing_tree/mi_atribute/none/0/0", "no attack 'mi_atribute' in dosing_tree. Did you mean "
                                         "'dosing_tree/mi_attribute/none/0/0'? Allowed: mi_attribute"),
    ("dosing_tree/mi_attribute/confidence_rounding/0.1/0", "no strength '0.1' in dosing_tree/mi_attribute/"
                                                           "confidence_rounding."),
    ("dosing_tree/mi_attribute/none/0/7", "no seed '7' in dosing_tree/mi_attribute/none/0."),
    ("dosing_tree/mi_attribute", "its defense is missing in dosing_tree/mi_attribute."),
    (KEY + "/2", "nothing follows"),
    ("gmi", "Allowed: dosing_tree, adult_tree, photos_convnet"),
])  # fmt: skip
def test_a_wrong_key_is_answered_with_what_may_stand_there(params: Params, key: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        by_hand.explain(params, key)
    assert said in str(error.value)


def test_a_path_is_as_good_as_a_key(params: Params) -> None:
    for given in (KEY, f"results/mini/cells/{KEY}", f"../cells/{KEY}/record.json"):
        key, (group, strength, seed) = by_hand._cell(params, given)
        assert (key, group.defense, strength, seed) == (KEY, "confidence_rounding", 0.5, 1)


def test_a_record_reads_without_brackets_and_endless_digits(tmp_path: Path) -> None:
    cell = record("photos", "dlg", "dgc", 0.9, 0, utility={"accuracy": 0.10000000149011612})
    text = by_hand.describe(write_cell(tmp_path / "cells", cell))
    assert "utility: accuracy 0.1\n" in text
    assert "queries_by_phase ()" not in text
    assert "used public" in text
    assert not set("[]{}'") & set(text.split("knowledge:")[1])


def test_the_clock_of_a_bar_runs_while_its_only_step_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """One cell is one step: without this its bar would stand still until the end."""
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with by_hand._ticking(0.02):
        for _ in runner.progress([0], desc="cell", file=sys.stderr):
            before = sys.stderr.getvalue().count("0/1")
            deadline = time.monotonic() + 60  # on a busy machine
            while sys.stderr.getvalue().count("0/1") < before + 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert sys.stderr.getvalue().count("0/1") >= before + 3


def test_a_bar_that_is_being_made_does_not_stop_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """tqdm lists a bar before it has its attributes; on a busy machine the clock met such a bar, and died."""
    from tqdm import tqdm

    asked = []

    class Half:
        def refresh(self) -> None:
            asked.append(self)
            raise AttributeError("disable")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(tqdm, "_instances", [Half()], raising=False)
    with by_hand._ticking(0.01):
        deadline = time.monotonic() + 60
        while len(asked) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(asked) >= 3


def test_a_cell_that_fails_says_why_and_is_tried_again(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = check({**params.raw, "results": str(tmp_path)})
    key, attacked = "dosing_tree/mi_attribute/none/0/0", runner._attack_cell

    def breaks(*args: object) -> None:
        raise MemoryError("no room\nfor this cell")

    monkeypatch.setattr(runner, "_attack_cell", breaks)
    with pytest.raises(UserError, match=f"{key}: failed attack: MemoryError: no room\n"):
        by_hand.run(here, key)
    assert "in breaks" in capsys.readouterr().err  # the traceback
    monkeypatch.setattr(runner, "_attack_cell", attacked)
    assert f"{key}: ok" in by_hand.run(here, key)
    assert "train-target" not in capsys.readouterr().err
