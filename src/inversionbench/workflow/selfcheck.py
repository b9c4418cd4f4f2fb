"""`inversionbench selfcheck`: does this machine compute the published bits?

A dozen kinds of work that the results hang on, each from inputs made by integer arithmetic, each reduced to a digest,
beside the digests that were recorded under portable numerics (`recorded.json`). `--write` records them anew, which
belongs to a new version of torch, NumPy or scikit-learn, or to changed code behind a kind; published results are then
made again as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from inversionbench.core import numerics, provenance
from inversionbench.core.files import read_json, write_json

RECORDED = Path(__file__).with_name("recorded.json")
MEANS = {  # kind -> what hangs on it, where it differs
    "draws": "every random number: data, splits, initial weights, attacks",
    "elementwise": "activations, losses, optimisers",
    "reductions": "losses, norms, statistics of batch norm",
    "products": "linear layers",
    "convolutions": "convolutional networks, and gradients of their gradients",
    "decompositions": "FID, analytic attacks, defenses that project",
    "numpy": "tables, generated data, metrics",
    "training": "trained targets and evaluators",
    "generator": "trained priors, and all attacks that search one",
    "matching": "attacks that match gradients",
    "trees": "tree targets and evaluators of tables",
    "scores": "PSNR, SSIM, FSIM and AVD",
}


def numbers(*shape: int, salt: int = 1) -> Tensor:
    """float32 in [-1, 1), from integers alone: the same bits everywhere."""
    x = np.arange(salt << 24, (salt << 24) + int(np.prod(shape)), dtype=np.uint64)
    for shift, factor in ((16, 0x45D9F3B), (15, 0x2C1B3C6D), (16, 0x297A2D39)):  # a mixer of 32-bit integers
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor) & np.uint64(0xFFFFFFFF)
    return torch.from_numpy((x.astype(np.int64) - 2**31 >> 8).astype(np.float32).reshape(shape)) / 2**23


def images(n: int, side: int, salt: int = 1) -> Tensor:
    return (numbers(n, 3, side, side, salt=salt) * 128 + 128).to(torch.uint8)


def draws() -> list[Any]:
    g, r = torch.Generator().manual_seed(5), np.random.default_rng(5)
    return [torch.randn(5001, generator=g), torch.rand(5001, generator=g), torch.randperm(999, generator=g),
            torch.multinomial(numbers(50).abs(), 20, generator=g), torch.empty(999).exponential_(generator=g),
            r.standard_normal(5001), r.gamma(2.0, size=999), r.permutation(999)]  # fmt: skip


def elementwise() -> list[Any]:
    x = numbers(50_001) * 6
    near = [x.exp(), x.sigmoid(), x.tanh(), x.sin(), x.erf(), F.softplus(x), F.gelu(x), F.silu(x)]
    return [*near, *(f(x.abs() + 0.01) for f in (torch.log, torch.sqrt, torch.rsqrt, torch.reciprocal))]


def reductions() -> list[Any]:
    x = numbers(333, 777)
    return [x.sum(), x.sum(0), x.mean(1), x.softmax(1), x.logsumexp(1), x.var(0), x.norm(), x.norm(dim=1), x.cumsum(0),
            F.batch_norm(x, None, None, training=True), F.layer_norm(x, (777,)), torch.cdist(x[:40], x[40:80])]


def products() -> list[Any]:
    sizes = ((1, 7, 5), (3, 64, 10), (64, 512, 10), (64, 1024, 512), (17, 129, 33))
    return [*(numbers(m, k) @ numbers(k, n, salt=3) for m, k, n in sizes), numbers(300, 200) @ numbers(200),
            torch.bmm(numbers(16, 9, 27), numbers(16, 27, 64, salt=2)),
            numbers(90, 80).double() @ numbers(80, 7).double()]  # fmt: skip


def convolutions() -> list[Any]:
    out: list[Any] = []
    for batch, inputs, outputs, side, stride, groups in (
        (64, 3, 16, 32, 1, 1), (8, 8, 16, 16, 2, 1), (1, 48, 64, 32, 1, 16), (4, 24, 128, 16, 1, 8)
    ):  # fmt: skip
        x = numbers(batch, inputs, side, side).requires_grad_()
        w = numbers(outputs, inputs // groups, 3, 3, salt=5).requires_grad_()
        y = F.conv2d(x, w, stride=stride, padding=1, groups=groups)
        first = torch.autograd.grad(y.square().sum(), (x, w), create_graph=True)
        out += [y, *first, *torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), (x, w))]
    up = F.conv_transpose2d(numbers(8, 64, 8, 8), numbers(64, 32, 4, 4, salt=2), stride=2, padding=1)
    return [*out, up, F.interpolate(up, size=24, mode="bilinear", antialias=True)]


def decompositions() -> list[Any]:
    import scipy.linalg

    a = numbers(60, 60)
    spd = a @ a.T + 60 * torch.eye(60)
    root = np.real(scipy.linalg.sqrtm(spd.double().numpy()))
    z = torch.fft.rfft2(numbers(8, 64, 48))
    squares = torch.linalg.lstsq(a[:, :20], a[:, 20:22], driver="gelsd")  # the default driver reads unset pivots
    return [torch.linalg.svdvals(a), torch.linalg.svdvals(a.double()), torch.linalg.cholesky(spd), z.real, z.imag,
            torch.linalg.eigvalsh(spd), torch.linalg.solve(a, a[:, :3]), squares.solution, root,
            np.linalg.svd(a.numpy())[1]]  # fmt: skip


def numpy() -> list[Any]:
    x = numbers(20_001).numpy() * 3
    ties = np.round(x, 1)
    square = x[:10_000].reshape(100, 100)
    out: list[Any] = [np.argsort(ties), np.argpartition(ties, 5000), square @ square]
    for a in (np.abs(x) + 0.01, np.abs(x.astype(np.float64)) + 0.01):
        out += [np.exp(a), np.log(a), np.log1p(a), np.sin(a), np.tanh(a), np.power(a, 1.7), np.cbrt(a)]
        out += [a.sum(), a.std()]
    return out


def training() -> list[Any]:
    from inversionbench.core.recipe import Recipe
    from inversionbench.models.federated import build
    from inversionbench.training.loop import fit

    spec = {"name": "convnet", "widths": [8, 16, 32]}
    made = build(spec, (3, 32, 32), 10, torch.Generator().manual_seed(1))
    recipe = Recipe(epochs=3, batch=32, flip=True, shift=2)
    net = fit(lambda: made, images(128, 32), torch.arange(128) % 10, 10, recipe, rng=torch.Generator().manual_seed(2))
    return list(net.state_dict().values())


def generator() -> list[Any]:
    from inversionbench.data.base import Part
    from inversionbench.priors.dcgan import Dcgan

    public = Part(images(96, 32, salt=9).numpy(), np.zeros(96, dtype=np.int64))
    recipe = Dcgan(z_dim=16, width=8, upsample="nearest", loss="hinge", steps=6, batch=16, critic_steps=1, ema=0.9,
                   measure=6)  # fmt: skip
    state = recipe.train(public, torch.Generator().manual_seed(3), lambda items, **_: items)
    return [*state["generator"].values(), *state["critic"].values()]


def matching() -> list[Any]:
    from inversionbench.core.protocol import Protocol
    from inversionbench.gradients.matching import objective
    from inversionbench.gradients.objectives import Matching
    from inversionbench.gradients.search import adam
    from inversionbench.gradients.simulate import simulator
    from inversionbench.models.federated import build

    out = []
    for spec in ({"name": "lenet"}, {"name": "convnet", "widths": [8, 16, 32]}):
        client = simulator(build(spec, (3, 32, 32), 10, torch.Generator().manual_seed(4)), Protocol(batch_size=1))
        y = F.one_hot(torch.tensor([[3], [7]]), 10).float()
        observed = client(numbers(2, 1, 3, 32, 32, salt=6), y).detach()
        out.append(adam(numbers(2, 1, 3, 32, 32), objective(client, Matching(observed), y, 0.01), 12, 0.1).x)
    return out


def trees() -> list[Any]:
    from sklearn.linear_model import LogisticRegression

    from inversionbench.models.trees import grow, grow_forest, probabilities

    x = np.round(numbers(600, 10).numpy(), 1)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(np.int64) + (x[:, 3] > 0.5)
    linear = LogisticRegression(max_iter=200).fit(x, y)
    return [probabilities(grow(x, y, 3, 0), x), probabilities(grow_forest(x, y, 3, 0, trees=10), x), linear.coef_]


def scores() -> list[Any]:
    from inversionbench.metrics import pairwise

    x = images(6, 32).float() / 255
    found = pairwise(x, x + 0.2 * numbers(6, 3, 32, 32, salt=8), ("mse", "psnr", "ssim", "fsim", "avd"))
    return [found.values[name] for name in sorted(found.values)]


KINDS: tuple[Callable[[], list[Any]], ...] = (
    draws, elementwise, reductions, products, convolutions, decompositions, numpy, training, generator, matching, trees,
    scores,
)  # fmt: skip


def digest(values: list[Any]) -> str:
    found = hashlib.sha256()
    for value in values:
        array = value.detach().numpy() if isinstance(value, Tensor) else value
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def selfcheck(write: bool = False) -> tuple[list[str], bool]:
    """The lines to print, and whether everything equals what was recorded; write: record it."""
    torch.set_num_threads(1)
    got = {kind.__name__: digest(kind()) for kind in KINDS}
    if write:
        write_json(RECORDED, {"versions": _versions(), "digests": got})
    recorded = read_json(RECORDED)
    said = recorded["digests"]
    lines = [f"{name:15} {value} {'equal' if value == said[name] else f'{said[name]} was recorded'}"
             for name, value in got.items()]  # fmt: skip
    lines += list(_verdict(recorded, [name for name in got if got[name] != said[name]]))
    return lines, got == said


def _verdict(recorded: dict[str, Any], differ: list[str]) -> Iterator[str]:
    here = _versions()
    others = [f"{name} {version} (here {here[name]})" for name, version in recorded["versions"].items()
              if here[name] != version]  # fmt: skip
    if others:
        yield f"recorded with {', '.join(others)}: another version may compute other bits on every machine"
    if not differ:
        yield "this machine computes the published bits"
        return
    if not numerics.possible():
        yield "portable numerics need an x86-64 processor with AVX2: another one rounds otherwise, whatever is set"
    elif numerics.active() != "portable":
        yield "native numerics: this processor's own kernels were asked for"
    yield f"{len(differ)} of {len(MEANS)} kinds differ from the published bits. On them hang:"
    for name in differ:
        yield f"  {name}: {MEANS[name]}"
    yield ("Results here are as right as the published ones, and differ from them in rounding; trained networks differ "
           "in a few predictions of a thousand. `inversionbench compare` says by how much.")


def _versions() -> dict[str, str]:
    return {name: version for name, version in provenance.versions().items() if name != provenance.PACKAGE}
