"""The style-based prior: the interface that attacks search, and its training, at 16 pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from inversionbench.data.base import Part
from inversionbench.models.style import Modulated, StyleGenerator, upsample
from inversionbench.priors.style import Style, _StyleRun

TINY = Style(z_dim=8, w_dim=8, channels=(12, 12, 8), loss="hinge", r1=0.0, steps=6, batch=8, critic_rate=8e-4,
             critic_width=4, half_life=100, measure=3)  # fmt: skip


def plain(it, **_):
    return it


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def public():
    """Smooth two-coloured images with a bright square."""
    rng = np.random.default_rng(0)
    ends = rng.integers(0, 200, (160, 2, 3, 1, 1))
    ramp = np.linspace(0, 1, 16)[None, None, :, None]
    x = ends[:, 0] * ramp + ends[:, 1] * (1 - ramp) + np.zeros((1, 1, 1, 16))
    for image, (r, c) in zip(x, rng.integers(2, 9, (160, 2))):
        image[:, r : r + 5, c : c + 5] = 250
    return Part(x.astype(np.uint8), np.zeros(160, dtype=np.int64))


@pytest.fixture(scope="module")
def net():
    """An untrained generator with noise switched on and statistics set."""
    torch.manual_seed(3)
    made = StyleGenerator(8, 8, (12, 12, 8), 3, 16)
    with torch.no_grad():
        for block in made.blocks:
            for layer in block.layers:
                layer.strength.fill_(0.3)
        made.w_mean.copy_(made.style(torch.randn(500, 8)).mean(0))
    return made.requires_grad_(False)


@pytest.fixture(scope="module")
def ws(net):
    return net.mapping(torch.randn(6, 8, generator=gen(1)))


def test_sizes_are_those_of_the_published_layout():
    for side, blocks, layers in ((32, 4, 8), (64, 5, 10)):
        made = StyleGenerator(4, 4, (4,) * blocks, 3, side)
        assert (made.n_blocks, made.num_ws, len(made.noises)) == (blocks, layers, 2 * blocks - 1)
        assert made.block_resolutions == [4 << i for i in range(blocks)]
    with pytest.raises(ValueError, match="32 pixels need 4 blocks"):
        StyleGenerator(4, 4, (4, 4), 3, 32)


def test_blocks_compose_to_synthesis(net, ws):
    whole = net.synthesis(ws)
    assert whole.shape == (6, 3, 16, 16)
    for i, shape in enumerate(net.feature_shapes, start=1):
        x, img = net.run_blocks(ws, 0, i)
        assert x.shape[1:] == shape
        assert torch.equal(net.run_blocks(ws, i, net.n_blocks, x, img)[1], whole)
        dropped = net.run_blocks(ws, i, net.n_blocks, x)[1]
        size = net.resolution // img.shape[-1]
        for _ in range(size.bit_length() - 1):
            img = upsample(img)
        assert torch.allclose(dropped, whole - img, atol=1e-5)  # without the state, exactly its colours are gone
    with pytest.raises(ValueError, match="x where start > 0"):
        net.run_blocks(ws, 1, net.n_blocks)


def test_gradients_reach_styles_features_and_noise(net, ws):
    x, img = net.run_blocks(ws, 0, 1)
    parts = [t.clone().requires_grad_() for t in (ws, x, *net.noises)]
    out = net.run_blocks(parts[0], 1, net.n_blocks, parts[1], img, parts[2:])[1]
    found = torch.autograd.grad(out.square().sum(), parts, allow_unused=True)
    assert found[2] is None  # the map of block 0, which was not run
    assert all(g.abs().sum() > 0 for i, g in enumerate(found) if i != 2)
    used = found[0].abs().sum((0, 2)) > 0
    assert used.tolist() == [False, *[True] * (net.num_ws - 1)]  # block 1 starts at the second w


def test_noise_modes(net, ws):
    assert torch.equal(net.synthesis(ws), net.synthesis(ws))
    assert not torch.equal(net.synthesis(ws, "random", gen()), net.synthesis(ws))
    assert torch.equal(net.synthesis(ws, "random", gen()), net.synthesis(ws, "random", gen()))
    zeros = [torch.zeros_like(n) for n in net.noises]
    silent = net.run_blocks(ws, 0, net.n_blocks, noises=zeros)[1]
    assert torch.equal(net.synthesis(ws, "none"), silent)
    with pytest.raises(ValueError, match="noise_mode"):
        net.synthesis(ws, "constant")


def test_truncation(net):
    z = torch.randn(64, 8, generator=gen(2))
    spread = [net.synthesis(net.mapping(z, psi)).std(0).mean().item() for psi in (0.0, 0.3, 0.7, 1.0)]
    assert spread[0] < 1e-6  # one fixed image
    assert spread == sorted(spread)
    part = net.mapping(z, 0.5, truncation_cutoff=2)
    whole = net.mapping(z)
    assert torch.equal(part[:, 2:], whole[:, 2:])
    assert torch.allclose(part[:, :2], net.w_mean + 0.5 * (whole[:, :2] - net.w_mean), atol=1e-6)


def test_coarse_layers_move_the_layout_and_fine_ones_the_texture(net, ws):
    other = ws.roll(1, 0)
    coarse, fine = ws.clone(), ws.clone()
    coarse[:, :2], fine[:, 4:] = other[:, :2], other[:, 4:]
    assert torch.equal(net.run_blocks(fine, 0, 2)[0], net.run_blocks(ws, 0, 2)[0])
    share = []
    for changed in (coarse, fine):
        change = net.synthesis(changed, "none") - net.synthesis(ws, "none")
        change = change - change.mean((2, 3), keepdim=True)  # mean colour apart
        low = F.interpolate(F.avg_pool2d(change, 4), scale_factor=4)
        share.append((low.square().sum() / change.square().sum()).item())
    assert share[0] > share[1]


def test_modulation_is_a_scaling_of_the_weights():
    torch.manual_seed(0)
    layer = Modulated(5, 4, 3, 6)
    x, w = torch.randn(3, 5, 7, 7), torch.randn(3, 6)
    s = layer.affine(w)
    for i in range(3):
        kernel = layer.conv.weight * layer.conv.scale * s[i][None, :, None, None]
        kernel = kernel / (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        assert torch.allclose(layer(x, w)[i], F.conv2d(x[i : i + 1], kernel, padding=1)[0], atol=1e-5)


def test_deeper_spaces_fit_a_held_out_image_better(net, public):
    """The round trip: styles alone, then with the first, then with the second features."""
    image = public.images()[:4] * 2 - 1
    w = net.mapping(torch.randn(4, 8, generator=gen(5)))
    x = img = None
    errors = []
    for stage in range(net.n_blocks):
        free = [w.clone().requires_grad_()] + ([x.clone().requires_grad_()] if stage else [])
        optimiser = torch.optim.Adam(free, 0.05)
        start = img
        for _ in range(40):
            made = net.run_blocks(free[0], stage, net.n_blocks, free[1] if stage else None, start)[1]
            optimiser.zero_grad()
            loss = (made - image).square().mean()
            loss.backward()
            optimiser.step()
        errors.append(loss.item())
        w = free[0].detach()
        with torch.no_grad():
            x, img = net.run_blocks(w, stage, stage + 1, free[1].detach() if stage else None, start)
    assert errors[1] < 0.9 * errors[0]
    assert errors[2] < 0.9 * errors[1]


@pytest.mark.parametrize("change", [{}, {"loss": "logistic", "r1": 0.1, "r1_every": 2}, {"warm_critic": 2}])
def test_same_seed_same_prior_and_resuming_changes_nothing(public, tmp_path, change):
    recipe = replace(TINY, **change)
    once = recipe.train(public, gen(4), plain)
    saved = tmp_path / "state.pt"
    recipe.train(public, gen(4), lambda it, **_: list(it)[:4], checkpoint=saved)  # killed after 4 of 6 steps
    again = recipe.train(public, gen(4), plain, checkpoint=saved)
    assert once["facts"] == again["facts"]
    for name, value in once["generator"].items():
        assert torch.equal(value, again["generator"][name])
    torch.save(once, tmp_path / "prior.pt")
    prior = recipe.load(torch.load(tmp_path / "prior.pt", weights_only=True))
    x = prior.generator(prior.sample(5, gen()))
    assert x.shape == (5, 3, 16, 16)
    assert 0 <= x.min() <= x.max() <= 1
    assert prior.discriminator(x * 2 - 1).shape == (5,)
    assert not any(p.requires_grad for p in prior.generator.parameters())


def test_statistics_belong_to_the_kept_mapping(public):
    prior = TINY.load(TINY.train(public, gen(), plain))
    w = prior.style.style(torch.randn(20000, 8, generator=gen(9)))
    assert torch.allclose(prior.style.w_mean, w.mean(0), atol=0.05 * float(w.std()))
    again = prior.to_w(torch.randn(20000, 8, generator=gen(8)))
    assert torch.allclose(again.mean(0), w.mean(0), atol=0.2 * float(w.std()))
    assert TINY.ema == pytest.approx(0.5 ** (8 / 100))


def test_r1_is_the_squared_slope_of_the_critic_at_real_images(public):
    run = _StyleRun(replace(TINY, loss="logistic", r1=0.0), torch.from_numpy(public.x[:64]), (3, 16, 16), gen())
    before = run.rng.get_state()
    bare = run._critic_loss().item()
    run.recipe = replace(run.recipe, r1=0.4, r1_every=3)
    run.rng.set_state(before)
    with_penalty = run._critic_loss().item()
    run.rng.set_state(before)
    x = run._batch().requires_grad_()
    (slope,) = torch.autograd.grad(run.critic(x).sum(), x)
    expected = 0.5 * 0.4 * 3 * slope.square().flatten(1).sum(1).mean().item()
    assert with_penalty - bare == pytest.approx(expected, rel=1e-3)


def test_training_comes_closer_to_the_public_images(public):
    recipe = replace(TINY, steps=80, batch=16, half_life=300, measure=20)
    history = recipe.train(public, gen(), plain)["facts"]["history"]
    assert min(q for _, q in history[-2:]) < 0.7 * history[0][1]


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="warm_critic"):
        Style(warm_critic=10)
