"""The command line: where its options may stand, and what it says of wrong names and of steps out of order."""

from __future__ import annotations

from pathlib import Path

import pytest

from inversionbench.workflow import cli

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_scale_stands_before_the_command_or_behind_it(capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for words in (["--scale", "smoke", "check"], ["check", "--scale", "smoke"], ["check"]):
        assert cli.main(words) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert said[0].startswith("scale smoke:")
    assert said[2].startswith("scale laptop:")


@pytest.mark.parametrize(("words", "said"), [
    (["check", "--scale", "smok"], "no scale 'smok': did you mean 'smoke'?"),
    (["check", "--params", "nothing.yaml"], "no such file: nothing.yaml"),
    (["show", "gmmi"], "no method 'gmmi': did you mean 'gmi'?"),
    (["explain", "photo_convnet/dlg/none/0/0"], "no scenario 'photo_convnet'"),
    (["run", "photos_lenet/dlg/none/0/5"], "no seed '5'"),
    (["attack", "photos_lenet/dlgg/none"], "did you mean 'photos_lenet/dlg/none'?"),
    (["evaluate", "photos_lenet/dlgg"], "did you mean 'photos_lenet/dlg'?"),
    (["prepare", "photo"], "no entry of datasets 'photo': did you mean 'photos'?"),
    (["train-target", "photos_lenett", "none", "0"], "did you mean 'photos_lenet'?"),
    (["train-target", "photos_lenet", "dgk", "0.9"], "did you mean 'dgc'?"),
    (["train-evaluator", "faces"], "did you mean 'faces_judges'?"),
    (["train-prior", "faces", "dcgn"], "did you mean 'dcgan'?"),
])  # fmt: skip
def test_a_wrong_name_gets_the_nearest(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_a_step_before_its_time_says_which_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text().replace("results: results", f"results: {tmp_path}"))
    for words in (["train-target", "photos_lenet", "none", "0"], ["attack", "photos_lenet/dlg/none"]):
        assert cli.main([*words, "--params", str(params)]) == 2
        assert "`inversionbench prepare photos` makes it" in capsys.readouterr().err
