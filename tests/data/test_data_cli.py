"""`inversionbench data`: what it prints, its exit status, and that it starts without torch."""

import argparse
import subprocess
import sys

import official_layouts as make
import pytest
from official_layouts import built

from inversionbench.core import registry
from inversionbench.core.errors import UserError
from inversionbench.data import sources
from inversionbench.data.base import load
from inversionbench.data.cli import add_commands


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Arguments -> (exit status, what was printed); the data root has small MNIST files."""
    built("mnist", make.idx_set, tmp_path / "root", monkeypatch)
    monkeypatch.setenv(sources.ROOT_VARIABLE, str(tmp_path / "root"))

    def call(*words):
        parser = argparse.ArgumentParser()
        add_commands(parser.add_subparsers())
        args = parser.parse_args(["data", *map(str, words)])
        return args.func(args), capsys.readouterr().out

    return call


def test_list(run, tmp_path):
    status, text = run("list")
    lines = {line.split()[0]: line for line in text.splitlines()[1:]}
    assert status == 0
    assert set(lines) == set(registry.methods("dataset"))
    assert not any(line.split()[2] == "-" for line in lines.values())  # every set says what its classes are
    assert "present" in lines["mnist"]
    assert "missing" in lines["celeba"]
    assert "non-commercial" in lines["celeba"]
    assert "embedded" in lines["photos"]
    assert "present" not in run("list", "--root", tmp_path)[1]


def test_show(run, tmp_path):
    status, text = run("show", "mnist")
    assert status == 0
    for part in ("LeCun", "private_classes: tuple[Whole, ...] = (0, 1, 2, 3, 4)", "state: present", str(tmp_path)):
        assert part in text
    assert "state: missing" in run("show", "celeba")[1]
    assert "md5 00d2c5bc6d35e252742224ab0c1e8fcb" in run("show", "celeba")[1]
    assert "it is embedded" in run("show", "photos")[1]
    with pytest.raises(UserError, match="did you mean 'mnist'"):
        run("show", "mnits")


def test_check(run, tmp_path):
    status, text = run("check", "mnist")
    assert status == 0
    assert "all files of MNIST are right" in text
    status, text = run("check", "celeba")
    assert status == 1
    assert "identity_CelebA.txt" in text
    path = tmp_path / "root" / "mnist" / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match="cannot be unpacked"):
        run("check", "mnist")


def test_prepare_and_combine(run, tmp_path):
    options = ["--option", "private_classes=[1, 2]", "--option", "private=4", "--option", "protocol=classes"]
    status, text = run("prepare", "mnist", *options, "--seed", 3, "--out", tmp_path / "a")
    assert status == 0
    data = load(tmp_path / "a")
    assert data.digest in text
    assert data.meta["options"]["private_classes"] == [1, 2]
    assert (data.meta["seed"], len(data.private)) == (3, 4)
    run("prepare", "mnist", "--out", tmp_path / "b")
    assert run("combine", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c")[0] == 0
    assert load(tmp_path / "c").meta["public_from"]["digest"] == load(tmp_path / "b").digest
    for bad in ("private", "=3", "private=[1"):
        with pytest.raises(UserError, match="--option"):
            run("prepare", "mnist", "--option", bad, "--out", tmp_path / "d")
    with pytest.raises(UserError, match="expected a whole number"):
        run("prepare", "mnist", "--option", "private=many", "--out", tmp_path / "d")
    with pytest.raises(sources.MissingData, match="What to do"):
        run("prepare", "celeba", "--out", tmp_path / "d")


def test_starts_without_torch():
    code = (
        "import argparse, sys; from inversionbench.data.cli import add_commands; "
        "p = argparse.ArgumentParser(); add_commands(p.add_subparsers()); "
        "a = p.parse_args(['data', 'list']); a.func(a); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'sklearn', 'pandas', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
