"""Parts of the searches of a style space: crops, candidates, spaces, memories, the genetic steps."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest
import torch
from torch.nn import functional as F

from inversionbench.core.errors import UserError
from inversionbench.latent.candidates import best_for, robustness
from inversionbench.latent.crops import Crop, Cropped
from inversionbench.latent.genetic import Genetic
from inversionbench.latent.prototypes import Memory, log_inter, log_intra
from inversionbench.latent.styles import Features, SharedW, SynthesisFromW, box, p_space, w_space
from inversionbench.models.base import Trace
from inversionbench.models.style import StyleGenerator, to_pixels
from inversionbench.models.style_prior import StylePrior
from inversionbench.oracle.base import Ledger
from inversionbench.oracle.classifier import WhiteBox
from inversionbench.tracks.classifier.attacks.mirror import RampedAdam


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def prior():
    torch.manual_seed(3)
    net = StyleGenerator(6, 6, (8, 8, 4), 3, 16).requires_grad_(False)
    w = net.style(torch.randn(4000, 6, generator=gen(1)))
    net.w_mean.copy_(w.mean(0))
    p = p_space(w)
    return StylePrior(net, None, 6, p.mean(0), p.std(0))


def test_crops_have_the_size_and_place_that_was_asked_for():
    crop, rng = Crop((0.25, 0.64), (0.8, 1.25), 0.5), gen()
    drawn = [crop.draw(40, 40, rng) for _ in range(400)]
    for top, left, h, w, _ in drawn:
        assert 0 <= top <= 40 - h
        assert 0 <= left <= 40 - w
        assert 0.22 < h * w / 1600 < 0.68
        assert 0.75 < w / h < 1.34
    assert 0.4 < sum(flip for *_, flip in drawn) / 400 < 0.6
    assert min(top for top, *_ in drawn) == 0
    whole = Crop((1.0, 1.0))
    x = torch.rand(2, 3, 8, 8, generator=rng)
    assert torch.equal(whole(x, rng), x)
    assert torch.equal(Crop((1.0, 1.0), flip=1.0)(x, rng), x.flip(-1))
    top, left, h, w, _ = Crop((0.25, 0.25)).draw(8, 8, gen(4))
    expected = F.interpolate(x[..., top : top + h, left : left + w], (8, 8), mode="bilinear", align_corners=False)
    assert torch.allclose(Crop((0.25, 0.25))(x, gen(4)), expected, atol=1e-6)


def test_every_block_sees_the_same_crops():
    x = torch.rand(4, 3, 16, 16, generator=gen())
    views = Cropped(Crop((0.5, 0.9)), 7)
    both = [views(x)[0] for _ in range(3)]
    views = Cropped(Crop((0.5, 0.9)), 7)
    part = [views(x[2:])[0] for _ in range(3)]
    assert all(torch.equal(a[2:], b) for a, b in zip(both, part))
    assert not torch.equal(both[0], both[1])


def test_p_space_and_its_box(prior):
    w = prior.style.style(torch.randn(3000, 6, generator=gen(5)))
    assert torch.allclose(w_space(p_space(w)), w)
    low, high = box(prior, 1.0)
    p = p_space(w.clamp(low, high))
    assert ((p - prior.p_mean).abs() <= prior.p_std * (1 + 1e-5)).all()
    share = ((w < low) | (w > high)).float().mean().item()
    assert 0.2 < share < 0.45  # about a third of a Gaussian lies beyond one deviation
    assert not ((w < box(prior, inf)[0]) | (w > box(prior, inf)[1])).any()
    code = SharedW(w[:4] * 3, (low, high))
    code.project()
    assert torch.equal(code.draw(), (w[:4] * 3).clamp(low, high))


def test_truncation_is_in_every_call_and_not_in_the_code(prior):
    w = prior.style.style(torch.randn(2, 6, generator=gen(5)))
    ws = w[:, None].repeat(1, prior.style.num_ws, 1)
    ws[:, :2] = prior.style.w_mean + 0.5 * (ws[:, :2] - prior.style.w_mean)
    assert torch.allclose(SynthesisFromW(prior.style, 0.5, 2)(w), to_pixels(prior.style.synthesis(ws)), atol=1e-6)


def test_a_stage_starts_at_the_image_of_the_last_and_stays_in_its_balls(prior):
    style = prior.style
    w = style.style(torch.randn(3, 6, generator=gen(6)))
    ws = w[:, None].expand(-1, style.num_ws, -1)
    x, img = style.run_blocks(ws, 0, 1)
    stage = Features(style, 1, w, x, img, (2.0, 0.5))
    assert torch.equal(stage.paint(stage.draw()), SynthesisFromW(style)(w))
    for p, size in zip(stage.parameters, (0.3, 0.0001)):
        p.data += size * torch.randn(p.shape, generator=gen(7))
    stage.project()
    moved = [(p - s).flatten(1).abs().sum(1) for p, s in zip(stage.parameters, (w, x))]
    assert torch.allclose(moved[0], torch.full((3,), 0.5), atol=1e-4)
    assert (moved[1] < 2.0).all()
    assert stage.bound == 0.0
    dropped = Features(style, 1, w, x, None, (2.0, 0.5))
    assert not torch.allclose(dropped.paint(dropped.draw()), SynthesisFromW(style)(w), atol=1e-3)


def test_candidates_are_the_best_of_each_class():
    scores = torch.rand(50, 4, generator=gen(8))
    chosen = best_for(scores, torch.tensor([3, 1]), 5)
    assert torch.equal(chosen[0], scores[:, 3].argsort(descending=True)[:5])
    assert torch.equal(chosen[1], scores[:, 1].argsort(descending=True)[:5])
    with pytest.raises(UserError, match="draw more"):
        best_for(scores, torch.tensor([0]), 51)


def test_robustness_tells_a_pattern_of_the_whole_image_from_one_of_a_corner():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(20.0))

        def forward(self, x):
            bright = x.mean((1, 2, 3)) + x[:, :, 0, 0].mean(1)
            return torch.stack([self.scale * (bright - 0.5), 0 * bright], 1)

    x = torch.zeros(2, 3, 16, 16)
    x[0] = 0.5
    x[1, :, 0, 0] = 1.0
    target = WhiteBox(Net(), Ledger(), "select")
    with torch.no_grad():
        assert (target(x)[:, 0] > 0).all()
    score = robustness(target, x, torch.tensor([0, 0]), Crop((0.5, 0.9), (0.8, 1.2), 0.5), 20, gen())
    assert score[0] > 0.99
    assert score[1] < 0.4
    assert target.ledger.passes == 2 + 2 * 20


def test_ratios_of_the_memories_are_those_written_down():
    f = F.normalize(torch.randn(3, 5, generator=gen(9)), dim=1)
    w = torch.randn(6, 5, generator=gen(10))
    unit = w / w.norm(dim=1, keepdim=True)
    near, far = (f @ unit[:3].T).exp().mean(1), (f @ unit[3:].T).exp().mean(1)
    assert torch.allclose(log_intra(f, w).exp(), near / (near + far), atol=1e-6)
    q = F.normalize(torch.randn(4, 5, generator=gen(11)), dim=1)
    own, other = (f @ q[2]).exp(), (f @ q[[0, 1, 3]].T).exp().mean(1)
    assert torch.allclose(log_inter(f, q, 2).exp(), own / (own + other), atol=1e-6)


def test_prototypes_learn_what_was_visited_and_history_has_a_momentum():
    memory = Memory(8, (1.0, 1.0), (1, 1), momentum=0.7, rate=0.1, rng=gen())
    f = F.normalize(torch.randn(3, 5, generator=gen(12)), dim=1)
    seen = Trace(torch.zeros(3, 4), 2.5 * f)
    memory.label = 1
    first = memory(f, seen)
    assert first.shape == (3,)
    drawn = [p.detach().clone() for p in memory.prototypes]
    memory.update()
    assert torch.allclose(memory.centres[1], f.mean(0))
    for _ in range(30):
        memory(f, seen)
        memory.update()
    assert log_intra(f, memory.prototypes[1]).mean() > log_intra(f, drawn[1]).mean() + 0.2
    assert all(torch.equal(memory.prototypes[c], drawn[c]) for c in (0, 2, 3))  # other classes are untouched
    other = Trace(torch.zeros(3, 4), -f)
    memory(f, other)
    memory.update()
    assert torch.allclose(memory.centres[1], (0.7 - 0.3) * f.mean(0), atol=1e-6)
    with pytest.raises(UserError, match="features"):
        memory(f, Trace(torch.zeros(3, 4)))


def test_children_mix_their_parents_and_stay_inside():
    limits = torch.full((4,), -2.0), torch.full((4,), 2.0)
    def search(mutation):
        return Genetic(lambda w: w, lambda x: x, limits, torch.full((4,), 0.5), mutation, 0.0, gen())

    w = torch.stack([torch.full((4,), float(v)) for v in (1.0, -1.0, 0.5)])[None]
    fitness = torch.tensor([[0.8, 0.2, 0.0]])
    many = torch.cat([search(0.0).children(w.repeat(500, 1, 1), fitness.repeat(500, 1))])
    assert set(many.unique().tolist()) <= {1.0, -1.0, 0.5}
    assert (many == 0.5).float().mean() < 0.01  # no score, no children
    fitter = (many == 1.0).float().mean().item()
    assert fitter == pytest.approx(0.64 + 0.32 * 0.8, abs=0.04)  # both parents, or one of them and 0.8 of its genes
    changed = search(0.3).children(w.repeat(500, 1, 1), fitness.repeat(500, 1))
    moved = ~((changed == 1.0) | (changed == -1.0) | (changed == 0.5))
    assert moved.float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert changed.abs().max() <= 2.0


def test_rates_rise_and_fall():
    p = torch.zeros(1, requires_grad=True)
    optimiser = RampedAdam([p], rate=1.0, steps=100)
    rates = []
    for _ in range(100):
        p.grad = torch.ones(1)
        optimiser.step()
        rates.append(optimiser.param_groups[0]["lr"])
    assert rates[:6] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:75] == pytest.approx([1.0] * 70)
    assert rates[99] < 0.01
    assert all(a > b for a, b in pairwise(rates[76:]))
