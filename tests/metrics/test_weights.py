"""Pretrained weights: verified before use, never fetched, and the metrics that need them without them."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch

from inversionbench.core.errors import UserError
from inversionbench.metrics import Unavailable, _weights, fid, lpips, lpips_like, pairwise
from inversionbench.metrics.fid import frechet


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Any attempt to reach something outside fails the test."""

    def refuse(*args, **kwargs):
        raise AssertionError("a metric tried to use the network")

    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def declare(monkeypatch, folder, name: str, state) -> None:
    """Put a state under the declared file name and let the table expect its hash."""
    weight = _weights.WEIGHTS[name]
    torch.save(state, folder / weight.file)
    digest = hashlib.sha256((folder / weight.file).read_bytes()).hexdigest()
    monkeypatch.setitem(_weights.WEIGHTS, name, replace(weight, sha256=digest[:8]))


def backbone(net: str) -> dict[str, torch.Tensor]:
    """Random weights with the names of the real file; of AlexNet only the part that LPIPS reads."""
    from torchvision import models

    torch.manual_seed(0)
    if net == "vgg":  # not the three large layers behind the features
        model = torch.nn.Module()
        model.features = models.vgg.make_layers(models.vgg.cfgs["D"])
    else:
        model = {"squeeze": models.squeezenet1_1, "alex": models.alexnet}[net]()
    return {k: v for k, v in model.state_dict().items() if k.startswith("features.")}


