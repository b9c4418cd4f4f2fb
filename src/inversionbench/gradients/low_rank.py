"""The inputs of a first linear layer with ReLU, exactly, from the gradient of a batch (Dimitrov, Baader, Müller,
Vechev, "SPEAR: Exact Gradient Inversion of Batches in Federated Learning", NeurIPS 2024).

With the errors D (units, B) and the inputs X (B, d) of a batch, dW = D X and db = D 1. dW has rank B, so with an
orthonormal basis U (units, B) of its columns D = U Q for an unknown Q (B, B), and X = Q^-1 U^T dW. A column of D is
zero where the ReLU is off, which is about half of the units:

    repeat: B - 1 random rows of U; q = their null vector; keep q if U q has many more zeros than these
    Q = the B independent candidates with the most zeros, greedily; their scale from U Q diag(s) 1 = db
    X = diag(1 / s) Q^-1 U^T dW

A candidate is fitted again to all its zeros. What counts as zero follows from the part of dW outside the B leading
directions: `sigma`, the deviation of an entry, is the rounding of float32 without a defense, and more under noise.

The certificate (`_certified`): D and X explain each other. Units that are off at a row of X have no error there, those
that are on have one; db is met; and the units that are off at a row have rank B - 1, so that its q has no alternative
(without this, mixtures of rows that turn on the same units would pass). Everything in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inversionbench.core.errors import AccessDenied

ZERO = 6.0  # deviations within which an entry of U q counts as zero
LOOSE = 5.0  # times as many, before a candidate was fitted to all its zeros
KEPT = 64  # candidates of one chunk that are looked at
ALIKE = 0.999  # cosine from which on two candidates are one
NEW = 1e-3  # distance of a unit vector from the span of those before it
CHUNK = 4096  # draws at once
FEW = 0.1  # share of a row's active units whose error may be too small to be seen
PRECISION = 0.02  # deviation of a recovered entry, as a share of the rows' root mean square, that is still certified


@dataclass(frozen=True)
class Found:
    """x: (B, d), None where no B independent candidates were found. tries: draws of rows. sigma: see the module."""

    x: Tensor | None
    certified: bool
    tries: int
    sigma: float


@dataclass(frozen=True)
class Layer:
    """u: (units, B), scale: (B,) singular values, of dW, u^T dW = `right` (B, d). weight (units, d), bias (units,)."""

    u: Tensor
    scale: Tensor
    right: Tensor
    db: Tensor
    weight: Tensor
    bias: Tensor
    sigma: float

    def spread(self, q: Tensor) -> Tensor:
        """Deviation of the entries of u q. q: (..., B) to (..., 1)."""
        return (q / self.scale).norm(dim=-1, keepdim=True) * self.sigma + 1e-10


def recover_all(
    model: nn.Module, update: Mapping[str, Tensor], several: bool, sizes: Sequence[int], rng: torch.Generator,
    tries: int,
) -> list[Found]:
    """Every client, from gradients name -> (clients, ...) whose first two tensors are those of the layer. several: the
    clients took several steps, whose mean gradient is none of one batch. sizes: batch of each client.

    Raises `AccessDenied` for several steps."""
    if several:
        raise AccessDenied("SPEAR reads the gradient of one step; a mean over several local steps has a higher rank")
    weight, bias = (model.get_parameter(name).detach().cpu() for name in list(update)[:2])
    dw, db = (t.cpu() for t in list(update.values())[:2])
    return [recover(w, b, weight, bias, n, rng, tries) for w, b, n in zip(dw, db, sizes)]


def recover(
    dw: Tensor, db: Tensor, weight: Tensor, bias: Tensor, batch: int, rng: torch.Generator, tries: int
) -> Found:
    """One client. dw, weight: (units, d); db, bias: (units,); the mean or the sum over the batch. tries: at most."""
    layer = _layer(dw.double(), db.double(), weight.double(), bias.double(), batch)
    if layer is None:
        return Found(None, False, 0, 0.0)
    if batch == 1:
        x, certified = _solved(layer, torch.ones(1, 1, dtype=torch.float64))
        return Found(x, certified, 0, layer.sigma)
    pool, best, x, certified, done = torch.zeros(0, batch, dtype=torch.float64), None, None, False, 0
    for draws in _chunks(tries):
        done += draws
        pool = _merged(layer, torch.cat([pool, _candidates(layer, draws, rng)]))
        chosen = _sparsest(layer, pool)
        if chosen is None or (best is not None and torch.equal(chosen, best)):
            continue
        best = chosen
        x, certified = _solved(layer, chosen.T)
        if certified:
            break
    return Found(x, certified, done, layer.sigma)


def _chunks(tries: int) -> Iterator[int]:
    """Few draws first: small batches need no more."""
    left, size = tries, CHUNK // 16
    while left > 0:
        yield min(size, left)
        left, size = left - size, min(2 * size, CHUNK)


def _layer(dw: Tensor, db: Tensor, weight: Tensor, bias: Tensor, batch: int) -> Layer | None:
    """None where dW has no `batch` directions that stand out of the rest."""
    units, d = dw.shape
    if batch >= units or batch > d:
        return None
    values, vectors = torch.linalg.eigh(dw @ dw.T)
    lead, rest = values[-batch:].clamp_min(0).sqrt(), values[:-batch].clamp_min(0).sum()
    sigma = float((rest / ((units - batch) * max(d - batch, 1))).sqrt())
    if float(lead.min()) <= max(3 * sigma * (units**0.5 + d**0.5), 1e-7 * float(lead.max()), 1e-30):
        return None
    u = vectors[:, -batch:]
    return Layer(u, lead, u.T @ dw, db, weight, bias, sigma)


def _candidates(layer: Layer, draws: int, rng: torch.Generator) -> Tensor:
    """(n, B), unit vectors: null vectors of random rows that more rows agree with than were drawn."""
    units, batch = layer.u.shape
    rows = torch.rand(draws, units, generator=rng).topk(batch - 1, dim=1).indices
    a = layer.u[rows]
    y, failed = torch.linalg.solve_ex(a[..., :-1], -a[..., -1])
    q = torch.cat([y, torch.ones_like(y[:, :1])], 1)
    q = q[(failed == 0) & q.isfinite().all(1)]
    q = q / q.norm(dim=1, keepdim=True)
    zeros = _zeros(layer, q, LOOSE).sum(1)
    order = zeros.argsort(descending=True, stable=True)[:KEPT]
    return _fitted(layer, q[order[zeros[order] > batch + 1]])


def _zeros(layer: Layer, q: Tensor, times: float = 1.0) -> Tensor:
    """bool (n, units): where u q is zero; never more than what is small beside its own largest entries."""
    values = (q @ layer.u.T).abs()
    return values <= torch.minimum(times * ZERO * layer.spread(q), 0.1 * values.square().mean(1, keepdim=True).sqrt())


def _fitted(layer: Layer, q: Tensor) -> Tensor:
    """Every candidate as the best null vector of all its zeros, twice."""
    for times in (LOOSE, 1.0):
        mask = _zeros(layer, q, times).double()
        products = torch.einsum("nu,ub,uc->nbc", mask, layer.u, layer.u)
        q = torch.linalg.eigh(products).eigenvectors[..., 0] if len(q) else q
    return q


def _merged(layer: Layer, q: Tensor) -> Tensor:
    """Different candidates, those with the most zeros first."""
    kept: list[Tensor] = []
    for row in q[_zeros(layer, q).sum(1).argsort(descending=True, stable=True)][: 8 * KEPT]:
        if not kept or float((torch.stack(kept) @ row).abs().max()) < ALIKE:
            kept.append(row)
    return torch.stack(kept[: 4 * KEPT]) if kept else q


def _sparsest(layer: Layer, pool: Tensor) -> Tensor | None:
    """The first B independent rows of the pool, (B, B), or None."""
    batch = layer.u.shape[1]
    chosen: list[Tensor] = []
    span = torch.zeros(0, batch, dtype=torch.float64)
    for row in pool:
        rest = row - span.T @ (span @ row)
        if float(rest.norm()) > NEW:
            chosen.append(row)
            span = torch.cat([span, (rest / rest.norm())[None]])
        if len(chosen) == batch:
            return torch.stack(chosen)
    return None


def _solved(layer: Layer, q: Tensor) -> tuple[Tensor, bool]:
    """X (B, d) of the directions q (B, B, in columns), and whether it is certified."""
    inverse = torch.linalg.inv(q)
    s = inverse @ (layer.u.T @ layer.db)
    s = torch.where(s.abs() < 1e-300, torch.full_like(s, 1e-300), s)
    x = (inverse @ layer.right) / s[:, None]
    noise = float((inverse.norm(dim=1) / s.abs()).max()) * layer.sigma  # deviation of the entries of x
    met = (layer.db - layer.u @ (q @ s)).norm() <= 10 * layer.sigma * len(layer.db) ** 0.5 + 1e-5 * layer.db.norm()
    fine = noise <= PRECISION * float(x.square().mean().sqrt())
    return x, bool(met) and fine and _certified(layer, q, x)


def _certified(layer: Layer, q: Tensor, x: Tensor) -> bool:
    """See the module. The entries of u q are compared in units of their deviation; a unit at which a row lies on the
    edge, within rounding, may go either way."""
    values = (layer.u @ q).abs()
    quiet = values <= 2 * ZERO * layer.spread(q.T).T
    before = layer.weight @ x.T + layer.bias[:, None]
    edge = 1e-3 * before.square().mean().sqrt()
    off, on = before < -edge, before > edge
    if bool((off & ~quiet).any()) or bool(((on & quiet).sum(0) > FEW * on.sum(0)).any()):
        return False
    for column in range(q.shape[1] if q.shape[1] > 1 else 0):
        singular = torch.linalg.svdvals(layer.u[off[:, column]])
        if len(singular) < q.shape[1] or float(singular[-2]) < max(1e-3, 20 * float(layer.spread(q.T).max())):
            return False
    return True
