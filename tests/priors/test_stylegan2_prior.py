"""The prior from official weights: framed to the data set, and plain about a file that is not there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inversionbench.core.errors import UserError
from inversionbench.data.base import Part
from inversionbench.models import _stylegan2
from inversionbench.models.style import StyleGenerator
from inversionbench.priors.stylegan2 import Stylegan2, framed

PUBLIC = Part(np.zeros((3, 3, 16, 16), np.uint8), np.full(3, -1))


def test_a_missing_or_wrong_file_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("INVERSIONBENCH_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"stylegan2/ffhq.pkl: no such file.*INVERSIONBENCH_DATA"):
        Stylegan2().train(PUBLIC, torch.Generator(), iter)
    (tmp_path / "w.pkl").write_bytes(b"x")
    with pytest.raises(UserError, match="sha256"):
        Stylegan2(weights="w.pkl", sha256="0" * 64).file()


def test_images_are_cut_and_shrunk_and_inner_blocks_are_not(tmp_path, monkeypatch):
    torch.manual_seed(0)
    net = StyleGenerator(8, 8, (6, 6, 4, 4), 3, 32).eval()
    monkeypatch.setattr(_stylegan2, "read", lambda path: {})
    monkeypatch.setattr(_stylegan2, "generator", lambda weights: net)
    (tmp_path / "w.pkl").write_bytes(b"x")
    recipe = Stylegan2(weights=str(tmp_path / "w.pkl"), crop=24)
    prior = recipe.load(recipe.train(PUBLIC, torch.Generator().manual_seed(0), iter))
    z = prior.sample(2, torch.Generator().manual_seed(1))
    with torch.no_grad():
        ws = net.mapping(z)
        whole = net.synthesis(ws)
        assert torch.allclose(prior.style.synthesis(ws), framed(whole, 24, 16), atol=1e-5)
        x, img = prior.style.run_blocks(ws, 0, 2)
        assert torch.allclose(img, net.run_blocks(ws, 0, 2)[1], atol=1e-5)
        assert torch.allclose(prior.style.run_blocks(ws, 2, 4, x, img)[1], prior.style.synthesis(ws), atol=1e-5)
        assert prior.generator(z).shape == (2, 3, 16, 16)
    assert prior.p_std.min() > 0
    with pytest.raises(UserError, match="crop"):
        Stylegan2(weights=str(tmp_path / "w.pkl"), crop=40).train(PUBLIC, torch.Generator(), iter)


def test_framing_keeps_the_centre():
    img = torch.zeros(1, 1, 8, 8)
    img[..., 2:6, 2:6] = 1
    assert (framed(img, 4, 4) == 1).all()
    assert framed(img, 0, 4).mean() == pytest.approx(0.25, abs=0.02)
