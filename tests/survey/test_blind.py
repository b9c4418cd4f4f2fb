"""The blind test by people: its page gives nothing away, its answers are read back exactly, and stand in the table."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from inversionbench.core.errors import UserError
from inversionbench.core.files import write_tensors
from inversionbench.data.base import Dataset, Part
from inversionbench.survey import blind, build, collect

CELLS, PEOPLE = "portraits/gmi/none/0", 6
OTHER = {"left": "right", "right": "left"}


def part(per: int, level: int) -> Part:
    y = np.arange(PEOPLE).repeat(per)
    return Part(np.full((len(y), 3, 8, 8), level, np.uint8) + y[:, None, None, None].astype(np.uint8), y)


PARTS = (part(4, 10), part(1, 50), part(1, 90), part(2, 130))
DATA = Dataset("portraits", PEOPLE, (3, 8, 8), {"terms": "generated"}, *PARTS)


@pytest.fixture
def run(tmp_path: Path, cells: Path) -> Path:
    """A finished run whose reconstructions of two seeds are flat pictures: their grey says of whom."""
    folder = tmp_path / "run"
    shutil.copytree(cells, folder / "cells")
    for seed in (0, 1):
        labels = torch.arange(PEOPLE).repeat_interleave(3)
        images = ((labels + 170) / 255).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
        failed = torch.arange(len(labels)) == 0
        answer = {"data": images, "labels": labels, "failed": failed}
        path = folder / "reconstructions" / CELLS / str(seed) / "reconstruction.pt"
        write_tensors(path, {"status": "ok", "answer": answer})
    return folder


def right(drawn: blind.Draw) -> list[str]:
    return ["left" if pair.left else "right" for pair in drawn.pairs]


def answers(drawn: blind.Draw, chosen: list[str]) -> dict:
    return {"page": drawn.id, "cells": drawn.cells, "number": drawn.number, "seed": drawn.seed, "chosen": chosen}


def test_every_pair_holds_the_person_and_another_one(run: Path) -> None:
    drawn = blind.draw(run, CELLS, DATA, 20, 0)
    asked = [pair for pair in drawn.pairs if pair.seed is not None]
    assert len(asked) == 20
    assert len(drawn.pairs) == 22  # one in ten is of photographs
    for pair in drawn.pairs:
        base = 170 if pair.seed is not None else 130
        assert (pair.own == base + pair.person).all()
        assert (pair.other != base + pair.person).all()
        assert (pair.other >= base).all()
    assert {pair.left for pair in drawn.pairs} == {True, False}
    everything = [pair for pair in blind.draw(run, CELLS, DATA, 1000, 0).pairs if pair.seed is not None]
    assert len(everything) == 2 * (3 * PEOPLE - 1)  # none twice, none that failed


def test_the_page_is_one_file_that_does_not_know_the_answer(run: Path) -> None:
    drawn = blind.draw(run, CELLS, DATA, 20, 0)
    text = blind.page(drawn, DATA)
    assert not re.findall(r"""(?:src|href)=["']?https?:|@import|fetch\(|XMLHttp""", text)
    told, questions = (json.loads(found) for found in re.search(r"told = (.*), questions = (.*);", text).groups())
    assert told == {"page": drawn.id, "cells": CELLS, "number": 20, "seed": 0}
    assert all(question.keys() == {"of", "pictures"} for question in questions)
    assert [len(question["of"]) for question in questions] == [blind.SHOWN] * 22
    assert all(len(set(question["pictures"])) == 2 for question in questions)


@pytest.mark.parametrize(("share", "choose"), [(1.0, lambda side: side), (0.0, lambda side: OTHER[side])])
def test_answers_come_back_as_they_were_given(run: Path, share: float, choose) -> None:
    drawn = blind.draw(run, CELLS, DATA, 20, 3)
    found = blind.judge(drawn, answers(drawn, [choose(side) for side in right(drawn)]), "answers")
    assert found["share"] == found["photographs"] == share
    assert len(found["asked"]) == 20
    low, high = found["interval"]
    assert low <= share <= high
    assert high - low > 0.2  # six people, however many pairs


def test_who_always_answers_left_is_right_by_chance(run: Path) -> None:
    drawn = blind.draw(run, CELLS, DATA, 1000, 1)
    found = blind.judge(drawn, answers(drawn, ["left"] * len(drawn.pairs)), "answers")
    assert found["share"] == np.mean([pair.left for pair in drawn.pairs if pair.seed is not None])
    assert 0.1 < found["share"] < 0.9


def test_answers_stand_in_the_table_and_nowhere_else(run: Path) -> None:
    records = collect.read(run / "cells")
    assert "people" not in set(build.make(records, "smoke", run=run).attacks["metric"])
    drawn = blind.draw(run, CELLS, DATA, 20, 0)
    for chosen in (right(drawn), [OTHER[side] for side in right(drawn)]):  # two people who disagree in everything
        blind.keep(blind.judge(drawn, answers(drawn, chosen), "answers"), run)
    blind.keep(blind.judge(drawn, answers(drawn, right(drawn)), "answers"), run)  # the first again: no third person
    table = build.make(records, "smoke", run=run).attacks
    row = table[table["metric"] == "people"]
    assert row[["scenario", "attack"]].to_numpy().tolist() == [["portraits", "gmi"]]
    assert row.iloc[0]["mean"] == 0.5
    assert row.iloc[0]["n"] == 40


def test_answers_to_another_page_are_refused(run: Path, tmp_path: Path) -> None:
    drawn = blind.draw(run, CELLS, DATA, 20, 0)
    good = answers(drawn, right(drawn))
    wrong = [
        ({**good, "page": "0" * 16}, "other reconstructions"), ({**good, "chosen": ["left"]}, "1 answers to 22 pairs"),
    ]
    for given, says in wrong:
        with pytest.raises(UserError, match=says):
            blind.judge(drawn, given, "answers")
    for text, says in (("[]", "expected page"), ('{"page": 1}', "expected page"), ("{", "damaged"),
                       (json.dumps({**good, "chosen": ["up"]}), "'up'"), (json.dumps({**good, "seed": "0"}), "seed")):
        file = tmp_path / "answers.json"
        file.write_text(text)
        with pytest.raises(UserError, match=says):
            blind.read_answers(file)


def test_the_strongest_attack_is_asked_about(run: Path) -> None:
    assert blind.strongest(run / "cells", "portraits") == "portraits/plg_mi/none/0"
    with pytest.raises(UserError, match="no undefended attack"):
        blind.strongest(run / "cells", "nowhere")
