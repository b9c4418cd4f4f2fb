"""The one call that scores reconstructions: order of work, failures, clipping, chunks, records."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from inversionbench.core.errors import UserError
from inversionbench.metrics import Unavailable, pairwise
from inversionbench.metrics.mse import mse


def images(n: int, seed: int = 0, channels: int = 1, side: int = 16) -> torch.Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed))


def test_values_do_not_depend_on_the_chunk():
    x, y = images(7), images(7, seed=1)
    whole, parts = pairwise(x, y), pairwise(x, y, chunk=3)
    assert set(whole.values) == {"mse", "psnr", "ssim"}
    for name in whole.values:
        np.testing.assert_allclose(whole.values[name], parts.values[name], rtol=1e-12)
        assert whole.values[name].dtype == np.float64
    assert (whole.permutation, whole.failures, whole.clipped, len(whole)) == (None, 0, 0.0, 7)


def test_reconstructions_are_clamped_and_the_share_is_recorded():
    x = torch.ones(2, 1, 4, 4)
    y = x.clone()
    y[0, 0, 0, :2] = 5.0
    y[1, 0, 0, 0] = -3.0
    scores = pairwise(x, y, ["mse"])
    assert scores.clipped == 3 / 32
    np.testing.assert_allclose(scores.values["mse"], [0, 1 / 16])


def test_failures_score_like_uniform_noise_and_are_counted():
    x = images(64, side=32)
    y = x.clone()
    y[3, 0, 0, 0] = float("nan")
    y[40, 0, 5, 5] = -float("inf")
    scores = pairwise(x, y)
    assert scores.failures == 2
    assert np.flatnonzero(scores.failed).tolist() == [3, 40]
    assert scores.capped == 62
    np.testing.assert_allclose(scores.values["mse"][[3, 40]], 1 / 6, rtol=0.1)
    again = pairwise(x, y, chunk=5)
    np.testing.assert_allclose(again.values["ssim"], scores.values["ssim"], rtol=1e-12)
    assert pairwise(x, y, seed=1).values["mse"][3] != scores.values["mse"][3]


def test_one_permutation_serves_every_metric_and_carries_the_failures_along():
    x = images(6)
    order = torch.tensor([4, 0, 5, 1, 3, 2])
    y = x[order].clone()
    y[2] = float("nan")  # the reconstruction of image 5
    scores = pairwise(x, y, match=True)
    assert np.flatnonzero(scores.failed).tolist() == [5]
    assert scores.capped == 5
    assert torch.equal(order[scores.permutation], torch.arange(6))
    direct = mse(x[:5], y[scores.permutation][:5])
    np.testing.assert_array_equal(scores.values["mse"][:5], direct.numpy())


def test_groups_keep_batches_apart():
    x = images(4)
    scores = pairwise(x, x[[1, 0, 3, 2]], match=True, groups=[0, 0, 1, 1])
    assert scores.permutation.tolist() == [1, 0, 3, 2]
    crossed = pairwise(x, x[[2, 3, 0, 1]], match=True, groups=[0, 0, 1, 1])
    assert crossed.capped == 0


def test_what_lacks_its_input_is_unavailable_with_the_reason():
    x = images(3, side=8)
    scores = pairwise(x, x, ["mse", "ssim", "rdlv", "iip", "lpips_like"])
    assert set(scores.values) == {"mse"}
    assert isinstance(scores["ssim"], Unavailable)
    assert "ssim needs images of at least 11 x 11 pixels, got 8 x 8" in scores["ssim"].reason
    larger = pairwise(images(3), images(3), ["rdlv", "iip", "lpips_like"])
    assert not larger.values
    assert "prior" in larger["rdlv"].reason
    assert "pool" in larger["iip"].reason
    assert "evaluator" in larger["lpips_like"].reason


def test_record_is_plain_json():
    x = images(4)
    y = images(4, seed=1)
    y[0] = float("nan")
    record = pairwise(x, y, ["psnr", "ssim", "rdlv"], match=True).record(per_image=True)
    text = json.dumps(record, allow_nan=False)
    assert json.loads(text)["metrics"]["psnr"]["n"] == 4
    assert record["metrics"]["rdlv"]["unavailable"]
    assert (record["failures"], record["matched"], len(record["values"]["ssim"])) == (1, True, 4)


def test_arrays_of_any_layout_are_read():
    x = np.random.default_rng(0).random((3, 16, 16, 1)).transpose(0, 3, 1, 2)
    x.flags.writeable = False
    assert pairwise(x, x[::-1].copy()).values["mse"].shape == (3,)
    assert pairwise(x, x).capped == 3


@pytest.mark.parametrize(
    ("truth", "reconstruction", "words"),
    [
        (images(2), images(3), "one shape"),
        (images(0), images(0), "n > 0"),
        (images(2) * 255, images(2), r"truth must lie in \[0, 1\]"),
        (images(2) * float("nan"), images(2), "truth holds NaN"),
        ((images(2) * 255).byte(), images(2), "uint8"),
        (images(2), (images(2) * 255).byte().numpy(), "uint8"),
        (images(2)[0], images(2)[0], "channels, height, width"),
    ],
)
def test_bad_input_is_refused(truth, reconstruction, words):
    with pytest.raises(UserError, match=words):
        pairwise(truth, reconstruction)


def test_unknown_metric_names_the_nearest():
    with pytest.raises(UserError, match="unknown metric 'snr': did you mean 'psnr'"):
        pairwise(images(2), images(2), ["snr"])


OWN = '''"""Share of pixels that differ by more than a step of an 8-bit image."""
from inversionbench.metrics.base import Spec

SPEC = Spec("pixels_off", "pixels off", unit="%", digits=0, factor=100, direction="lower", kind="pair",
            note="share of pixels that differ")


def pixels_off(truth, reconstruction):
    return ((truth - reconstruction).abs() > 1 / 255).double().mean((1, 2, 3))
'''


def test_a_metric_of_ones_own_is_one_file(tmp_path, capsys):
    """Found in a plug-in: scored, asked for by a scenario, and named in tables, with nothing else written."""
    from inversionbench.core import registry
    from inversionbench.survey import words
    from inversionbench.tracks import get_track
    from inversionbench.workflow.cli import main

    (folder := tmp_path / "own_metrics" / "metrics").mkdir(parents=True)
    (folder / "pixels_off.py").write_text(OWN)
    x = torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.where(torch.arange(12) < 3, 1 - x, x)
    try:
        registry.use([str(folder.parent)])
        off = pairwise(x, y, ("pixels_off",)).values["pixels_off"]
        assert off == pytest.approx([0.25] * 3, abs=0.02)
        shown = words.metric("pixels_off")
        assert (shown.title, shown.show(0.25), shown.direction) == ("pixels off (%)", "25", "lower")
        assert "pixels_off" in get_track("federated").further()
        for name, images in (("x", x), ("y", y)):
            np.save(tmp_path / name, images.numpy())
        assert main(["score", str(tmp_path / "x.npy"), str(tmp_path / "y.npy"), "--metrics", "pixels_off"]) == 0
        assert "pixels_off" in capsys.readouterr().out
    finally:
        registry.use([])