def images(n: int, side: int = 32, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_missing_weights_make_lpips_unavailable(tmp_path, net):
    value = lpips.lpips(images(2), images(2), net=net, weights=tmp_path)
    assert isinstance(value, Unavailable)
    assert _weights.WEIGHTS[net].file in value.reason
    assert "not found in" in value.reason
    scores = pairwise(images(2), images(2), ["mse", "lpips"], weights=tmp_path, net=net)
    assert "not found" in scores["lpips"].reason
    assert set(scores.values) == {"mse"}


def test_missing_weights_make_fid_unavailable(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    value = fid.fid(images(3), images(3))
    assert isinstance(value, Unavailable)
    assert "pt_inception" in value.reason
    assert "not found in TORCH_HOME/hub/checkpoints" in value.reason
    assert str(tmp_path) not in value.reason  # reasons are published


def test_a_file_with_another_hash_is_refused(tmp_path):
    (tmp_path / _weights.WEIGHTS["squeeze"].file).write_bytes(b"random weights under the right name")
    value = lpips.lpips(images(2), images(2), net="squeeze", weights=tmp_path)
    assert isinstance(value, Unavailable)
    assert "expected b8a52dc0" in value.reason


def test_a_changed_file_is_hashed_again(tmp_path, monkeypatch):
    path = tmp_path / _weights.WEIGHTS["alex"].file
    path.write_bytes(b"one")
    monkeypatch.setitem(
        _weights.WEIGHTS, "alex", replace(_weights.WEIGHTS["alex"], sha256=hashlib.sha256(b"one").hexdigest())
    )
    assert _weights.verified("alex", tmp_path) == path
    path.write_bytes(b"other")
    assert isinstance(_weights.verified("alex", tmp_path), Unavailable)


@pytest.mark.parametrize("net", ["squeeze", "alex"])
def test_verified_weights_are_loaded_into_the_package_metric(tmp_path, monkeypatch, net):
    """The same number as the package gives when it loads the same file itself."""
    state = backbone(net)
    declare(monkeypatch, tmp_path, net, state)
    x, y = images(3, side=64), images(3, side=64, seed=1)
    ours = lpips.lpips(x, y, net=net, weights=tmp_path)
    assert ours.shape == (3,)
    assert ours.dtype == torch.float64
    assert (ours > 0).all()
    assert (lpips.lpips(x, x, net=net, weights=tmp_path) == 0).all()
    np.testing.assert_allclose(lpips.lpips(y, x, net=net, weights=tmp_path), ours, rtol=1e-5)

    import lpips as package
    from torchvision import models

    name = {"squeeze": "squeezenet1_1", "alex": "alexnet"}[net]
    model = getattr(models, name)()
    model.load_state_dict(state, strict=False)
    with monkeypatch.context() as patched:
        patched.setattr(models, name, lambda **kwargs: model)
        direct = package.LPIPS(net=net, verbose=False)
    theirs = direct(x, y, normalize=True).flatten().detach()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("net", ["squeeze", "vgg"])
def test_lpips_agrees_with_torchmetrics(tmp_path, monkeypatch, net):
    from torchmetrics.functional.image.lpips import _LPIPS

    state = backbone(net)
    declare(monkeypatch, tmp_path, net, state)
    theirs = _LPIPS(pretrained=True, net=net, pnet_rand=True).eval()
    names = {key: key.split(".", 2 if key.startswith("slices.") else 1)[-1] for key in theirs.net.state_dict()}
    theirs.net.load_state_dict({key: state[f"features.{name}"] for key, name in names.items()})
    x, y = images(2, side=64), images(2, side=64, seed=1)
    ours = lpips.lpips(x, y, net=net, weights=tmp_path)
    with torch.no_grad():
        np.testing.assert_allclose(ours, theirs(x, y, normalize=True).flatten(), atol=1e-6)
    assert (lpips.lpips(x, x, net=net, weights=tmp_path) == 0).all()


def test_small_and_grey_images_are_resized_and_repeated(tmp_path, monkeypatch):
    declare(monkeypatch, tmp_path, "squeeze", backbone("squeeze"))
    x, y = images(2, side=28, channels=1), images(2, side=28, channels=1, seed=1)
    large = [torch.nn.functional.interpolate(v, size=(64, 64), mode="bilinear").expand(-1, 3, -1, -1) for v in (x, y)]
    ours = lpips.lpips(x, y, net="squeeze", weights=tmp_path)
    np.testing.assert_allclose(ours, lpips.lpips(*large, net="squeeze", weights=tmp_path), rtol=1e-5)
    scores = pairwise(x, y, ["lpips"], weights=tmp_path, net="squeeze")
    np.testing.assert_allclose(scores.values["lpips"], ours, rtol=1e-5)
    digest = _weights.sha256(tmp_path / _weights.WEIGHTS["squeeze"].file)
    assert scores.notes == {"lpips_net": "squeeze", "lpips_size": 64, "lpips_weights_sha256": digest}
    with pytest.raises(UserError, match="1 or 3 channels"):
        lpips.lpips(images(2, channels=2), images(2, channels=2), net="squeeze", weights=tmp_path)


def test_heads_of_the_package_are_the_published_ones():
    import lpips as package

    folder = lpips.Path(package.__file__).parent / "weights" / "v0.1"
    for net, start in {"alex": "df73285e", "squeeze": "4a5350f2", "vgg": "a78928a0"}.items():
        assert _weights.sha256(folder / f"{net}.pth").startswith(start)


def test_inception_with_verified_weights_gives_fid(tmp_path, monkeypatch):
    from pytorch_fid import inception
    from torchvision.models import Inception3

    torch.manual_seed(0)
    with monkeypatch.context() as patched:
        patched.setattr(inception, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patched.setattr(Inception3, "load_state_dict", lambda self, state: None)
        model = inception.fid_inception_v3()
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    declare(monkeypatch, tmp_path, "inception", state)
    x, y = images(2, channels=1), images(2, channels=1, seed=1)
    value = fid.fid(x, y, weights=tmp_path, chunk=2)
    assert isinstance(value, float)
    assert value > 0
    network = fid.load(tmp_path)
    with torch.no_grad():
        features = [network(v.expand(-1, 3, -1, -1))[0].flatten(1) for v in (x, y)]
    assert features[0].shape == (2, 2048)
    assert value == pytest.approx(frechet(*features), rel=1e-4)


def test_unknown_net_names_the_nearest():
    with pytest.raises(UserError, match="unknown net 'alexnet': did you mean 'alex'"):
        lpips.lpips(images(1), images(1), net="alexnet")


def test_lpips_like_is_the_formula_on_given_maps():
    def features(x):
        assert x.dtype == torch.float32
        return [x * 2, torch.nn.functional.avg_pool2d(x, 2).relu()]

    x, y = images(3), images(3, seed=1)
    expected = torch.zeros(3, dtype=torch.float64)
    for a, b in zip(features(x), features(y)):
        for i in range(3):
            gap = 0.0
            for h in range(a.shape[2]):
                for w in range(a.shape[3]):
                    u, v = a[i, :, h, w].double(), b[i, :, h, w].double()
                    gap += ((u / u.norm() - v / v.norm()) ** 2).sum().item()
            expected[i] += gap / (a.shape[2] * a.shape[3])
    np.testing.assert_allclose(lpips_like(x, y, features), expected, rtol=1e-6)
    assert (lpips_like(x, x, features) == 0).all()
    features.name = "resnet"
    assert list(pairwise(x, y, ["lpips_like"], features=features).values) == ["lpips_like[resnet]"]


@pytest.mark.parametrize("bad", [lambda x: x, lambda x: [], lambda x: [x[:1]], lambda x: [x.flatten(1)]])
def test_lpips_like_refuses_what_is_no_list_of_maps(bad):
    with pytest.raises(UserError, match="lpips_like: features must return a list of maps"):
        lpips_like(images(2), images(2), bad)
    with pytest.raises(UserError, match="NaN"):
        lpips_like(images(2), images(2), lambda x: [x * float("nan")])
