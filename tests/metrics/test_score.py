"""`inversionbench score`: what it reads, prints and refuses."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from inversionbench.core.errors import UserError
from inversionbench.metrics._read import read
from inversionbench.metrics.cli import add_commands


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args(["score", *map(str, words)])
    return args.func(args)


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(6, 16, 16, 3), dtype=np.uint8)


def save(folder, name: str, array: np.ndarray):
    np.save(folder / name, array)
    return folder / name


def test_json_has_scores_controls_and_directions(tmp_path, truth, capsys):
    noisy = truth / 255 + 0.1 * np.random.default_rng(1).normal(size=truth.shape)
    np.savez(tmp_path / "r.npz", x=noisy.transpose(0, 3, 1, 2), other=np.zeros(3))
    assert run(save(tmp_path, "t.npy", truth), tmp_path / "r.npz", "--json", "--metrics", "psnr,ssim,rdlv,iip") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"]["psnr"]["mean"] == pytest.approx(20.5, abs=1)
    assert result["metrics"]["psnr"]["more_leakage"] == "higher"
    assert result["metrics"]["iip"]["mean"] == 1
    assert result["metrics"]["iip"]["low"] == pytest.approx(0.61, abs=0.01)  # 6 of 6
    assert result["controls"]["identical"]["psnr"] == 60
    assert result["controls"]["uniform_noise"]["psnr"] < 9
    assert 0 < result["clipped"] < 0.5
    assert result["shape"] == [3, 16, 16]


def test_table_names_what_a_reader_needs(tmp_path, truth, capsys):
    guess = (truth[::-1] / 255).copy()
    guess[2, 0, 0, 0] = np.nan
    args = save(tmp_path, "t.npy", truth), save(tmp_path, "r.npy", guess), "--match", "--weights", tmp_path
    assert run(*args, "--metrics", "mse,psnr,lpips,fid") == 0
    out = capsys.readouterr().out
    head, mse_row, psnr_row, *_ = out.splitlines()
    assert head.split()[:4] == ["metric", "more", "leakage", "mean"]
    assert head.split()[-4:] == ["mean_image", "random_image", "uniform_noise", "identical"]
    assert mse_row.split()[:2] == ["mse", "lower"]
    assert psnr_row.split()[-1] == "60"
    assert "6 images of 3 x 16 x 16, matched by MSE" in out
    assert "1 reconstructions were not finite" in out
    assert "5 images reach the PSNR cap" in out
    assert "lpips: unavailable" in out
    assert "fid: unavailable" in out


def test_one_image_has_neither_interval_nor_controls(tmp_path, truth, capsys):
    path = save(tmp_path, "t.npy", truth[:1])
    assert run(path, path) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["mse", "lower", "0", "-", "0", "1"]
    assert run(path, path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["mse"]["low"] is None


def pictures(folder, names, arrays):
    folder.mkdir()
    for name, array in zip(names, arrays):
        Image.fromarray(array).save(folder / f"{name}.png")
    return folder


def test_folders_are_paired_by_name(tmp_path, truth, capsys):
    t = pictures(tmp_path / "t", "abcdef", truth)
    r = pictures(tmp_path / "r", "fedcba", truth[::-1])
    assert run(t, r, "--metrics", "psnr", "--json") == 0
    assert json.loads(capsys.readouterr().out)["capped"] == 6
    shuffled = pictures(tmp_path / "s", "uvwxyz", truth[::-1])
    with pytest.raises(UserError, match="12 names differ"):
        run(t, shuffled)
    assert run(t, shuffled, "--match", "--metrics", "psnr", "--json") == 0
    assert json.loads(capsys.readouterr().out)["capped"] == 6


def test_batches_are_matched_apart(tmp_path, truth, capsys):
    t = save(tmp_path, "t.npy", truth)
    inside, across = save(tmp_path, "i.npy", truth[[1, 0, 3, 2, 5, 4]]), save(tmp_path, "a.npy", truth[::-1].copy())
    assert run(t, inside, "--batch", 2, "--metrics", "psnr", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["capped"], result["metrics"]["psnr"]["targets"]) == (6, 3)
    assert run(t, across, "--batch", 2, "--metrics", "psnr") == 0
    out = capsys.readouterr().out
    assert "matched by MSE within batches of 2" in out
    assert "2 images reach the PSNR cap" in out  # only the middle batch holds its own images
    with pytest.raises(UserError, match="--batch: expected a number"):
        run(t, inside, "--batch", 0)


def test_grey_pictures_beside_coloured_ones(tmp_path, truth, capsys):
    grey = truth[..., :1].repeat(3, axis=3)
    t, r = pictures(tmp_path / "t", "abcdef", grey[..., 0]), pictures(tmp_path / "r", "abcdef", grey)
    assert read(t)[0].shape == (6, 1, 16, 16)
    assert run(t, r, "--metrics", "psnr", "--json") == 0
    assert json.loads(capsys.readouterr().out)["capped"] == 6


def test_layouts(tmp_path, truth):
    first = read(save(tmp_path, "first.npy", truth.transpose(0, 3, 1, 2)))[0]
    last = read(save(tmp_path, "last.npy", truth))[0]
    assert np.array_equal(first, last)
    assert first.dtype == np.float32
    assert first.max() <= 1
    assert read(save(tmp_path, "grey.npy", truth[..., 0]))[0].shape == (6, 1, 16, 16)
    narrow = save(tmp_path, "narrow.npy", np.zeros((2, 3, 16, 3), np.uint8))
    with pytest.raises(UserError, match="second or its last axis; say --layout"):
        read(narrow)
    assert read(narrow, "nchw")[0].shape == (2, 3, 16, 3)
    assert read(narrow, "nhwc")[0].shape == (2, 3, 3, 16)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 5, 9, 9)), "no axis has length 1 or 3"),
        (np.zeros((2, 5)), "expected \\(n, channels"),
        (np.zeros((2, 3, 9, 9), np.int64), "int64"),
        (np.zeros((0, 3, 9, 9)), "all positive"),
        (np.array([{"a": 1}], dtype=object), "plain numbers"),
        (np.full((2, 3, 9, 9), 255.0), "must lie in"),
        (np.full((2, 3, 9, 9), np.nan), "NaN"),
    ],
)
def test_bad_truth_is_refused(tmp_path, array, words):
    good = save(tmp_path, "r.npy", np.zeros((2, 3, 9, 9)))
    with pytest.raises(UserError, match=words):
        run(save(tmp_path, "t.npy", array), good)


def test_bad_files_are_refused(tmp_path, truth):
    good = save(tmp_path, "t.npy", truth)
    np.savez(tmp_path / "two.npz", a=truth, b=truth)
    (tmp_path / "cut.npy").write_bytes(good.read_bytes()[:200])
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 nothing")
    (tmp_path / "empty").mkdir()
    for name, words in {
        "two.npz": "one named 'x'; it holds a, b",
        "cut.npy": "no readable array",
        "cut.npz": "no readable array",
        "empty": "holds no pictures",
        "absent.npy": "not found",
    }.items():
        with pytest.raises(UserError, match=words):
            run(good, tmp_path / name)
    with pytest.raises(UserError, match=r"holds images \(6, 3, 16, 16\), .* \(4, 3, 16, 16\)"):
        run(good, save(tmp_path, "less.npy", truth[:4]))


def test_pictures_of_two_sizes_or_one_name_are_refused(tmp_path, truth):
    folder = pictures(tmp_path / "t", "ab", [truth[0], truth[1][:8]])
    with pytest.raises(UserError, match="must have one size"):
        read(folder)
    Image.fromarray(truth[0]).save(folder / "b.png")
    Image.fromarray(truth[0]).save(folder / "b.jpg")
    with pytest.raises(UserError, match="two pictures named 'b'"):
        read(folder)


def test_pictures_of_16_bits_are_refused(tmp_path):
    (tmp_path / "t").mkdir()
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "t" / "a.png")
    with pytest.raises(UserError, match="more than 8 bits"):
        read(tmp_path / "t")


def test_unknown_metric_names_the_nearest(tmp_path, truth):
    path = save(tmp_path, "t.npy", truth)
    with pytest.raises(UserError, match="unknown metric 'sim': did you mean 'ssim'"):
        run(path, path, "--metrics", "psnr,sim")
    with pytest.raises(UserError, match="names no metric"):
        run(path, path, "--metrics", ",")


def test_imports_stay_cheap():
    """The command line parses without torch; the three pixel metrics need nothing but torch."""
    script = """
import sys
import inversionbench.metrics.cli
from inversionbench.metrics import interval
print("torch" in sys.modules)
from inversionbench.metrics import pairwise
import torch
pairwise(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16))
heavy = "piq torchvision torchmetrics lpips sklearn skimage scipy pandas PIL matplotlib".split()
print(",".join(name for name in heavy if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", ""]
