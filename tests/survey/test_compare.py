"""Two runs side by side: equal, or which cells differ, by how much, and which are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from survey_cells import record

from inversionbench.core import records
from inversionbench.core.files import write_json
from inversionbench.plan.params import Params, read
from inversionbench.survey import compare
from inversionbench.workflow.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def params(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Params:
    monkeypatch.chdir(tmp_path)
    return read(ROOT / "params.yaml")


def cells(**change: object) -> list[dict]:
    found = [record("photos", "dlg", "none", 0.0, 0), record("photos", "dlg", "dgc", 0.9, 0),
             record("portraits", "gmi", "none", 0.0, 1)]  # fmt: skip
    found[1] |= change
    return found


def publish(params: Params, folder: str, found: list[dict]) -> str:
    write_json(Path(folder) / compare.FILE, compare.summary(params, found))
    return folder


def test_provenance_clocks_and_folders_make_no_difference(params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    one = publish(params, "one", cells())
    other = publish(params, "other", cells(provenance={"numerics": "portable"}, timing={"seconds": 9}, folder="x",
                                           unavailable={"lpips": "no /mnt/other/file"}))  # fmt: skip
    assert main(["compare", one, "--run", other]) == 0
    assert capsys.readouterr().out == "equal: 3 cells of one and other\n"


def test_a_difference_is_said_in_the_unit_of_the_headline(params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    first = cells()
    metrics = {**first[1]["metrics"], "psnr": {**first[1]["metrics"]["psnr"]}}
    metrics["psnr"]["mean"] += 0.25
    second = cells(metrics=metrics, provenance={"numerics": "native", "processor": "x86_64 AVX512"})
    second[0]["utility"] = {"accuracy": 0.5}
    one, other = publish(params, "one", first), publish(params, "other", second)
    assert main(["compare", one, "--run", other]) == 1
    said = capsys.readouterr().out
    assert "1 of 3 cells of one are equal in other" in said
    assert "numerics: native against native, native x86_64 AVX512" in said
    assert "different: 2 cells, the largest difference first\n  photos/dlg/dgc/0.9/0: psnr" in said
    assert "(+0.25 dB)" in said
    assert "photos/dlg/none/0/0: psnr equal, the rest of the record is not" in said


def test_cells_of_one_run_alone_are_named(params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    gone = record("photos", "dlg", "dgc", 0.99, 0, status="denied", reason="no", metrics={}, groups=[], unavailable={})
    one, other = publish(params, "one", cells()), publish(params, "other", [*cells()[1:], gone])
    assert main(["compare", one, "--run", other]) == 1
    said = capsys.readouterr().out
    assert "not in other: 1 cells\n  photos/dlg/none/0/0" in said
    assert "only in other: 1 cells\n  photos/dlg/dgc/0.99/0" in said


def test_a_run_is_found_by_the_scale_of_what_is_published(params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    keys = [f"photos_convnet/{a}/none/0/{s}" for a in ("inverting_gradients", "wrong_gradient") for s in (0, 1)]
    found = [{**record("photos", "dlg", "none", 0.0, 0), "key": key, "scenario": "photos_convnet"} for key in keys]
    for cell in found:
        records.write(Path("results/laptop/cells") / cell["key"], cell)
    write_json("results/laptop/params.json", params.raw)
    one = publish(params, "results/published/laptop", found)
    assert main(["compare", one]) == 0
    assert main(["compare", "results/laptop", "--run", one]) == 0
    assert capsys.readouterr().out.count("equal: 4 cells") == 2
    assert main(["compare", "nowhere"]) == 2
    assert "holds neither records.json nor cells" in capsys.readouterr().err


def test_cells_beyond_the_published_ones_are_named_and_change_nothing(
    params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = publish(params, "one", cells()[1:]), publish(params, "other", cells())
    assert main(["compare", one, "--run", other]) == 0
    said = capsys.readouterr().out
    assert f"equal: {len(cells()) - 1} cells" in said
    assert "only in other: 1 cells" in said
