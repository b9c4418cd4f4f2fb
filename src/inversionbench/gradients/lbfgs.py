"""L-BFGS for many independent trials at once: each row moves as under its own `torch.optim.LBFGS`.

Without line search, with the rules of that optimiser (learning rate, `history` pairs, `inner` iterations per
step, its four reasons to stop a step), every decision taken per trial. The two-loop recursion over the history
is replaced by the compact form of the same matrix (Byrd, Nocedal, Schnabel, Math. Programming 1994, eq. 3.1):

    H = gamma I + [S  gamma Y] [ R^-T (D + gamma Y^T Y) R^-1   -R^-T ] [S^T      ]
                               [ -R^-1                           0   ] [gamma Y^T]

with the pairs s_i, y_i as columns of S and Y, R_ij = s_i^T y_j for i <= j, D = diag(s_i^T y_i): two passes over
the history and small triangular solves in float64, instead of 4 m vector operations per iteration.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Closure = Callable[[Tensor], tuple[Tensor, Tensor]]  # x (trials, n) -> losses (trials,), gradients (trials, n)

TOLERANCE_GRAD, TOLERANCE_CHANGE, CURVATURE = 1e-7, 1e-9, 1e-10  # as in torch.optim.LBFGS


class History:
    """The last `size` pairs (s, y) of every trial; each trial skips pairs of its own.

    Pairs lie in a ring per trial, slot by slot. Inner products are kept in slot order and are brought into the
    order of age only as small matrices.
    """

    def __init__(self, trials: int, n: int, size: int, like: Tensor):
        self.size, self.n = size, n
        self.pairs = like.new_zeros(trials, size, 2, n)
        self.count = torch.zeros(trials, dtype=torch.long, device=like.device)
        self.sy = torch.zeros(trials, size, size, dtype=torch.float64, device=like.device)  # s_i^T y_j
        self.yy = torch.zeros_like(self.sy)
        self.gamma = torch.ones(trials, dtype=torch.float64, device=like.device)

    def direction(self, g: Tensor, s: Tensor, y: Tensor, keep: Tensor) -> Tensor:
        """-H g, after storing (s, y) for the trials of `keep` (trials,) with s^T y > 0. All (trials, n)."""
        ys = torch.linalg.vecdot(s, y)
        rows = (keep & (ys > CURVATURE)).nonzero()[:, 0]
        slots = self.count[rows] % self.size
        self.pairs[rows, slots, 0], self.pairs[rows, slots, 1] = s[rows], y[rows]
        self.count[rows] += 1
        m = min(self.size, int(self.count.max()))
        if m == 0:
            return -g
        flat = self.pairs[:, :m].flatten(1, 2)
        products = torch.bmm(torch.stack([y, s, g], dim=1), flat.transpose(1, 2))  # few rows: the fast way round
        by_y, by_s, by_g = products.double().unflatten(2, (m, 2)).unbind(1)
        self.sy[rows, :m, slots] = by_y[rows, :, 0]
        self.sy[rows, slots, :m] = by_s[rows, :, 1]
        self.yy[rows, :m, slots] = self.yy[rows, slots, :m] = by_y[rows, :, 1]
        self.gamma[rows] = ys[rows].double() / self.yy[rows, slots, slots]
        weights = self._weights(by_g[:, :, 0], by_g[:, :, 1], m).to(g.dtype)
        h = torch.bmm(weights.flatten(1)[:, None], flat)[:, 0]
        return torch.addcmul(h, self.gamma[:, None].to(g.dtype), g).neg_()

    def _weights(self, sg: Tensor, yg: Tensor, m: int) -> Tensor:
        """What each slot's s and y contribute to H g: (trials, m, 2). sg, yg: s^T g, y^T g (trials, m)."""
        order = torch.arange(m, device=sg.device).expand(len(sg), m)
        if m == self.size:  # the ring of a full trial starts at its oldest pair
            order = torch.where((self.count >= m)[:, None], (order + self.count[:, None]) % m, order)
        live = torch.arange(m, device=sg.device) < self.count[:, None]
        both = live[:, :, None] & live[:, None, :]
        eye = torch.eye(m, dtype=sg.dtype, device=sg.device)
        r = torch.where(both, _by_age(self.sy, order), eye).triu()
        yy = _by_age(self.yy, order).where(both, 0.0)
        sg, yg = (torch.gather(v, 1, order).where(live, 0.0) for v in (sg, yg))
        gamma = self.gamma[:, None]
        p = torch.linalg.solve_triangular(r, sg[:, :, None], upper=True)
        middle = r.diagonal(dim1=1, dim2=2) * p[:, :, 0] + gamma * ((yy @ p)[:, :, 0] - yg)
        q = torch.linalg.solve_triangular(r.transpose(1, 2), middle[:, :, None], upper=False)
        out = torch.cat([q, -gamma[:, :, None] * p], dim=2)
        return torch.zeros_like(out).scatter_(1, order[:, :, None].expand_as(out), out)


