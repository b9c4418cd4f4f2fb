"""The survey's rows against the code: no row lost, no claim without code and test."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from inversionbench.core import catalogue, registry
from inversionbench.core.errors import UserError


def row(method: str) -> catalogue.Row:
    return next(r for r in catalogue.rows() if r.id == method)


def test_the_catalogue_holds_the_whole_survey() -> None:
    kinds = [r.kind for r in catalogue.rows()]
    assert {kind: kinds.count(kind) for kind in catalogue.KINDS} == {
        "attack": 43, "defense": 39, "metric": 9, "dataset": 13,
    }
    assert len({(r.kind, r.id) for r in catalogue.rows()}) == len(kinds)


def test_a_row_needs_code_and_test(tmp_path: Path) -> None:
    def covered(method: str) -> bool:
        table = catalogue.coverage(tests=tmp_path / "tests").set_index(["kind", "id"])
        return bool(table.loc[(row(method).kind, method), "covered"])

    folder = tmp_path / "tests" / "metrics"
    folder.mkdir(parents=True)
    assert catalogue.registered(row("psnr"))
    assert not covered("psnr")
    (folder / "test_pixel.py").write_text("from inversionbench.metrics.psnr import psnr\n")
    assert covered("psnr")
    assert not covered("ssim")
    (folder / "test_ssim.py").write_text("")
    assert covered("ssim")


def test_examples_elsewhere_are_no_tests(tmp_path: Path) -> None:
    for name in ("survey", "workflow"):
        (tmp_path / "tests" / name).mkdir(parents=True)
        (tmp_path / "tests" / name / "test_x.py").write_text("X = ['psnr', 'dlg', 'mnist', 'dgc']\n")
    assert (catalogue.coverage(tests=tmp_path / "tests")["test"] == "").all()


def test_every_registered_row_points_to_its_file() -> None:
    table = catalogue.coverage()
    for line in table[table["code"] != ""].itertuples():
        path = catalogue.REPOSITORY / line.code
        assert path.is_file()
        assert path.stem == line.id
    assert set(table.loc[table["code"] == "", "id"]).isdisjoint(
        name for kind in catalogue.KINDS for name in registry.methods(kind)
    )


def test_results_count_only_with_a_number() -> None:
    table = pd.DataFrame({"method": ["dlg", "ggi"], "defense": ["none", "dgc_top"], "metric": ["psnr", "fid_like[e]"],
                          "dataset": ["mnist", "svhn"], "value": [20.0, float("nan")]})
    shown = catalogue.coverage(table).set_index(["kind", "id"])["in_table"]
    assert shown["attack", "dlg"]
    assert shown["metric", "psnr"]
    assert shown["dataset", "mnist"]
    assert not shown["attack", "ggi"]
    assert not shown["defense", "dgc"]
    table["value"] = 1.0
    assert catalogue.coverage(table).set_index(["kind", "id"])["in_table"]["defense", "dgc"]


def test_rebuilt_methods_say_so_in_their_first_paragraph(monkeypatch: pytest.MonkeyPatch) -> None:
    docs = {"a": "A name (survey 3.1).\nReconstruction.\n\nText.", "b": "B: `reconstruction`.", "c": "C reconstructs.",
            "d": "D.\n\nIts reconstruction."}
    methods = {name: SimpleNamespace(doc=doc) for name, doc in docs.items()}
    monkeypatch.setattr(registry, "methods", lambda kind: methods)
    assert [name for name in docs if catalogue.rebuilt("attack", name)] == ["a", "b"]
    assert catalogue.rebuilt("attack", "a_stronger")
    assert not catalogue.rebuilt("attack", "unknown")


def test_published_tables_are_read(tmp_path: Path) -> None:
    assert catalogue.published(tmp_path) is None
    folder = tmp_path / "results" / "published" / "laptop"
    folder.mkdir(parents=True)
    (folder / "attacks.csv").write_text("method,metric,dataset,mean\ndlg,psnr,mnist,20.1\nggi,psnr,mnist,\n")
    shown = catalogue.coverage(catalogue.published(tmp_path)).set_index(["kind", "id"])["in_table"]
    assert shown["attack", "dlg"]
    assert not shown["attack", "ggi"]


def test_readme_is_changed_between_the_markers_only(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"before\n{catalogue.BEGIN}\nold\n{catalogue.END}\nafter\n")
    assert catalogue.update_readme(path, write=False)
    assert "old" in path.read_text()
    assert catalogue.update_readme(path)
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert catalogue.coverage_markdown() in text
    assert not catalogue.update_readme(path)
    path.write_text("no markers")
    with pytest.raises(UserError, match="coverage:begin"):
        catalogue.update_readme(path)


def test_the_readme_is_up_to_date() -> None:
    assert not catalogue.update_readme(catalogue.REPOSITORY / "README.md", write=False), "run `inversionbench readme`"
