"""The written survey: self-contained, readable without scripts, the same bytes twice, every link alive."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from survey_cells import ATTACKS, all_records, empty, gallery, record

from inversionbench.core.errors import UserError
from inversionbench.core.files import atomic_folder
from inversionbench.plan.params import check
from inversionbench.survey import (
    build,
    collect,
    contrasts,
    figures,
    galleries,
    glance,
    heat,
    maps,
    planes,
    report,
    sheets,
    view,
    words,
)
from inversionbench.survey.words import Quantity


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.silent = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.silent = tag in ("script", "style")
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.silent = False

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def folder(survey: build.Survey, cells: Path) -> Path:
    return cells.parent / "survey"


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "survey.html").read_text())


def test_one_file_without_network(page: Page) -> None:
    for tag, attrs in page.tags:
        for name in ("src", "href"):
            assert not re.match(r"(?i)https?:|//", attrs.get(name) or ""), (tag, attrs)
    assert not page.all("link")
    assert all(img["src"].startswith("data:image/png;base64,") for img in page.all("img"))
    assert not any("src" in script for script in page.all("script"))


def test_links_lead_to_files_and_anchors(page: Page, folder: Path) -> None:
    anchors = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    links = [a["href"] for a in page.all("a")]
    assert sum("record.json" in link for link in links) > 50
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors
        elif "costs.html" not in link:  # written by `build`, beside this folder
            assert (folder / link).resolve().is_file(), link


def test_accessible(page: Page) -> None:
    assert all(img.get("alt") for img in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(th.get("scope") in ("col", "row") for th in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"


def test_numbers_are_in_the_text_and_not_made_by_the_script(page: Page, survey: build.Survey) -> None:
    text = " ".join("".join(page.text).split())
    row = survey.attacks.query("attack == 'dlg' and metric == 'psnr'").iloc[0]
    assert f"{row['mean']:.1f}" in text
    for said in ("denied", "scores() is not granted at level LO", "unavailable", "out of memory", "true data",
                 "Planned cells without a record: 1.", "photos/ggi/none/0/0", "steps 3200"):
        assert said in text, said


@pytest.mark.parametrize(("attack", "said"), [("RLB-MI", "denied"), ("PPA", "unavailable")])
def test_no_answer_is_a_word_in_the_place_of_the_number(survey: build.Survey, attack: str, said: str) -> None:
    table = view.attack_table(survey.attacks, "portraits")
    cells = next(cells for _, cells in table.rows if cells[0].text == attack)
    assert (cells[2].text, cells[2].style, cells[2].sort) == (said, "absent", None)
    assert cells[4].text == said  # the other metrics say the same
    assert cells[2].note
    pairs = view.pair_table(survey.defenses, "portraits")
    assert {c[6].text for _, c in pairs.rows if c[2].text == attack} == {said}


def test_markdown_says_the_same(folder: Path, survey: build.Survey) -> None:
    text = (folder / "survey.md").read_text()
    tables = [line for line in text.splitlines() if line.startswith("|")]
    row = survey.attacks.query("attack == 'plg_mi' and metric == 'agreement'").iloc[0]
    shown = next(line for line in tables if line.startswith("| PLG-MI |"))
    assert f"{100 * row['mean']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]" in shown
    assert "12 (6)" in shown
    assert "nan" not in text.lower()
    for path in re.findall(r"\]\(([^)]+)\)", text):
        assert (folder / path).resolve().is_file()


def test_equal_records_give_equal_bytes(survey: build.Survey, folder: Path, cells: Path, tmp_path: Path) -> None:
    again = build.make(collect.read(cells), "smoke", {"photos/ggi/none/0/0": "not run"}, {"scale": "smoke"})
    with atomic_folder(tmp_path / "survey") as out:
        build.write(again, out, cells.parent)
    names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert len(names) > 15
    assert names == sorted(p.relative_to(tmp_path / "survey") for p in (tmp_path / "survey").rglob("*") if p.is_file())
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "survey" / name).read_bytes(), name


def test_what_is_wrong_stands_at_the_top() -> None:
    found = [record("photos", "dlg", "none", 0.0, 0), record("photos", "dlg", "confidence_rounding", 0.1, 0)]
    found[1]["metrics"]["psnr"]["values"][0] += 1e-9
    survey = build.make([{**r, "folder": "nowhere", "timing": {}} for r in found], "smoke")
    page = report.html(survey, [])
    assert page.index('role="alert"') < page.index('id="glance"')
    assert "INERT BUT DIFFERENT" in page
    assert "WRONG" in report.markdown(survey)


def test_build_shows_what_was_planned(cells: Path, tmp_path: Path) -> None:
    params = check({
        "scale": "smoke", "results": str(tmp_path), "datasets": {"photos": {}}, "attacks": {"dlg": {}},
        "scenarios": {"photos": {"track": "federated", "dataset": "photos", "model": {"name": "lenet"},
                                 "protocol": {"labels": "hidden"}, "seeds": [0, 9]}},
    })  # fmt: skip
    run = tmp_path / "smoke"
    run.mkdir()
    (run / "cells").symlink_to(cells)
    for part in ("data/photos", "targets/photos/none/0", "reconstructions/photos/dlg/none"):
        for name in ("dataset.json", "private", "public", "evaluation", "heldout", "released", "truth"):
            (run / part / name).mkdir(parents=True)
    assert build.build(params) == []
    frame = pd.read_parquet(run / "survey" / "cells.parquet")
    assert set(frame["key"]) == {"photos/dlg/none/0/0"}
    assert "photos/dlg/none/0/9: not run" in (run / "survey" / "survey.md").read_text()
    assert "seconds" in (run / "timings" / "costs.csv").read_text()
    assert "gradient evaluations" in (run / "timings" / "costs.html").read_text()
    with pytest.raises(UserError, match="no records"):
        build.make([], "smoke")


def test_a_scenario_is_told_in_a_few_words_and_in_the_order_of_its_number() -> None:
    def told(scenario: str, **parts: object) -> dict:
        made = record("photos", "dlg", "none", 0.0, 0, parameters={"scenario": parts, "attack": {}})
        return {**made, "key": f"{scenario}/dlg/none/0/0", "scenario": scenario, "folder": "nowhere", "timing": {}}

    parts = {"model": {"name": "convnet", "widths": [8, 16]}, "protocol": {"batch_size": 4, "rounds": 3},
             "training": {"rounds": 94, "utility_rounds": 5}}  # fmt: skip
    one = told("photos_b16", **parts)
    assert report.setting(one) == "convnet, batch size 4, rounds 3, training rounds 94"
    made = build.make([one, told("photos_b2"), told("photos_a")], "smoke")
    assert made.scenarios == [("federated", ["photos_a", "photos_b2", "photos_b16"])]
    page = report.html(made, [])
    places = [page.index(f">{name}") for name in ("photos_a", "photos_b2", "photos_b16")]
    assert places == sorted(places)
    assert page.count("convnet, batch size 4, rounds 3, training rounds 94") == 2  # at a glance, and with its tables


class TestFigures:
    def test_every_scenario_has_its_figures(self, folder: Path) -> None:
        names = {p.stem for p in (folder / "figures").glob("*.png")}
        for scenario, attacks in ATTACKS.items():
            assert {f"{kind}-{scenario}" for kind in ("attacks", "curves", "heat", "tradeoff")} <= names
            assert f"gallery-{scenario}-{next(iter(attacks))}" in names
        assert "gallery-photos-dgc" in names
        assert "gallery-photos-confidence_rounding" not in names  # it cannot act there

    def test_no_curve_leaves_its_panel(self, survey: build.Survey, tmp_path: Path, monkeypatch) -> None:
        drawn: list = []
        monkeypatch.setattr(figures, "save", lambda figure, path, axes: drawn.append(axes))
        figures.curves(survey.curves, survey.attacks, "portraits", tmp_path)
        assert len(drawn[0].flat) == 2  # panels of queries and of passes share their axis
        for ax in drawn[0].flat:
            low, high = ax.get_ylim()
            assert all(low <= y <= high for line in ax.get_lines() for y in line.get_ydata())

    def test_seeds_that_paid_differently_make_one_curve(self) -> None:
        line = pd.DataFrame({"key": ["a", "a", "b", "b"], "nth": [0, 1, 0, 1], "seed": [0, 0, 1, 1],
                             "budget": [10, 20, 12, 30], "value": [1.0, 2.0, 3.0, 4.0]})
        assert figures.over_seeds(line).to_dict("list") == {"budget": [11.0, 25.0], "value": [2.0, 3.0]}
        assert len(figures.over_seeds(line.drop(index=1))) == 3  # not equally many: each budget stands alone

    def test_labels_of_close_controls_stand_above_each_other(self) -> None:
        rows = pd.DataFrame([{"control_mean_image": 10.0, "control_noise": 10.6, "control_random_image": 11.2}])
        with figures.canvas(6, 4) as (figure, axes):
            ax = axes[0, 0]
            ax.plot([0, 1], [5, 20])
            figures.control_lines(ax, rows, Quantity("psnr", "PSNR", "dB", 1, direction="higher"))
            figure.draw_without_rendering()
            boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
        assert len(boxes) == 3
        assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(boxes))

    def test_no_defense_stands_where_the_table_of_attacks_has_its_strongest(self, survey: build.Survey) -> None:
        plain = figures.headline_rows(survey.attacks, "portraits")
        rows = maps.judged(survey.defenses, "portraits")
        for level, attack in (("WB", "plg_mi"), ("LO", "brep_mi")):
            star = maps.undefended(plain, rows[rows["level"] == level], maps.Price(Quantity("accuracy", "accuracy")))
            row = plain[plain["attack"] == attack].iloc[0]
            assert star[["mean", "low", "high"]].iloc[0].tolist() == row[["mean", "low", "high"]].tolist()
            assert star["utility"].tolist() == [pytest.approx(0.9)]
        stronger = plain.assign(mean=plain["mean"].where(plain["attack"] != "gmi", 0.99))  # met a defense or not
        star = maps.undefended(stronger, rows[rows["level"] == "WB"], maps.Price(Quantity("a", "")))
        assert star["mean"].tolist() == [0.99]

    @pytest.mark.parametrize("points", [1, 2])
    def test_a_front_of_one_point_is_not_in_the_legend(self, points: int) -> None:
        with figures.canvas(4, 4) as (_, axes):
            maps.join(axes[0, 0], pd.Series(range(points)), pd.Series(range(points)))
            assert ("Pareto front" in figures.unique(axes)[1]) == (points > 1)

    def test_a_plane_holds_every_attack_at_the_numbers_of_the_table(
        self, survey: build.Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list = []
        monkeypatch.setattr(planes, "legend", lambda figure, axes: drawn.append(axes[0, 0]))
        points = survey.curves[survey.curves["attack"] != "plg_mi"]  # the strongest kept nothing on the way
        assert planes.plane(points, survey.attacks, "portraits", tmp_path).path.is_file()
        ends = {line.get_label(): (line.get_xdata()[-1], line.get_ydata()[-1]) for line in drawn[0].get_lines()}
        rows = survey.attacks[survey.attacks["scenario"] == "portraits"].set_index(["attack", "metric"])["mean"]
        assert set(ends) == {"GMI", "PLG-MI", "BREP-MI", "RLB-MI", "PPA", "LOMMA"} - {"RLB-MI", "PPA"}  # no answer
        for name, attack in (("GMI", "gmi"), ("PLG-MI", "plg_mi")):
            assert ends[name] == pytest.approx((rows[attack, "knn_distance"], 100 * rows[attack, "agreement"]))

    def test_controls_that_share_a_line_say_their_range(self) -> None:
        metric = Quantity("top1", "first evaluator", "%", 1, 100)
        marks = figures._marks({"one_restart": 0.695, "best_restart": 0.712, "noise": 0.0}, metric, 0, 100)
        assert marks == [(0.0, "noise 0.0"), (pytest.approx(69.5), "one restart, best restart 69.5 to 71.2")]

    def test_heat_map_says_why_a_cell_is_empty(self, survey: build.Survey) -> None:
        plain = figures.headline_rows(survey.attacks, "portraits")
        rows = figures.headline_rows(survey.defenses, "portraits")
        metric = figures.quantity(plain)
        values, text = heat._grid(plain, rows[rows["attack"] != "strongest"], metric)
        shown = pd.DataFrame(text, index=values.index, columns=values.columns)
        assert shown.loc["no defense", "RLB-MI"] == "D"
        assert shown.loc["Confidence rounding 0.05", "PLG-MI"] == "–"
        assert values.loc["Confidence rounding 0.05", "PLG-MI"] == values.loc["no defense", "PLG-MI"]
        assert np.isnan(values.loc["BiDO (COCO and HSIC) 0.1", "PPA"])

    def test_front_keeps_what_nothing_beats(self) -> None:
        points = pd.DataFrame({"mean": [22, 20, 21, 15, 15], "utility": [0.9, 0.88, 0.85, 0.8, 0.7]})
        assert list(maps.front(points, higher_leaks=True)["mean"]) == [22, 20, 15]
        assert list(maps.front(points, higher_leaks=False)["mean"]) == [22]

    def test_many_defenses_get_a_panel_each(self, survey: build.Survey, tmp_path: Path) -> None:
        assert maps.each(survey.defenses, "portraits", tmp_path) is None
        assert maps.each(survey.defenses, "portraits", tmp_path, least=2).path.is_file()

    def test_naive_and_adaptive_are_set_against_each_other_where_both_are(
        self, survey: build.Survey, tmp_path: Path
    ) -> None:
        assert contrasts.knowing(survey.attacks, survey.defenses, "photos", tmp_path).path.is_file()
        assert contrasts.knowing(survey.attacks, survey.defenses, "portraits", tmp_path) is None

    def test_bytes_are_drawn_where_a_defense_changes_them(self, survey: build.Survey, tmp_path: Path) -> None:
        def drawn(sent: float) -> figures.Picture | None:
            frame = survey.frame.assign(utility_bytes_up=np.where(survey.frame["defense"] == "dgc", sent, 4000.0))
            return maps.traffic(frame, survey.attacks, survey.defenses, "photos", tmp_path)

        assert drawn(400.0).path.is_file()
        assert drawn(4000.0) is None
        assert maps.traffic(survey.frame, survey.attacks, survey.defenses, "photos", tmp_path) is None

    def test_a_track_at_once_needs_a_defense_in_two_scenarios(self, survey: build.Survey, tmp_path: Path) -> None:
        tables = survey.attacks, survey.defenses
        assert contrasts.overview(*tables, "federated", ["photos"], tmp_path) is None
        twice = [pd.concat([t, t[t["scenario"] == "photos"].assign(scenario="again")]) for t in tables]
        assert contrasts.overview(*twice, "federated", ["photos", "again"], tmp_path).path.is_file()
        shares = contrasts._shares(*tables, "photos").set_index(["defense", "strength"])
        row = survey.defenses.query("attack == 'strongest' and defense == 'dgc' and metric == 'psnr'").head(1)
        left = (row["mean"].iloc[0] - 12.5) / (row["undefended"].iloc[0] - 12.5)  # 12.5 dB: the mean image
        assert shares.loc[("dgc", 0.9), "share"] == pytest.approx(100 * left)
        assert shares.loc[("dgc", 0.9), "price"] == pytest.approx(5)


class TestGalleries:
    def test_rows_are_labelled_and_images_enlarged_by_whole_factors(self, tmp_path: Path) -> None:
        arrays = gallery(record("photos", "dlg", "none", 0.0, 0))
        galleries.save_gallery(tmp_path / "g.png", arrays)
        pixels = np.asarray(Image.open(tmp_path / "g.png"))
        assert pixels.shape == (3 * 64 + 2 * galleries.GAP, galleries.MARGIN + 4 * 64 + 3 * galleries.GAP, 3)
        first = pixels[:64, galleries.MARGIN : galleries.MARGIN + 64]
        assert (first[::4, ::4] == arrays["original"][0].transpose(1, 2, 0)).all()

    def test_a_sheet_holds_all_samples(self, tmp_path: Path) -> None:
        galleries.save_sheet(tmp_path / "s.png", np.ones((10, 1, 32, 32)), columns=4)
        assert Image.open(tmp_path / "s.png").size == (4 * 64 + 3 * galleries.GAP, 3 * 64 + 2 * galleries.GAP)
        with pytest.raises(ValueError, match=r"got shape \(3, 8\)"):
            galleries.save_sheet(tmp_path / "s.png", np.ones((3, 8)))

    def test_what_never_started_is_no_picture(self) -> None:
        rows = {"original": np.zeros((3, 3, 16, 16), np.uint8), "GMI": np.zeros((3, 3, 16, 16), np.uint8)}
        pixels = np.asarray(galleries.labelled(rows, unstarted={"GMI": np.array([0, 255, 0])}))
        tiles = [pixels[68:132, galleries.MARGIN + 68 * i :][:, :64] for i in range(3)]
        assert (tiles[1][0, 0] == galleries.BLANK).all()
        assert (tiles[1] < 100).any()  # words
        assert not tiles[0].any()
        assert not tiles[2].any()

    def test_a_long_label_has_room(self) -> None:
        narrow, wide = (galleries.labelled({label: np.zeros((1, 3, 64, 64), np.uint8)}).width
                        for label in ("original", "an attacker whose name is long"))
        assert wide > narrow == galleries.MARGIN + 64

    def test_a_defense_shows_the_attacker_of_the_table_and_names_it(
        self, survey: build.Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown: dict[str, dict] = {}
        monkeypatch.setattr(galleries, "labelled", lambda rows, limit, unstarted: rows)
        monkeypatch.setattr(galleries, "save", lambda path, rows: shown.update({path.stem: rows}))
        found = sheets._galleries(survey)
        list(sheets._defenses(survey, found, "photos", tmp_path))
        rows = shown["gallery-photos-dgc"]
        best = survey.defenses.query("scenario == 'photos' and attack == 'strongest' and headline and defense == 'dgc'")
        assert set(best["entry"]) == {"inverting_gradients_aware"}  # falls half as fast as the one that ignores it
        labels = [f"strength {s:g}\nInverting Gradients\n(aware), knows it" for s in best["strength"]]
        assert list(rows)[2:] == labels
        assert list(rows)[1].startswith("no defense\nInverting Gradients")
        pictures = found["photos", "inverting_gradients_aware", "dgc", 0.99]["reconstruction"]
        assert (rows[labels[1]] == pictures).all()
        for entry in ("inverting_gradients", "inverting_gradients_aware"):  # other originals than defended cells
            plain = found["photos", entry, "none", 0.0]
            found["photos", entry, "none", 0.0] = {**plain, "original": plain["original"] + 1}
        list(sheets._defenses(survey, found, "photos", tmp_path))
        assert list(shown["gallery-photos-dgc"])[1:] == ["no defense\nDLG", *labels]

    def test_priors_of_defended_targets_are_not_shown(self, tmp_path: Path) -> None:
        for place in ("portraits/gan", "targets/portraits/none/0/students", "targets/portraits/bido/0.1/students"):
            galleries.save_sheet(tmp_path / "priors" / place / "sheet.png", np.zeros((1, 1, 8, 8)))
        captions = [p.caption for p in sheets.priors(tmp_path)]
        assert captions == ["Samples of the prior gan, trained on portraits.",
                            "Samples of the prior students, trained for portraits."]


class TestWords:
    def test_no_number_is_no_zero(self) -> None:
        assert Quantity("psnr", "PSNR").show(float("nan")) == ""
        assert Quantity("psnr", "PSNR").span(1.0, float("nan")) == ""

    def test_unknown_names_are_shown_and_never_ranked(self) -> None:
        assert words.metric("brand_new").label == "brand new"
        assert words.metric("brand_new").direction == ""
        assert not words.better(2.0, 1.0, "")

    def test_every_published_metric_and_control_is_explained(self) -> None:
        root = Path(__file__).parents[2] / "results" / "published"
        tables = [pd.read_csv(path, low_memory=False) for path in root.glob("*/attacks.csv")]
        assert tables
        metrics = {name.partition("[")[0].removesuffix("_nonmembers") for t in tables for name in t["metric"]}
        controls = {c.removeprefix("control_") for t in tables for c in t.columns if c.startswith("control_")}
        assert sorted(m for m in metrics if not words.metric(m).note) == []
        assert sorted(c for c in controls if not words.note("controls", c)) == []

    def test_every_status_has_words(self) -> None:
        from inversionbench.core.records import STATUS

        assert set(STATUS) - {"ok"} <= set(words.words()["status"])


def test_a_row_without_all_its_attacks_says_so_and_gives_no_all_clear(survey: build.Survey) -> None:
    rows = glance.table(survey.attacks, survey.defenses).rows
    found = {(cells[0].text, cells[1].text): cells for _, cells in rows}
    assert found["portraits", words.label("levels", "WB")][2].text.endswith("(1 of 4 attacks missing: PPA)")
    assert "missing" not in found["portraits", "label only"][2].text
    guess = {"controls": {"mean_image": {"psnr": 30.0}}}
    cell = record("photos", "dlg", "none", 0.0, 0, folder="nowhere", timing={}, **guess)
    failed = record("photos", "inverting_gradients", "none", 0.0, 0, folder="nowhere", timing={},
                    **empty("failed", "attack: MemoryError"))
    for others, absent, said in (
        ([], {}, "no leak shown"),
        ([failed], {}, "1 of 2 attacks missing: Inverting Gradients"),
        ([], {("photos", "GR"): ["GGI", "R-GAP"]}, "2 of 3 attacks missing: GGI, R-GAP"),
    ):
        made = build.make([cell, *others], "smoke", unanswered=absent)
        cells = glance.table(made.attacks, made.defenses, {}, made.unanswered).rows[0][1]
        if absent or others:
            assert cells[2].text.endswith(f"({said})")
            assert cells[3].text == "not known"
        else:
            assert cells[3].text == said


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_missing_a_table_is_made_of_the_rest(seed: int) -> None:
    """Half of all cells at random, the undefended ones among them; a fifth of what is left failed."""
    rng = np.random.default_rng(seed)
    kept = [r for r in all_records() if rng.random() < 0.5]
    found = [{**r, **(empty("failed", "attack: broke") if rng.random() < 0.2 else {}), "folder": "nowhere",
              "timing": {}} for r in kept]
    made = build.make(found, "smoke", {"photos/dlg/none/0/0": "attack photos dlg none failed: out of memory"})
    text = report.markdown(made)
    assert "- photos/dlg/none/0/0: attack photos dlg none failed: out of memory" in text
    assert ("attack: broke" in text) == any(r["status"] == "failed" for r in found)