def _by_age(a: Tensor, order: Tensor) -> Tensor:
    """Rows and columns of (trials, size, size) in the order (trials, m) of slots."""
    m = order.shape[1]
    rows = torch.gather(a[:, :m, :m], 1, order[:, :, None].expand(-1, -1, m))
    return torch.gather(rows, 2, order[:, None, :].expand(-1, m, -1))


class LBFGS:
    """State of the optimiser for x (trials, n).

    After `step`, `loss` (trials,) is the value at the start of the step and `evaluations` (trials,) counts the
    closures that each trial has used.
    """

    def __init__(self, x: Tensor, rate: float = 1.0, history: int = 100, inner: int = 20):
        self.x, self.rate, self.inner = x.detach().clone(), rate, inner
        self.history = History(len(x), x.shape[1], history, x)
        self.direction = torch.zeros_like(self.x)
        self.length = torch.full((len(x),), float(rate), dtype=x.dtype, device=x.device)
        self.before = torch.zeros_like(self.x)  # the gradient of the iterate before
        self.iterations = torch.zeros(len(x), dtype=torch.long, device=x.device)
        self.evaluations = self.iterations.clone()
        self.loss = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)

    def of(self, index: Tensor) -> LBFGS:
        """The optimiser of some of the trials, with their memory."""
        out = LBFGS(self.x[index], self.rate, 1, self.inner)
        for name in ("direction", "length", "before", "iterations", "evaluations", "loss"):
            setattr(out, name, getattr(self, name)[index])
        out.history = History.__new__(History)
        out.history.size, out.history.n = self.history.size, self.history.n
        for name in ("pairs", "count", "sy", "yy", "gamma"):
            setattr(out.history, name, getattr(self.history, name)[index])
        return out

    def step(self, closure: Closure) -> None:
        """Up to `inner` iterations."""
        loss, g = closure(self.x)
        self.loss = loss
        self.evaluations += 1
        going = ~(g.abs().amax(1) <= TOLERANCE_GRAD)
        for i in range(1, self.inner + 1):
            if not bool(going.any()):
                return
            previous = loss
            going = self._move(g, going)
            if i == self.inner or not bool(going.any()):
                return
            new_loss, new_g = closure(self.x)
            self.evaluations += going
            wide = going[:, None]
            loss, g = torch.where(going, new_loss, loss), torch.where(wide, new_g, g)
            stop = (g.abs().amax(1) <= TOLERANCE_GRAD) | ((loss - previous).abs() < TOLERANCE_CHANGE)
            stop |= (self.direction * self.length[:, None]).abs().amax(1) <= TOLERANCE_CHANGE
            going = going & ~stop

    def _move(self, g: Tensor, going: Tensor) -> Tensor:
        """One iteration of the trials in `going`; returns those that have not come to a halt."""
        wide = going[:, None]
        first = self.iterations == 0
        moved = self.direction * self.length[:, None]
        direction = self.history.direction(g, moved, g - self.before, going & ~first)
        self.direction = torch.where(wide, torch.where(first[:, None], -g, direction), self.direction)
        self.before = torch.where(wide, g, self.before)
        short = (1 / g.abs().sum(1)).clamp_max(1.0) * self.rate
        self.length = torch.where(going, torch.where(first, short, torch.full_like(short, self.rate)), self.length)
        self.iterations += going
        slope = torch.linalg.vecdot(g, self.direction)
        going = going & ~(slope > -TOLERANCE_CHANGE)
        self.x = torch.where(going[:, None], self.x + self.length[:, None] * self.direction, self.x)
        return going
